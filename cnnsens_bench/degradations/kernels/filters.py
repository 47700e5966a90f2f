"""Filters with the same bits on every machine: the order of every sum is fixed, which libraries leave open.

On a CPU they are compiled loops over channels_last memory, on other devices the same operations on tensors.
"""

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.degradations.kernels import pixelwise
from cnnsens_bench.utils.compiled_loops import keep_code
from cnnsens_bench.utils.cpu_libraries import numba
from cnnsens_bench.utils.transfer import constant

Moves = Tensor | np.ndarray

EDGE, MIRROR, SYMMETRIC = "edge", "reflect", "symmetric"
"""How an image a b c continues to the left of its border, by the names of `numpy.pad`: a a|, c b| and b a|."""


def pad(pixels: Tensor, before: int, after: int, border: str) -> Tensor:
    """Continue images (N, C, H, W) by `before` rows and columns above and left, and `after` below and right."""
    rows, columns = (constant(_continued(side, before, after, border), pixels.device) for side in pixels.shape[-2:])
    return pixels[:, :, rows][:, :, :, columns]


def _continued(side: int, before: int, after: int, border: str) -> np.ndarray:
    """Return which pixel of an axis each pixel is, if the axis is continued at its ends."""
    return np.pad(np.arange(side), (before, after), mode=border)  # type: ignore[call-overload]


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
    taps = np.argwhere(kernel)
    steps = taps - np.array(kernel.shape) // 2
    weights = kernel[taps[:, 0], taps[:, 1]].astype(np.float32)
    tall, wide = kernel.shape
    return _summed(pixels, steps[None, :, 0], steps[None, :, 1], weights, (tall // 2, wide // 2), border)


def shifted_sum(pixels: Tensor, rows: Tensor, columns: Tensor, weights: np.ndarray, reach: int) -> Tensor:
    """Sum copies of images, each weighted and moved up and left, with edges repeated.

    Parameters
    ----------
    pixels
        (N, C, H, W) float32.
    rows, columns
        How far each image's copies are moved, (N, T) int64, on the device of the pixels.
    weights
        The weights of the copies, (T,).
    reach
        A bound of all moves.
    """
    return _summed(pixels, rows, columns, weights.astype(np.float32), (reach, reach), EDGE)


def _summed(
    pixels: Tensor, rows: Moves, columns: Moves, weights: np.ndarray, reach: tuple[int, int], border: str
) -> Tensor:
    """Sum weighted copies of images in the order of the weights; each is moved by (rows, columns) up and left.

    `rows` and `columns` are tensors (N, T), or arrays (1, T) where all images are moved alike, and nowhere beyond
    `reach`.
    """
    count, channels, height, width = pixels.shape
    if not pixelwise.on_cpu(pixels):
        return _summed_tensors(pixels, rows, columns, weights, reach, border)
    out = empty(count, channels, height, width)
    source, target = flat_rows(pixels), flat_rows(out)
    row_of, column_of = (
        _continued(side, more, more, border) for side, more in zip((height, width), reach, strict=True)
    )
    starts, offsets = np.asarray(rows + reach[0]), np.asarray((columns + reach[1]) * channels)

    def work(first: int, last: int) -> None:
        _sum_loop(source, row_of, column_of, channels, starts, offsets, weights, target, first, last)

    pixelwise.share(count, height * width, work)
    return out


def _summed_tensors(
    pixels: Tensor, rows: Moves, columns: Moves, weights: np.ndarray, reach: tuple[int, int], border: str
) -> Tensor:
    count, channels, height, width = pixels.shape
    around, device = max(reach), pixels.device
    padded = pad(pixels, around, around, border)
    total = torch.zeros_like(pixels)
    if isinstance(rows, np.ndarray):
        starts = zip((rows[0] + around).tolist(), (columns[0] + around).tolist(), weights, strict=True)
        for y, x, weight in starts:
            total = total + padded[:, :, y : y + height, x : x + width] * float(weight)
        return total
    images, planes = torch.arange(count, device=device), torch.arange(channels, device=device)
    down, across = torch.arange(height, device=device) + around, torch.arange(width, device=device) + around
    for tap, weight in enumerate(weights):
        y, x = rows[:, tap, None] + down, columns[:, tap, None] + across
        window = padded[images[:, None, None, None], planes[:, None, None], y[:, None, :, None], x[:, None, None, :]]
        total = total + window * float(weight)
    return total


@keep_code
@numba.njit(nogil=True, error_model="numpy")
def _sum_loop(source, row_of, column_of, channels, rows, columns, weights, target, first, last):  # type: ignore[no-untyped-def]
    """Sum the copies, four at a time, since a line of the result is then read and written a quarter as often."""
    height, width = target.shape[1:]
    padded = np.empty((height, len(column_of) * channels), np.float32)
    fours = len(weights) // 4 * 4
    for image in range(first, last):
        _pad_rows(source[image], column_of, channels, padded)
        own = image if len(rows) > 1 else 0
        for y in range(height):
            line = target[image, y]
            for i in range(width):
                line[i] = 0
            for tap in range(0, fours, 4):
                w0, w1, w2, w3 = weights[tap], weights[tap + 1], weights[tap + 2], weights[tap + 3]
                c0, c1, c2, c3 = columns[own, tap], columns[own, tap + 1], columns[own, tap + 2], columns[own, tap + 3]
                a = padded[row_of[y + rows[own, tap]], c0 : c0 + width]
                b = padded[row_of[y + rows[own, tap + 1]], c1 : c1 + width]
                c = padded[row_of[y + rows[own, tap + 2]], c2 : c2 + width]
                d = padded[row_of[y + rows[own, tap + 3]], c3 : c3 + width]
                for i in range(width):
                    line[i] = (((line[i] + w0 * a[i]) + w1 * b[i]) + w2 * c[i]) + w3 * d[i]
            for tap in range(fours, len(weights)):
                weight, start = weights[tap], columns[own, tap]
                given = padded[row_of[y + rows[own, tap]], start : start + width]
                for i in range(width):
                    line[i] += weight * given[i]


@keep_code
@numba.njit(nogil=True, error_model="numpy")
def _pad_rows(given, column_of, channels, padded):  # type: ignore[no-untyped-def]
    """Continue the rows (H, W · C) of an image to the left and right: `column_of` has the pixel for each column."""
    height, width = given.shape
    around = (padded.shape[1] - width) // 2
    for y in range(height):
        line, values = padded[y], given[y]
        for i in range(width):
            line[around + i] = values[i]
        for x in range(around // channels):
            right = len(column_of) - 1 - x
            for c in range(channels):
                line[x * channels + c] = values[column_of[x] * channels + c]
                line[right * channels + c] = values[column_of[right] * channels + c]


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
    around = 1 if small else 2
    blur = np.exp(-(np.arange(-around, around + 1) ** 2) / (2 * alias_blur**2))
    blur /= blur.sum()
    blurred = np.pad(inside / inside.sum(), around, mode="reflect")
    for _ in range(2):  # each sums along the columns and turns the kernel on its side
        blurred = sum(weight * blurred[k : k + len(steps)] for k, weight in enumerate(blur)).T
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
    out = empty(count, channels, *rows.shape[-2:])
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


@keep_code
@numba.njit(nogil=True, error_model="numpy")
def _sample_loop(source, rows, columns, beyond, target, first, last):  # type: ignore[no-untyped-def]
    height, width, channels = source.shape[1:]
    one = np.float32(1)
    for image in range(first, last):
        own = image if len(rows) > 1 else 0
        given, result = source[image].reshape(-1), target[image].reshape(-1)
        point = 0
        for y in range(target.shape[1]):
            for x in range(target.shape[2]):
                row, column = rows[own, y, x], columns[own, y, x]
                top, left = np.floor(row), np.floor(column)
                down, right = row - top, column - left
                up, from_left = one - down, one - right
                y0, x0 = int(top), int(left)
                y1, x1 = y0 + 1, x0 + 1
                if y0 < 0 or x0 < 0 or y1 >= height or x1 >= width:
                    y0, y1 = _inside(y0, height, beyond), _inside(y1, height, beyond)
                    x0, x1 = _inside(x0, width, beyond), _inside(x1, width, beyond)
                a, b = np.uint64((y0 * width + x0) * channels), np.uint64((y0 * width + x1) * channels)
                c, d = np.uint64((y1 * width + x0) * channels), np.uint64((y1 * width + x1) * channels)
                for channel in range(np.uint64(channels)):
                    upper = given[a + channel] * from_left + given[b + channel] * right
                    lower = given[c + channel] * from_left + given[d + channel] * right
                    result[np.uint64(point) + channel] = upper * up + lower * down
                point += channels


def empty(count: int, channels: int, height: int, width: int) -> Tensor:
    """Return images (N, C, H, W) of any values, in channels_last memory."""
    return torch.empty(count, channels, height, width, memory_format=torch.channels_last)


def flat_rows(pixels: Tensor) -> np.ndarray:
    """Return the channels_last memory of images as (N, H, W · C)."""
    return pixels.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).flatten(2).numpy()
