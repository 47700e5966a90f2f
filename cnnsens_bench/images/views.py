"""Views of a decoded image: its box, cropped, shifted, turned, bent and resized.

Every view, also the undegraded one, is resampled from the full image in one step, so that a shifted box shows what
lies beside it, and nothing is blurred twice. Outside the full image its edge pixels repeat. Pillow resamples 8-bit
images in integer arithmetic, which gives the same bits on every machine. A turned or bent view is first sampled on a
grid that is finer than the result.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from cnnsens_bench.images.grids import FILTERS, Grid, points_of, sampled
from cnnsens_bench.images.published import INTERPOLATIONS, PublishedView, render_published

Box = tuple[float, float, float, float]
"""The left, top, width and height in pixels of the upright image, from 0."""


@dataclass(frozen=True)
class Decoded:
    """An upright 8-bit RGB image, or the part of it that a run needs.

    Attributes
    ----------
    pixels : numpy.ndarray
        The part that was kept, (h, w, 3) uint8.
    left, top : int
        The upper left corner of that part in the full image.
    width, height : int
        The size of the full image.
    box : tuple of float
        The box, clipped to the full image, in its coordinates.
    """

    pixels: np.ndarray
    left: int
    top: int
    width: int
    height: int
    box: Box


def render(
    image: Decoded,
    size: int,
    dx: float = 0.0,
    dy: float = 0.0,
    angle: float = 0.0,
    bend: float = 0.0,
    view: PublishedView | None = None,
) -> np.ndarray:
    """Return a view of the image as (size, size, 3) uint8.

    Parameters
    ----------
    image
        The decoded image. A published view needs all of its pixels.
    size
        The side of the view in pixels.
    dx, dy
        How far the view is moved to the right and down, in pixels of the view.
    angle, bend
        The rotation and the lens distortion; see `warp`.
    view
        The library's transform, whose size is `size`. A view that is neither moved, turned nor bent equals it exactly;
        any other is a window of the full image, which lies up to 8 gray levels beside it. None for the box, resized to
        the square without regard to its aspect by antialiased bicubic resampling (a = −0.5).

    Examples
    --------
    >>> pixels = np.arange(16, dtype=np.uint8).reshape(4, 4, 1).repeat(3, axis=2)
    >>> image = Decoded(pixels, left=0, top=0, width=4, height=4, box=(1, 1, 2, 2))
    >>> render(image, 2)[..., 0].tolist(), render(image, 2, dx=1)[..., 0].tolist()
    ([[5, 6], [9, 10]], [[6, 7], [10, 11]])
    """
    if view and not (dx or dy or angle or bend):
        return render_published(image.pixels, view)
    x, y, w, h = view.window(image.width, image.height) if view else image.box
    window = (x + dx * w / size, y + dy * h / size, w, h)
    return warp(image, window, size, angle, bend, view) if angle or bend else resample(image, window, size, view)


def render_wide(image: Decoded, size: int, view: PublishedView | None = None) -> np.ndarray:
    """Return the unmoved view with one more pixel on every side, (size + 2, size + 2, 3) uint8."""
    x, y, w, h = view.window(image.width, image.height) if view else image.box
    return resample(image, (x - w / size, y - h / size, w + 2 * w / size, h + 2 * h / size), size + 2, view)


def resample(image: Decoded, window: Box, size: int, view: PublishedView | None = None) -> np.ndarray:
    """Return a window of the image, which may reach beyond it, resized to (size, size, 3) uint8.

    `view` decides about interpolation and what lies beyond the image: bicubic and edge pixels where it is None.
    """
    x, y, w, h = window
    # The filter reaches 2 pixels of the image, or of the result where that has fewer pixels.
    support_x, support_y = 2 * max(w / size, 1) + 1, 2 * max(h / size, 1) + 1
    x0, x1 = int(np.floor(x - support_x)), int(np.ceil(x + w + support_x))
    y0, y1 = int(np.floor(y - support_y)), int(np.ceil(y + h + support_y))
    part = _surrounded(image, x0, y0, x1, y1, view)
    inner = (x - x0, y - y0, x - x0 + w, y - y0 + h)
    return np.asarray(Image.fromarray(part).resize((size, size), INTERPOLATIONS[_interpolation(view)], box=inner))


def _interpolation(view: PublishedView | None) -> str:
    return view.interpolation if view else "bicubic"


OVERSAMPLING = 2
"""The least number of points per pixel of the result, in each direction, at which a turned or bent view is sampled."""

LONGEST_SIDE = 32_000
"""The longest side in pixels of an image that OpenCV can sample."""


def warp(
    image: Decoded, window: Box, size: int, angle: float, bend: float, view: PublishedView | None = None
) -> np.ndarray:
    """Return a window of the image, turned about its centre and seen through a lens, as (size, size, 3) uint8.

    The window is turned in the pixels of the image, as a camera would be, and then resized to the square.

    Parameters
    ----------
    image
        The decoded image.
    window
        The window, which may reach beyond the image.
    size
        The side of the result.
    angle
        The rotation in degrees; what is seen turns counter-clockwise.
    bend
        The coefficient of the lens distortion. At the distance r from the centre, where the corners of the result have
        the distance 1, the result shows what a perfect lens shows at r / (1 + bend·r²) (Fitzgibbon 2001).
    view
        As in `resample`.
    """
    x, y, w, h = window
    wide, high = _point_counts(w, h, size)
    (margin_x, positions_x), (margin_y, positions_y) = _positions(wide, size), _positions(high, size)
    turn = np.deg2rad(angle)
    cosine, sine = np.cos(turn), np.sin(turn)
    grid = Grid(positions_x * w, positions_y * h, x + w / 2, y + h / 2, cosine, sine, bend, w**2 + h**2)
    part, corner, shrink = _reduced_part(image, grid, max(wide / w, high / h), view)
    interpolation = _interpolation(view)
    if interpolation in FILTERS:
        return sampled(part, corner, shrink, grid, (margin_x, margin_y), size, interpolation)
    inner = (margin_x, margin_y, margin_x + wide, margin_y + high)
    points = Image.fromarray(points_of(part, corner, shrink, grid))
    return np.asarray(points.resize((size, size), INTERPOLATIONS[interpolation], box=inner))


def _point_counts(width: float, height: float, size: int) -> tuple[int, int]:
    """Return how many points a turned or bent window is sampled at, across and down.

    Points are equally close along both sides, because the window is turned against the image, which is reduced equally
    in both directions. They are closer than the pixels of the image only where the result needs it.
    """
    step = max(min(width, height) / (OVERSAMPLING * size), 1.0)
    most = LONGEST_SIDE * 3 // 4  # the rest is left to margins

    def points(side: float) -> int:
        return min(most, max(OVERSAMPLING * size, int(np.ceil(side / step - 1e-9))))

    return points(width), points(height)


def _positions(count: int, size: int) -> tuple[int, np.ndarray]:
    """Return how many points the filter of the last resize needs beyond either end, and the positions of all points.

    The ends are at −0.5 and 0.5.
    """
    margin = int(np.ceil(2 * count / size)) + 2
    return margin, (np.arange(-margin, count + margin) + 0.5) / count - 0.5


def _reduced_part(
    image: Decoded, grid: Grid, fineness: float, view: PublishedView | None
) -> tuple[np.ndarray, tuple[int, int], tuple[float, float]]:
    """Return the part of the image around a grid, reduced where it has more pixels than there are points.

    `fineness` is the number of points per pixel of the image. The result is the part, its left and top in the image,
    and the factors by which its width and height are reduced.
    """
    left, right, top, bottom = grid.extent()
    x0, x1 = int(np.floor(left)) - 3, int(np.ceil(right)) + 3
    y0, y1 = int(np.floor(top)) - 3, int(np.ceil(bottom)) + 3
    part = _surrounded(image, x0, y0, x1, y1, view)
    shrink = min(1.0, fineness, LONGEST_SIDE / max(part.shape))
    if shrink == 1:
        return part, (x0, y0), (1.0, 1.0)
    width, height = int(np.ceil((x1 - x0) * shrink)), int(np.ceil((y1 - y0) * shrink))
    small = np.asarray(Image.fromarray(part).resize((width, height), Image.Resampling.BICUBIC))
    return small, (x0, y0), (width / (x1 - x0), height / (y1 - y0))


def box_pixels(image: Decoded) -> np.ndarray:
    """Return the pixels of the box in the resolution of the image, (h, w, 3) uint8."""
    rows, columns = box_slices(image)
    return image.pixels[rows, columns]


def box_slices(image: Decoded) -> tuple[slice, slice]:
    """Return the rows and the columns of the kept pixels that the box covers, whole or in part."""
    x, y, w, h = image.box
    left, top = int(np.floor(x)) - image.left, int(np.floor(y)) - image.top
    right, bottom = int(np.ceil(x + w)) - image.left, int(np.ceil(y + h)) - image.top
    return slice(top, bottom), slice(left, right)


def _surrounded(image: Decoded, x0: int, y0: int, x1: int, y1: int, view: PublishedView | None) -> np.ndarray:
    """Return a rectangle of the full image; beyond the image is the fill of a view that pads, else its edge pixels."""
    part = _with_repeated_edges(image, x0, y0, x1, y1)
    if view and view.pads:
        columns, rows = np.arange(x0, x1), np.arange(y0, y1)
        inside = np.outer((rows >= 0) & (rows < image.height), (columns >= 0) & (columns < image.width))
        part = np.where(inside[..., None], part, np.array(view.fill, np.uint8))
    return part


def _with_repeated_edges(image: Decoded, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    """Return a rectangle of the full image, in which edge pixels repeat where it reaches beyond the image."""
    columns = np.clip([x0, x1 - 1], 0, image.width - 1) - image.left
    rows = np.clip([y0, y1 - 1], 0, image.height - 1) - image.top
    height, width = image.pixels.shape[:2]
    if columns[0] < 0 or rows[0] < 0 or columns[1] >= width or rows[1] >= height:
        raise ValueError("a view leaves the part of the image that was kept: decode() got too small a reach")
    inner = image.pixels[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1]
    if inner.shape[:2] == (y1 - y0, x1 - x0):
        return inner
    part = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
    # A rectangle beyond a side of the image shows one row or column of it.
    above, left = min(max(0, -y0), y1 - y0 - 1), min(max(0, -x0), x1 - x0 - 1)
    below, right = above + len(inner), left + inner.shape[1]
    part[above:below, left:right] = inner
    part[above:below, :left] = inner[:, :1]
    part[above:below, right:] = inner[:, -1:]
    part[:above] = part[above]
    part[below:] = part[below - 1]
    return part
