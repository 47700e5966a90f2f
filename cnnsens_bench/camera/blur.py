"""Estimates the blur of a picture from its edges, as the σ of a Gaussian."""

import math

import numpy as np

from cnnsens_bench.utils.cpu_libraries import cv2

STRONG = 0.95
"""The quantile of the gradient that an edge must exceed."""
WEAKEST = 4.0
"""The least gradient of an edge, in gray levels a pixel."""
FEWEST_EDGES = 50
MARGIN = 8
"""The width in pixels of the border whose edges are left out."""
LARGE = 1.5
"""The blur in pixels from which it is measured with wider filters, which noise disturbs less."""


def blur_of(pixels: np.ndarray) -> float:
    """Return the blur of the median strong edge in pixels; NaN where there are too few edges.

    The gradient of an edge falls when it is blurred further, and the less, the more blurred it is already: of an edge
    with the blur σ, filtered with σ₁ and with σ₂, the gradients have the ratio √((σ² + σ₂²) / (σ² + σ₁²)) (Zhuo and
    Sim, Pattern Recognition 2011). The first filter keeps noise from being taken for edges.

    Parameters
    ----------
    pixels
        The picture, (h, w, 3) uint8.
    """
    gray = pixels.astype(np.float32).mean(2)
    if min(gray.shape) <= 4 * MARGIN:
        return math.nan
    found = _blur_between(gray, 1.0, 2.0)
    return _blur_between(gray, 2.0, 4.0) if found > LARGE else found


def _blur_between(gray: np.ndarray, narrow: float, wide: float) -> float:
    x, y = _gradient(cv2.GaussianBlur(gray, (0, 0), narrow))
    size = np.hypot(x, y)
    blurred = np.hypot(*_gradient(cv2.GaussianBlur(gray, (0, 0), wide)))
    edges = _crests(size, np.abs(x) >= np.abs(y)) & (size > max(float(np.quantile(size, STRONG)), WEAKEST))
    edges[:MARGIN], edges[-MARGIN:], edges[:, :MARGIN], edges[:, -MARGIN:] = False, False, False, False
    ratio = (size[edges] / np.maximum(blurred[edges], 1e-6)) ** 2
    ratio = ratio[ratio > 1.04]
    if len(ratio) < FEWEST_EDGES:
        return math.nan
    variance = (wide**2 - ratio * narrow**2) / (ratio - 1)
    return math.sqrt(max(float(np.median(variance)), 0.0))


def _gradient(gray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.zeros_like(gray), np.zeros_like(gray)
    x[:, 1:-1] = (gray[:, 2:] - gray[:, :-2]) / 2
    y[1:-1] = (gray[2:] - gray[:-2]) / 2
    return x, y


def _crests(size: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Return where the gradient is larger than at both neighbours in its own direction, along x where `across`."""
    before = np.where(across, np.roll(size, 1, 1), np.roll(size, 1, 0))
    after = np.where(across, np.roll(size, -1, 1), np.roll(size, -1, 0))
    return (size >= before) & (size > after)
