"""Blur of Hendrycks & Dietterich (2019)."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.degradations.base import uniform_per_image
from cnnsens_bench.degradations.imagenet_c.severity import common
from cnnsens_bench.degradations.kernels.filters import (
    MIRROR,
    SYMMETRIC,
    correlate,
    disk,
    gaussian_blur,
    sample,
    shifted_sum,
)
from cnnsens_bench.degradations.streams import Streams


@common(((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)))
def defocus_blur(pixels: Tensor, draw: None, lens: tuple[int, float]) -> Tensor:
    """Out of focus: a disk of that radius, its rim softened by that much."""
    return correlate(pixels, disk(*lens), MIRROR)


GLASS = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
ROUNDS = max(rounds for _, _, rounds in GLASS)


def glass_draw(streams: Streams, size: int) -> Tensor:
    """(N, rounds, size, size, 2) uniform in [0, 1): where each pixel looks in each round, x and y."""
    return streams.uniform(ROUNDS, size, size, 2)


@common(GLASS, draw=glass_draw)
def glass_blur(pixels: Tensor, draw: Tensor, glass: tuple[float, int, int]) -> Tensor:
    """Frosted glass: blurred by σ, shuffled among neighbours up to a distance, blurred again.

    ImageNet-C's code means to swap two pixels, but its NumPy views make it copy the one over the other; so do we.
    """
    sigma, distance, rounds = glass
    # Cut to whole values, as there; a thousandth keeps flat regions from falling below theirs.
    blurred = torch.floor(gaussian_blur(pixels.clamp(0, 255), sigma) + 1e-3)
    places = np.stack([_shuffle_loop()(numbers, distance, rounds) for numbers in draw.cpu().numpy()])
    count, channels, height, width = pixels.shape
    index = torch.from_numpy(places).to(pixels.device).view(count, 1, -1).expand(-1, channels, -1)
    shuffled = blurred.reshape(count, channels, -1).gather(2, index).view(count, channels, height, width)
    return gaussian_blur(shuffled, sigma)


@lru_cache(maxsize=1)
def _shuffle_loop() -> Callable[..., np.ndarray]:
    @numba.njit(nogil=True)
    def loop(numbers, distance, rounds):  # type: ignore[no-untyped-def]
        size = numbers.shape[1]
        places = np.arange(size * size).reshape(size, size)
        for n in range(rounds):
            for h in range(size - distance, distance, -1):
                for w in range(size - distance, distance, -1):
                    x = int(numbers[n, h, w, 0] * np.float32(2 * distance)) - distance
                    y = int(numbers[n, h, w, 1] * np.float32(2 * distance)) - distance
                    places[h, w] = places[h + y, w + x]
        return places

    return loop


def motion_blurred(pixels: Tensor, radius: int, sigma: float, degrees: list[float]) -> Tensor:
    """ImageMagick's motion blur, an angle an image: half a Gaussian of 2 · radius + 1 taps along a line."""
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    blurred = []
    for image, angle in zip(pixels.split(1), degrees, strict=True):
        across, down = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        shifts = [(math.ceil(i * down - 0.5), math.ceil(i * across - 0.5)) for i in steps.tolist()]
        blurred.append(shifted_sum(image, shifts, weights))
    return torch.cat(blurred)


@common(((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)), draw=uniform_per_image)
def motion_blur(pixels: Tensor, draw: Tensor, motion: tuple[int, float]) -> Tensor:
    """Moved while exposed, in a direction uniform in ± 45°."""
    return motion_blurred(pixels, *motion, [90 * u - 45 for u in draw.tolist()])


@common(
    (
        np.arange(1, 1.11, 0.01),
        np.arange(1, 1.16, 0.01),
        np.arange(1, 1.21, 0.02),
        np.arange(1, 1.26, 0.02),
        np.arange(1, 1.31, 0.03),
    )
)
def zoom_blur(pixels: Tensor, draw: None, factors: Any) -> Tensor:
    """Moved towards while exposed: the mean of the image and of its magnifications."""
    total = pixels
    for factor in factors:
        total = total + magnified(pixels, float(factor))
    return total / (len(factors) + 1)


def magnified(pixels: Tensor, factor: float) -> Tensor:
    """The middle of square images `factor` times larger, as `scipy.ndimage.zoom` of order 1 does it."""
    size = pixels.shape[-1]
    part = math.ceil(size / factor)
    result = round(part * factor)
    steps = np.arange(size) + (result - size) // 2
    line = (size - part) // 2 + steps * (part - 1) / max(1, result - 1)
    where = torch.from_numpy(line.astype(np.float32)).to(pixels.device)
    rows, columns = where.view(1, -1, 1).expand(1, size, size), where.view(1, 1, -1).expand(1, size, size)
    return sample(pixels, rows, columns, SYMMETRIC)
