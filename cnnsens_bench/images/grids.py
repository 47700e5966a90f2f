"""Sampling of images at the points of a turned or bent grid, and Pillow's resize of what was sampled.

The resize has Pillow's integer arithmetic, and so its bits, but it runs as compiled loops over whole columns and rows.
"""

from collections.abc import Callable
from functools import lru_cache, reduce
from typing import NamedTuple

import numpy as np

from cnnsens_bench.utils.compiled_loops import keep_code
from cnnsens_bench.utils.cpu_libraries import INSTALLED, cv2, numba
from cnnsens_bench.utils.errors import UserError

if INSTALLED:
    cv2.setNumThreads(1)  # several views are rendered at the same time already

WEIGHT_BITS = 22
"""The bits behind the point of the weights with which Pillow resizes."""


class Grid(NamedTuple):
    """A grid of points in an image, which is turned and bent about its centre.

    Attributes
    ----------
    across, down : numpy.ndarray
        The distances of its columns and rows from the centre in pixels of the image, before it is turned and bent.
    centre_x, centre_y : float
        The centre in the image.
    cosine, sine : float
        The cosine and the sine of the angle by which it is turned.
    bend, diagonal : float
        The coefficient of the lens distortion, and the square of the diagonal at whose ends it is reached, in pixels.
    """

    across: np.ndarray
    down: np.ndarray
    centre_x: float
    centre_y: float
    cosine: float
    sine: float
    bend: float
    diagonal: float

    def extent(self) -> tuple[float, float, float, float]:
        """Return the least and the largest x and y of the points, all of which lie on its border."""
        ends = [0, -1]
        sides = [np.meshgrid(self.across[ends], self.down), np.meshgrid(self.across, self.down[ends])]
        across, down = (np.concatenate([side[axis].ravel() for side in sides]) for axis in (0, 1))
        if self.bend:
            square = 4 * (across**2 + down**2) / self.diagonal
            scale = 1 / (1 + self.bend * np.minimum(square, 1))  # beyond the corners it is scaled as they are
            across, down = across * scale, down * scale
        columns = self.centre_x + self.cosine * across - self.sine * down
        rows = self.centre_y + self.sine * across + self.cosine * down
        return columns.min(), columns.max(), rows.min(), rows.max()


def points_of(part: np.ndarray, corner: tuple[int, int], shrink: tuple[float, float], grid: Grid) -> np.ndarray:
    """Return what the points of a grid show, (rows, columns, 3) uint8; the arguments are those of `sampled`."""
    columns = _sampled(part, *_map_loop(*grid, *corner, *shrink))
    return columns.reshape(len(grid.across), -1, 3).transpose(1, 0, 2)


def sampled(
    part: np.ndarray,
    corner: tuple[int, int],
    shrink: tuple[float, float],
    grid: Grid,
    margins: tuple[int, int],
    size: int,
    interpolation: str,
) -> np.ndarray:
    """Return what the points of a grid show, resized to a square, (size, size, 3) uint8.

    Parameters
    ----------
    part
        A rectangle of the image, perhaps reduced, (h, w, 3) uint8.
    corner, shrink
        The left and top of the part in the image, and the factors by which its width and height are reduced.
    grid
        The points.
    margins
        The points at each end, across and down, that only the filter of the resize needs.
    size
        The side of the result.
    interpolation
        The filter of the resize, a key of `FILTERS`.
    """
    if not INSTALLED:
        raise UserError("turned and bent views need numba and OpenCV: pip install numba opencv-python-headless")
    first_x, weights_x = pillow_weights(len(grid.across), margins[0], size, interpolation)
    first_y, weights_y = pillow_weights(len(grid.down), margins[1], size, interpolation)
    columns = slice(first_x[0], first_x[-1] + weights_x.shape[1])
    rows = slice(first_y[0], first_y[-1] + weights_y.shape[1])
    maps = _map_loop(*grid._replace(across=grid.across[columns], down=grid.down[rows]), *corner, *shrink)
    horizontal, vertical = (first_x - first_x[0], weights_x), (first_y - first_y[0], weights_y)
    if len(grid.down) + size > 2 * len(grid.across):  # Pillow 13 resizes tall images along y first
        rows_of_points = _sampled(part, *(np.ascontiguousarray(positions.T) for positions in maps))
        return np.ascontiguousarray(_resize_loop(rows_of_points, *vertical, *horizontal).transpose(1, 0, 2))
    return _resize_loop(_sampled(part, *maps), *horizontal, *vertical)


def _sampled(part: np.ndarray, map_x: np.ndarray, map_y: np.ndarray) -> np.ndarray:
    """Return bicubic samples of a part at positions (lines, n) in it: (lines, n · 3) uint8."""
    points = cv2.remap(part, map_x, map_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return points.reshape(len(points), -1)


@keep_code
@numba.njit(nogil=True, error_model="numpy")
def _map_loop(  # type: ignore[no-untyped-def]
    across, down, centre_x, centre_y, cosine, sine, bend, diagonal, left, top, shrink_x, shrink_y
):
    """Return the x and y in the part for each column and row of a grid, two arrays (columns, rows) float32."""
    map_x = np.empty((len(across), len(down)), np.float32)
    map_y = np.empty((len(across), len(down)), np.float32)
    for i in range(len(across)):
        if bend == 0:
            start_x, start_y = centre_x + cosine * across[i], centre_y + sine * across[i]
            for j in range(len(down)):
                map_x[i, j] = (start_x - sine * down[j] - left) * shrink_x - 0.5
                map_y[i, j] = (start_y + cosine * down[j] - top) * shrink_y - 0.5
        else:
            for j in range(len(down)):
                square = 4 * (across[i] * across[i] + down[j] * down[j]) / diagonal
                scale = 1 / (1 + bend * (square if square < 1 else 1.0))
                x, y = across[i] * scale, down[j] * scale
                map_x[i, j] = (centre_x + cosine * x - sine * y - left) * shrink_x - 0.5
                map_y[i, j] = (centre_y + sine * x + cosine * y - top) * shrink_y - 0.5
    return map_x, map_y


@keep_code
@numba.njit(nogil=True, error_model="numpy")
def _resize_loop(lines, first, weights, other_first, other_weights):  # type: ignore[no-untyped-def]
    """Resize to a square along one axis and then along the other, rounding to 8 bits after each.

    `lines` is (n, m · 3); where its lines are the columns of an image, the image is resized along x first.
    """
    size = len(first)
    length = lines.shape[1] // 3
    turned = np.empty((length, size * 3), np.uint8)
    total = np.empty(max(length, size) * 3, np.int32)
    for i in range(size):
        _weighted_sum(lines, first[i], weights[i], total[: length * 3])
        for j in range(length):
            for c in range(3):
                turned[j, i * 3 + c] = min(max(total[j * 3 + c] >> WEIGHT_BITS, 0), 255)
    result = np.empty((size, size, 3), np.uint8)
    for j in range(size):
        _weighted_sum(turned, other_first[j], other_weights[j], total[: size * 3])
        for i in range(size):
            for c in range(3):
                result[j, i, c] = min(max(total[i * 3 + c] >> WEIGHT_BITS, 0), 255)
    return result


@keep_code
@numba.njit(nogil=True, error_model="numpy")
def _weighted_sum(lines, first, weights, total):  # type: ignore[no-untyped-def]
    """Sum weighted lines from the line `first` on, plus one half."""
    total[:] = 1 << (WEIGHT_BITS - 1)
    for tap in range(len(weights)):
        line, weight = lines[first + tap], weights[tap]
        for i in range(len(total)):
            total[i] += np.int32(line[i]) * weight


def _cubic(x: np.ndarray) -> np.ndarray:
    a = -0.5
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


FILTERS: dict[str, tuple[float, Callable[[np.ndarray], np.ndarray]]] = {
    "box": (0.5, lambda x: 1.0 * (x <= 0.5)),
    "bilinear": (1.0, lambda x: np.maximum(1 - x, 0)),
    "hamming": (1.0, lambda x: np.where(x < 1, np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)), 0)),
    "bicubic": (2.0, _cubic),
    "lanczos": (3.0, lambda x: np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0)),
}
"""Pillow's filters: how far each reaches in pixels, and its weight at a distance."""


@lru_cache(maxsize=1024)
def pillow_weights(count: int, margin: int, size: int, interpolation: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights of Pillow's `resize` along an axis, whose box leaves out a margin at either end.

    Parameters
    ----------
    count, margin, size
        The numbers of all pixels, of those of a margin, and of those of the result.
    interpolation
        A key of `FILTERS`.

    Returns
    -------
    first, weights
        Which pixel the first weight of each pixel of the result belongs to, (size,) int64, and the weights in units of
        2⁻²², (size, taps) int32.
    """
    reach, function = FILTERS[interpolation]
    scale = (count - 2 * margin) / size
    coarse = max(scale, 1.0)
    centres = margin + (np.arange(size) + 0.5) * scale
    first = np.maximum((centres - reach * coarse + 0.5).astype(int), 0)
    last = np.minimum((centres + reach * coarse + 0.5).astype(int), count)
    taps = (last - first).max()
    start = np.minimum(first, count - taps)
    pixels = start[:, None] + np.arange(taps)
    distances = np.abs((pixels - centres[:, None] + 0.5) * (1.0 / coarse))
    shares = np.where((pixels >= first[:, None]) & (pixels < last[:, None]), function(distances), 0)
    shares /= reduce(np.add, shares.T)[:, None]  # in Pillow's order
    return start, np.trunc(shares * (1 << WEIGHT_BITS) + np.copysign(0.5, shares)).astype(np.int32)
