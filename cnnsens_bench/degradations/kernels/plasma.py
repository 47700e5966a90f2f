"""Plasma fractals: cloudy textures by the diamond-square algorithm, from one draw at any roughness."""

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.degradations.streams import Streams


def map_size(size: int) -> int:
    """Return the side of the texture for inputs of `size` pixels: a power of two, at least 256."""
    return max(256, 1 << (size - 1).bit_length())


def plasma_draw(streams: Streams, size: int) -> Tensor:
    """Draw the random numbers of one texture per image: (N, side² − 1) uniform in [0, 1)."""
    return streams.uniform(map_size(size) ** 2 - 1)


def plasma(draw: Tensor, size: int, decay: float) -> Tensor:
    """Compute the textures of a draw, as the code of Hendrycks & Dietterich (2019) does.

    The displacement of a step is uniform in ± wobble², where the wobble is divided by `decay` from step to step. The
    texture is periodic.

    Parameters
    ----------
    draw
        What `plasma_draw` returned for this size.
    size
        The side of the result in pixels.
    decay
        The smoothness, at least 1, which is white noise.

    Returns
    -------
    Tensor
        (N, 1, size, size) in [0, 1].
    """
    side = map_size(size)
    count, used = len(draw), 0
    heights = torch.zeros(count, side, side, device=draw.device)
    step, wobble = side, 100.0

    def displaced_mean(four: Tensor) -> Tensor:
        """Return a quarter of a sum of four corners, displaced by the next random numbers."""
        nonlocal used
        numbers = draw[:, used : used + four[0].numel()].view_as(four)
        used += four[0].numel()
        return four / 4 + (numbers * 2 - 1) * float(np.float32(wobble * wobble))

    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        pairs = corners + corners.roll(-1, 1)
        centres = displaced_mean(pairs + pairs.roll(-1, 2))
        heights[:, half::step, half::step] = centres
        heights[:, ::step, half::step] = displaced_mean(centres + centres.roll(1, 1) + (corners + corners.roll(-1, 2)))
        heights[:, half::step, ::step] = displaced_mean(centres + centres.roll(1, 2) + (corners + corners.roll(-1, 1)))
        step, wobble = half, wobble / decay
    heights = heights - heights.amin((1, 2), keepdim=True)
    return (heights / heights.amax((1, 2), keepdim=True))[:, None, :size, :size]
