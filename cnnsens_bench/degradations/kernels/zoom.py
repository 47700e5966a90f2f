"""Magnifications of the middle of images, bilinear and with the same bits on every machine, and their sums."""

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from cnnsens_bench.degradations.kernels import pixelwise
from cnnsens_bench.degradations.kernels.filters import SYMMETRIC, empty, flat_rows, sample
from cnnsens_bench.utils.compiled_loops import keep_code
from cnnsens_bench.utils.cpu_libraries import numba
from cnnsens_bench.utils.transfer import constant


def magnified(pixels: Tensor, factor: float) -> Tensor:
    """Magnify the middle of square images (N, C, H, H) `factor` times, as `scipy.ndimage.zoom` of order 1 does."""
    if not pixelwise.on_cpu(pixels):
        line = constant(_positions(pixels.shape[-1], factor), pixels.device)
        side = len(line)
        return sample(pixels, line.view(1, -1, 1).expand(1, side, side), line.expand(1, side, side), SYMMETRIC)
    return _summed(pixels, [factor], with_pixels=False)


def with_magnifications(pixels: Tensor, factors: Sequence[float]) -> Tensor:
    """Return the sum of square images (N, C, H, H) and of their magnifications, added in the order of the factors."""
    if not pixelwise.on_cpu(pixels):
        total = pixels
        for factor in factors:
            total = total + magnified(pixels, factor)
        return total
    return _summed(pixels, factors, with_pixels=True)


def _positions(size: int, factor: float) -> np.ndarray:
    """Return where along an axis each pixel of the result is taken from, (size,) float32."""
    part = math.ceil(size / factor)
    result = round(part * factor)
    steps = np.arange(size) + (result - size) // 2
    return ((size - part) // 2 + steps * (part - 1) / max(1, result - 1)).astype(np.float32)


def _summed(pixels: Tensor, factors: Sequence[float], with_pixels: bool) -> Tensor:
    count, channels, size, _ = pixels.shape
    positions = np.stack([_positions(size, factor) for factor in factors])
    near = np.floor(positions)
    fractions = positions - near
    # No position lies before the first pixel or behind the last one, beyond which that one repeats.
    first = near.astype(np.uint64)
    second = np.minimum(first + np.uint64(1), np.uint64(size - 1))
    out = empty(count, channels, size, size)
    source, target = flat_rows(pixels), flat_rows(out)

    def work(start: int, end: int) -> None:
        _zoom_loop(source, first, second, fractions, channels, with_pixels, target, start, end)

    pixelwise.share(count, size * size, work)
    return out


@keep_code
@numba.njit(nogil=True, error_model="numpy")
def _zoom_loop(source, first, second, fractions, channels, with_pixels, target, start, end):  # type: ignore[no-untyped-def]
    """Interpolate along x first; a row of the image that two rows of a magnification need is interpolated once."""
    count, size = first.shape
    width = target.shape[2]
    rows = np.empty((count, 2, width), np.float32)
    held = np.empty((count, 2), np.int64)
    one, kept = np.float32(1), np.float32(with_pixels)
    for image in range(start, end):
        for f in range(count):
            held[f, 0] = held[f, 1] = -1
        for y in range(size):
            line, given = target[image, y], source[image, y]
            for i in range(width):
                line[i] = given[i] * kept
            for f in range(count):
                above, below = int(first[f, y]), int(second[f, y])
                for row in range(above, below + 1):
                    slot = row & 1
                    if held[f, slot] != row:
                        held[f, slot] = row
                        _interpolate_row(source[image, row], first[f], second[f], fractions[f], channels, rows[f, slot])
                down = fractions[f, y]
                up = one - down
                upper, lower = rows[f, above & 1], rows[f, below & 1]
                for i in range(width):
                    line[i] += upper[i] * up + lower[i] * down


@keep_code
@numba.njit(nogil=True, error_model="numpy")
def _interpolate_row(given, first, second, fractions, channels, result):  # type: ignore[no-untyped-def]
    """Interpolate between the pixels `first` and `second` of a row. The indices are unsigned, which is faster."""
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    for x in range(np.uint64(len(first))):
        right = fractions[x]
        left = np.float32(1) - right
        if channels == 3:
            a, b, j = first[x] * three, second[x] * three, x * three
            result[j] = given[a] * left + given[b] * right
            result[j + one] = given[a + one] * left + given[b + one] * right
            result[j + two] = given[a + two] * left + given[b + two] * right
        else:
            for c in range(np.uint64(channels)):
                a, b = first[x] * np.uint64(channels) + c, second[x] * np.uint64(channels) + c
                result[x * np.uint64(channels) + c] = given[a] * left + given[b] * right
