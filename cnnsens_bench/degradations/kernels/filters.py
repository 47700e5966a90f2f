"""Filters with the same bits on every machine: the order of every sum is fixed, which libraries leave open.

On a CPU they are compiled loops over channels_last memory, on other devices the same operations on tensors.
"""

import cv2
import numba
import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.degradations.kernels import pixelwise

EDGE, MIRROR, SYMMETRIC = "edge", "reflect", "symmetric"
"""How an image a b c continues to the left of its border, by the names of `numpy.pad`: a a|, c b| and b a|."""


def pad(pixels: Tensor, before: int, after: int, border: str) -> Tensor:
    """Continue images (N, C, H, W) by `before` rows and columns above and left, and `after` below and right."""
    rows, columns = (
        torch.from_numpy(np.pad(np.arange(side), (before, after), mode=border)).to(pixels.device)  # type: ignore[call-overload]
        for side in pixels.shape[-2:]
    )
    return pixels[:, :, rows][:, :, :, columns]


def correlate(pixels: Tensor, kernel: np.ndarray, border: str) -> Tensor:
    """Correlate images with a kernel.

    Parameters
    ----------
    pixels
        (N, C, H, W) float32.
    kernel
        Weights of odd height and width; the one in the middle is the pixel's own.
    border
        `EDGE`, `MIRROR` or `SYMMETRIC`.
    """
    taps = [(int(y), int(x), np.float32(kernel[y, x])) for y, x in np.argwhere(kernel)]
    tall, wide = kernel.shape
    around = max(tall, wide) // 2
    taps = [(y + around - tall // 2, x + around - wide // 2, weight) for y, x, weight in taps]
    return _summed(pad(pixels, around, around, border), taps, pixels.shape[-2:])


def shifted_sum(pixels: Tensor, shifts: list[tuple[int, int]], weights: np.ndarray) -> Tensor:
    """Sum copies of images (N, C, H, W), each weighted and moved by (rows, columns) up and left, edges repeated."""
    around = max(abs(step) for shift in shifts for step in shift)
    taps = [(y + around, x + around, np.float32(w)) for (y, x), w in zip(shifts, weights, strict=True)]
    return _summed(pad(pixels, around, around, EDGE), taps, pixels.shape[-2:])


Taps = list[tuple[int, int, np.float32]]
"""The weights of a sum and their positions: (row, column, weight), counted from the corner of the padded image."""


def _summed(padded: Tensor, taps: Taps, size: tuple[int, ...]) -> Tensor:
    """Sum the weighted windows of padded images, in the order of the taps."""
    height, width = size
    if not pixelwise.on_cpu(padded):
        total = torch.zeros_like(padded[:, :, :height, :width])
        for y, x, weight in taps:
            total = total + padded[:, :, y : y + height, x : x + width] * float(weight)
        return total
    count, channels = padded.shape[:2]
    out = _empty(count, channels, height, width)
    source, target = _flat_rows(padded), _flat_rows(out)
    rows = np.array([y for y, _, _ in taps])
    columns = np.array([x * channels for _, x, _ in taps])
    weights = np.array([weight for _, _, weight in taps], np.float32)
    pixelwise.share(count, height * width, lambda a, b: _sum_loop(source, rows, columns, weights, target, a, b))
    return out


@numba.njit(nogil=True, error_model="numpy")
def _sum_loop(source, rows, columns, weights, target, first, last):  # type: ignore[no-untyped-def]
    width = target.shape[2]
    for image in range(first, last):
        for y in range(target.shape[1]):
            line = target[image, y]
            line[:] = np.float32(0)
            for tap in range(len(weights)):
                weight = weights[tap]
                start = columns[tap]
                given = source[image, y + rows[tap], start : start + width]
                for i in range(width):
                    line[i] += weight * given[i]


def gaussian_blur(pixels: Tensor, sigma: float) -> Tensor:
    """Blur like `skimage.filters.gaussian`: cut at 4 σ, with edge pixels repeated, along y first and then along x."""
    radius = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    return correlate(correlate(pixels, weights[:, None], EDGE), weights[None, :], EDGE)


def disk(radius: int, alias_blur: float) -> np.ndarray:
    """Return the kernel of a lens out of focus, a disk with a softened rim.

    The rim is softened as in the code of Hendrycks & Dietterich (2019), by which the weights sum to 1.01 where the
    disk touches the kernel's border.

    Parameters
    ----------
    radius
        The radius of the disk in pixels.
    alias_blur
        The σ of the Gaussian that softens the rim, in pixels.

    Returns
    -------
    array
        (17, 17), or (2 · radius + 1, 2 · radius + 1) for a radius above 8.
    """
    small = radius <= 8
    steps = np.arange(-8, 9) if small else np.arange(-radius, radius + 1)
    inside = (steps[:, None] ** 2 + steps**2 <= radius**2).astype(float)
    blur = cv2.getGaussianKernel(3 if small else 5, alias_blur)
    blurred = cv2.sepFilter2D(inside / inside.sum(), cv2.CV_64F, blur, blur, borderType=cv2.BORDER_REFLECT_101)
    return np.where(blurred > 1e-12, blurred, 0)


def sample(pixels: Tensor, rows: Tensor, columns: Tensor, border: str) -> Tensor:
    """Interpolate images bilinearly at points between their pixels.

    Parameters
    ----------
    pixels
        (N, C, H, W).
    rows, columns
        The points, (N, h, w) float32, or (1, h, w) if all images share them.
    border
        `MIRROR` or `SYMMETRIC`, for points outside the image.

    Returns
    -------
    Tensor
        (N, C, h, w).
    """
    if not pixelwise.on_cpu(pixels):
        return _sample_tensors(pixels, rows, columns, border)
    count, channels = pixels.shape[:2]
    out = _empty(count, channels, *rows.shape[-2:])
    source = pixels.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).numpy()
    target = out.permute(0, 2, 3, 1).numpy()
    y, x = rows.contiguous().numpy(), columns.contiguous().numpy()
    beyond = 1 if border == SYMMETRIC else 2
    pixelwise.share(count, target[0].size // channels, lambda a, b: _sample_loop(source, y, x, beyond, target, a, b))
    return out


def _sample_tensors(pixels: Tensor, rows: Tensor, columns: Tensor, border: str) -> Tensor:
    count, channels, height, width = pixels.shape

    def inside(index: Tensor, side: int) -> Tensor:
        period = 2 * side if border == SYMMETRIC else max(1, 2 * side - 2)
        index = index.long() % period
        return torch.minimum(index, period - (1 if border == SYMMETRIC else 0) - index)

    flat = pixels.reshape(count, channels, -1)

    def at(y: Tensor, x: Tensor) -> Tensor:
        index = (inside(y, height) * width + inside(x, width)).expand(count, *rows.shape[1:]).reshape(count, 1, -1)
        return flat.gather(2, index.expand(-1, channels, -1)).view(count, channels, *rows.shape[1:])

    top, left = rows.floor(), columns.floor()
    down, right = (rows - top)[:, None], (columns - left)[:, None]
    upper = at(top, left) * (1 - right) + at(top, left + 1) * right
    lower = at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right
    return upper * (1 - down) + lower * down


@numba.njit(inline="always")
def _inside(index, side, beyond):  # type: ignore[no-untyped-def]
    if 0 <= index < side:
        return index
    period = max(1, 2 * side - (beyond - 1) * 2)
    index = index % period
    return min(index, period - (2 - beyond) - index)


@numba.njit(nogil=True, error_model="numpy")
def _sample_loop(source, rows, columns, beyond, target, first, last):  # type: ignore[no-untyped-def]
    height, width, channels = source.shape[1:]
    one = np.float32(1)
    for image in range(first, last):
        own = image if len(rows) > 1 else 0
        for y in range(target.shape[1]):
            for x in range(target.shape[2]):
                row, column = rows[own, y, x], columns[own, y, x]
                top, left = np.floor(row), np.floor(column)
                down, right = row - top, column - left
                y0, y1 = _inside(int(top), height, beyond), _inside(int(top) + 1, height, beyond)
                x0, x1 = _inside(int(left), width, beyond), _inside(int(left) + 1, width, beyond)
                for c in range(channels):
                    upper = source[image, y0, x0, c] * (one - right) + source[image, y0, x1, c] * right
                    lower = source[image, y1, x0, c] * (one - right) + source[image, y1, x1, c] * right
                    target[image, y, x, c] = upper * (one - down) + lower * down


def _empty(count: int, channels: int, height: int, width: int) -> Tensor:
    return torch.empty(count, channels, height, width).contiguous(memory_format=torch.channels_last)


def _flat_rows(pixels: Tensor) -> np.ndarray:
    """Return the channels_last memory of images as (N, H, W · C)."""
    return pixels.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).flatten(2).numpy()
