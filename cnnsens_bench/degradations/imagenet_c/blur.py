"""The blurs of Hendrycks & Dietterich (2019)."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.degradations.base import uniform_per_image
from cnnsens_bench.degradations.imagenet_c.severity import common
from cnnsens_bench.degradations.kernels import filters
from cnnsens_bench.degradations.kernels.shuffle import shuffled
from cnnsens_bench.degradations.kernels.zoom import with_magnifications
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
    blurred = filters.gaussian_blur(pixels.clamp(0, 255), sigma).add_(1e-3).floor_()
    return filters.gaussian_blur(shuffled(blurred, draw, distance, rounds), sigma)


def motion_blurred(pixels: Tensor, radius: int, sigma: float, degrees: Tensor) -> Tensor:
    """Blur each image along a line, with half a Gaussian of 2 · radius + 1 taps, like ImageMagick's motion blur.

    Parameters
    ----------
    radius, sigma
        The length of the line and the σ of the Gaussian, in pixels.
    degrees
        The direction for each image, (N,) float64.
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    turn = torch.deg2rad(degrees)[:, None]
    taps = torch.arange(2 * radius + 1, device=pixels.device)
    # No draw is at 30°, where the last bit of a sine, which devices compute differently, would decide.
    rows, columns = (torch.ceil(taps * part - 0.5).long() for part in (turn.sin(), turn.cos()))
    return filters.shifted_sum(pixels, rows, columns, weights / weights.sum(), 2 * radius)


@common(((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)), draw=uniform_per_image)
def motion_blur(pixels: Tensor, draw: Tensor, motion: tuple[int, float]) -> Tensor:
    """Blur by a motion during the exposure, in a direction uniform in ± 45°; `motion` is its radius and σ in pixels."""
    return motion_blurred(pixels, *motion, 90 * draw.double() - 45)


ZOOMS = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))


@common([np.arange(1, end, step) for end, step in ZOOMS])
def zoom_blur(pixels: Tensor, draw: None, factors: Any) -> Tensor:
    """Blur by a motion towards the object during the exposure: take the mean of the image and its magnifications."""
    return with_magnifications(pixels, [float(factor) for factor in factors]) / (len(factors) + 1)
