"""The blurs of Hendrycks & Dietterich (2019)."""

import math
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.degradations.base import uniform_per_image
from cnnsens_bench.degradations.imagenet_c.severity import common
from cnnsens_bench.degradations.kernels import filters
from cnnsens_bench.degradations.streams import Streams


@common(((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)))
def defocus_blur(pixels: Tensor, draw: None, lens: tuple[int, float]) -> Tensor:
    """Blur with the disk of a lens out of focus; `lens` is its radius and the σ that softens its rim, in pixels."""
    return filters.correlate(pixels, filters.disk(*lens), filters.MIRROR)


GLASS = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
ROUNDS = max(rounds for _, _, rounds in GLASS)


def glass_draw(streams: Streams, size: int) -> Tensor:
    """Draw from which neighbour each pixel is taken in each round: (N, rounds, size, size, x and y) in [0, 1)."""
    return streams.uniform(ROUNDS, size, size, 2)


@common(GLASS, draw=glass_draw)
def glass_blur(pixels: Tensor, draw: Tensor, glass: tuple[float, int, int]) -> Tensor:
    """Blur by σ, shuffle pixels among neighbours up to a distance, and blur again, as frosted glass does.

    The code of ImageNet-C means to swap two pixels, but its NumPy views copy one over the other; so does this function.
    """
    sigma, distance, rounds = glass
    # Values are cut to whole numbers, as there; a thousandth is added so that flat regions keep their value.
    blurred = torch.floor(filters.gaussian_blur(pixels.clamp(0, 255), sigma) + 1e-3)
    origins = np.stack([_shuffle_loop(numbers, distance, rounds) for numbers in draw.cpu().numpy()])
    count, channels, height, width = pixels.shape
    index = torch.from_numpy(origins).to(pixels.device).view(count, 1, -1).expand(-1, channels, -1)
    shuffled = blurred.reshape(count, channels, -1).gather(2, index).view(count, channels, height, width)
    return filters.gaussian_blur(shuffled, sigma)


@numba.njit(nogil=True)
def _shuffle_loop(numbers, distance, rounds):  # type: ignore[no-untyped-def]
    size = numbers.shape[1]
    origins = np.arange(size * size).reshape(size, size)
    for n in range(rounds):
        for h in range(size - distance, distance, -1):
            for w in range(size - distance, distance, -1):
                x = int(numbers[n, h, w, 0] * np.float32(2 * distance)) - distance
                y = int(numbers[n, h, w, 1] * np.float32(2 * distance)) - distance
                origins[h, w] = origins[h + y, w + x]
    return origins


def motion_blurred(pixels: Tensor, radius: int, sigma: float, degrees: list[float]) -> Tensor:
    """Blur each image along a line, with half a Gaussian of 2 · radius + 1 taps, like ImageMagick's motion blur.

    Parameters
    ----------
    radius, sigma
        The length of the line and the σ of the Gaussian, in pixels.
    degrees
        The direction for each image.
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    blurred = []
    for image, angle in zip(pixels.split(1), degrees, strict=True):
        across, down = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        shifts = [(math.ceil(i * down - 0.5), math.ceil(i * across - 0.5)) for i in steps.tolist()]
        blurred.append(filters.shifted_sum(image, shifts, weights))
    return torch.cat(blurred)


@common(((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)), draw=uniform_per_image)
def motion_blur(pixels: Tensor, draw: Tensor, motion: tuple[int, float]) -> Tensor:
    """Blur by a motion during the exposure, in a direction uniform in ± 45°; `motion` is its radius and σ in pixels."""
    return motion_blurred(pixels, *motion, [90 * u - 45 for u in draw.tolist()])


ZOOMS = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))


@common([np.arange(1, end, step) for end, step in ZOOMS])
def zoom_blur(pixels: Tensor, draw: None, factors: Any) -> Tensor:
    """Blur by a motion towards the object during the exposure: take the mean of the image and its magnifications."""
    total = pixels
    for factor in factors:
        total = total + magnified(pixels, float(factor))
    return total / (len(factors) + 1)


def magnified(pixels: Tensor, factor: float) -> Tensor:
    """Magnify the middle of square images `factor` times, as `scipy.ndimage.zoom` of order 1 does."""
    size = pixels.shape[-1]
    part = math.ceil(size / factor)
    result = round(part * factor)
    steps = np.arange(size) + (result - size) // 2
    positions = (size - part) // 2 + steps * (part - 1) / max(1, result - 1)
    line = torch.from_numpy(positions.astype(np.float32)).to(pixels.device)
    rows, columns = line.view(1, -1, 1).expand(1, size, size), line.view(1, 1, -1).expand(1, size, size)
    return filters.sample(pixels, rows, columns, filters.SYMMETRIC)
