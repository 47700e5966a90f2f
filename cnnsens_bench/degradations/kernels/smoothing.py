"""Smoothing of random fields by a wide Gaussian, in float64, with every sum in one order."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.degradations.kernels import pixelwise
from cnnsens_bench.utils.compiled_loops import keep_code
from cnnsens_bench.utils.cpu_libraries import numba
from cnnsens_bench.utils.transfer import constant


def smoothed(field: Tensor, sigma: float, strength: float) -> Tensor:
    """Smooth fields of numbers in [−1, 1) by a Gaussian, which is cut at 3 σ, with mirrored borders.

    Parameters
    ----------
    field
        (N, F, H, H) float32 in [0, 1), which are stretched to [−1, 1).
    sigma
        The σ of the Gaussian in pixels.
    strength
        What the smooth fields are multiplied by.

    Returns
    -------
    Tensor
        (N, F, H, H) float32.
    """
    size = field.shape[-1]
    matrix = _matrix(size, sigma)
    if not pixelwise.on_cpu(field):
        smooth = constant(matrix, field.device)
        return (smooth @ (field.double() * 2 - 1) @ smooth.T * strength).float()
    out = torch.empty(field.shape)
    source, target = field.reshape(-1, size, size).numpy(), out.view(-1, size, size).numpy()
    first, last = (matrix != 0).argmax(1), size - (matrix != 0)[:, ::-1].argmax(1)

    def work(start: int, end: int) -> None:
        _smooth_loop(source, matrix, first, last, strength, target, start, end)

    pixelwise.share(len(source), size * size, work)
    return out


@lru_cache(maxsize=8)
def _matrix(size: int, sigma: float) -> np.ndarray:
    """Return the matrix (size, size) that smooths along an axis, with the bits of `scipy.ndimage.gaussian_filter1d`."""
    radius = int(3 * sigma + 0.5)
    weights = np.exp(-0.5 / (sigma * sigma) * np.arange(-radius, radius + 1) ** 2)
    weights /= weights.sum()
    padded = np.pad(np.eye(size), ((radius, radius), (0, 0)), mode="symmetric")
    total = padded[radius : radius + size] * weights[radius]
    for step in range(radius, 0, -1):
        before, after = radius - step, radius + step
        total += (padded[before : before + size] + padded[after : after + size]) * weights[before]
    return total


@keep_code
@numba.njit(nogil=True, error_model="numpy")
def _smooth_loop(source, matrix, first, last, strength, target, start, end):  # type: ignore[no-untyped-def]
    """Smooth along y, turn the field on its side, and do the same again."""
    size = len(matrix)
    given, product = np.empty((size, size)), np.empty((size + 1, size))
    for field in range(start, end):
        for y in range(size):
            for x in range(size):
                given[y, x] = np.float64(source[field, y, x]) * 2 - 1
        _multiply(matrix, first, last, given, product)
        for y in range(size):
            for x in range(size):
                given[x, y] = product[y, x]
        _multiply(matrix, first, last, given, product)
        for y in range(size):
            for x in range(size):
                target[field, x, y] = product[y, x] * strength


@keep_code
@numba.njit(nogil=True, error_model="numpy")
def _multiply(matrix, first, last, given, product):  # type: ignore[no-untyped-def]
    """Write the product of a banded matrix, whose row y has its weights from first[y] to last[y], and a field.

    Two rows by four weights at a time, a line of the field is read half as often, and one of the product a quarter.
    """
    size = len(matrix)
    for y in range(0, size, 2):
        below = min(y + 1, size - 1)
        upper, lower = product[y], product[y + 1]  # the latter is no part of the result where y is the last row
        for x in range(size):
            upper[x] = lower[x] = 0
        start, end = min(first[y], first[below]), max(last[y], last[below])
        fours = start + (end - start) // 4 * 4
        for k in range(start, fours, 4):
            v0, v1, v2, v3 = matrix[y, k], matrix[y, k + 1], matrix[y, k + 2], matrix[y, k + 3]
            w0, w1, w2, w3 = matrix[below, k], matrix[below, k + 1], matrix[below, k + 2], matrix[below, k + 3]
            a, b, c, d = given[k], given[k + 1], given[k + 2], given[k + 3]
            for x in range(size):
                upper[x] = (((upper[x] + v0 * a[x]) + v1 * b[x]) + v2 * c[x]) + v3 * d[x]
                lower[x] = (((lower[x] + w0 * a[x]) + w1 * b[x]) + w2 * c[x]) + w3 * d[x]
        for k in range(fours, end):
            v, w, values = matrix[y, k], matrix[below, k], given[k]
            for x in range(size):
                upper[x] += v * values[x]
                lower[x] += w * values[x]
