"""Plasma fractals: cloudy textures of the diamond-square algorithm, from one draw at any roughness."""

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.degradations.streams import Streams


def map_size(size: int) -> int:
    """The side of the texture for inputs of `size`: a power of two, 256 at least."""
    return max(256, 1 << (size - 1).bit_length())


def plasma_draw(streams: Streams, size: int) -> Tensor:
    """(N, map²−1) uniform in [0, 1): all that one texture takes."""
    return streams.uniform(map_size(size) ** 2 - 1)


def plasma(draw: Tensor, size: int, decay: float) -> Tensor:
    """(N, 1, size, size) in [0, 1], from `plasma_draw`; the larger `decay`, the smoother (1 is white noise).

    As Hendrycks & Dietterich's: the displacement of a step is uniform in ± wobble², the wobble divided by `decay`
    from step to step, and the texture is periodic.
    """
    side = map_size(size)
    count, used = len(draw), 0
    heights = torch.zeros(count, side, side, device=draw.device)
    step, wobble = side, 100.0

    def mean_of(four: Tensor) -> Tensor:
        nonlocal used
        numbers = draw[:, used : used + four[0].numel()].view_as(four)
        used += four[0].numel()
        return four / 4 + (numbers * 2 - 1) * float(np.float32(wobble * wobble))

    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        pairs = corners + corners.roll(-1, 1)
        centres = mean_of(pairs + pairs.roll(-1, 2))
        heights[:, half::step, half::step] = centres
        heights[:, ::step, half::step] = mean_of(centres + centres.roll(1, 1) + (corners + corners.roll(-1, 2)))
        heights[:, half::step, ::step] = mean_of(centres + centres.roll(1, 2) + (corners + corners.roll(-1, 1)))
        step, wobble = half, wobble / decay
    heights = heights - heights.amin((1, 2), keepdim=True)
    return (heights / heights.amax((1, 2), keepdim=True))[:, None, :size, :size]
