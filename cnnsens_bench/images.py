"""The only image I/O: decode, crop, shift, turn, bend, resize.

A file is decoded once per run. Every view of it (the undegraded one too) is resampled from the full image in one
step, so that a shifted box sees what really lies beside it and nothing is blurred twice. Outside the full image
its edge pixels repeat. Pillow's resampling of 8-bit images is integer arithmetic: the same bits on every machine.
A turned or bent view is sampled on a grid finer than the result first, then reduced as every other.
"""

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cnnsens_bench.utils.errors import ImageError, StorageError
from cnnsens_bench.utils.storage import read_patiently

cv2.setNumThreads(1)  # views are rendered side by side already

Box = tuple[float, float, float, float]
"""x, y, width, height in pixels of the upright image."""


@dataclass(frozen=True)
class Decoded:
    """An upright 8-bit RGB image, or the part of it that a run needs.

    `pixels`: (h, w, 3) uint8, the part whose upper left corner is at (`left`, `top`) of the full image of
    `width` × `height`; `box`: the box clipped to the full image, in its coordinates.
    """

    pixels: np.ndarray
    left: int
    top: int
    width: int
    height: int
    box: Box


def decode(uri: str, box: Box | None = None, shift: float = float("inf"), radius: float = 0.0) -> Decoded:
    """Read the image at `uri` (a path, or a URI that fsspec knows), upright and as 8-bit RGB.

    `box`: clipped to the image; None or NaN: the whole image. How far views can leave the box, beyond which pixels
    are not kept: `shift` as a share of its sides, `radius` around its centre in half diagonals (a turned box: 1).
    Raises `ImageError` with one sentence, `StorageError` where what holds the file cannot be reached.
    """
    image = _load(uri)
    width, height = image.size
    clipped = _clip(box, width, height, uri)
    x, y, w, h = clipped
    if np.isinf(shift) or np.isinf(radius):
        keep = (0, 0, width, height)
    else:
        # Beside the views: the support of the smallest filter anyone resizes with (a box to 16 pixels); of turned and
        # bent ones its longer side lies anywhere.
        around = radius * (np.hypot(w, h) / 2 + 3 * max(w / 16, h / 16, 1)) if radius else 0.0
        reach_x = max(w / 2 + 3 * max(w / 16, 1), around) + shift * w + 4
        reach_y = max(h / 2 + 3 * max(h / 16, 1), around) + shift * h + 4
        keep = (
            max(0, int(np.floor(x + w / 2 - reach_x))),
            max(0, int(np.floor(y + h / 2 - reach_y))),
            min(width, int(np.ceil(x + w / 2 + reach_x))),
            min(height, int(np.ceil(y + h / 2 + reach_y))),
        )
    return Decoded(np.asarray(image.crop(keep)), keep[0], keep[1], width, height, clipped)


def render(
    image: Decoded, size: int, dx: float = 0.0, dy: float = 0.0, angle: float = 0.0, bend: float = 0.0
) -> np.ndarray:
    """The box, moved by (dx, dy) pixels of the result, resized straight to `size` × `size`: (size, size, 3) uint8.

    `angle` and `bend`: see `warp`. Bicubic (a = −0.5), antialiased, from the full image with repeated edges.
    """
    x, y, w, h = image.box
    window = (x + dx * w / size, y + dy * h / size, w, h)
    return warp(image, window, size, angle, bend) if angle or bend else resample(image, window, size)


def render_wide(image: Decoded, size: int) -> np.ndarray:
    """`render` with what lies around it, one pixel of the result on every side: (size + 2, size + 2, 3) uint8."""
    x, y, w, h = image.box
    return resample(image, (x - w / size, y - h / size, w + 2 * w / size, h + 2 * h / size), size + 2)


def resample(image: Decoded, window: Box, size: int) -> np.ndarray:
    """The `window` (x, y, width, height; it may leave the full image) resized to (size, size, 3) uint8."""
    x, y, w, h = window
    # The filter reaches 2 source pixels, or 2 result pixels where it shrinks.
    support_x, support_y = 2 * max(w / size, 1) + 1, 2 * max(h / size, 1) + 1
    x0, x1 = int(np.floor(x - support_x)), int(np.ceil(x + w + support_x))
    y0, y1 = int(np.floor(y - support_y)), int(np.ceil(y + h + support_y))
    part = _with_repeated_edges(image, x0, y0, x1, y1)
    resized = Image.fromarray(part).resize(
        (size, size), Image.Resampling.BICUBIC, box=(x - x0, y - y0, x - x0 + w, y - y0 + h)
    )
    return np.asarray(resized)


FINE = 2
"""How many times finer than the result a turned or bent view is sampled, at least."""

LONGEST_SIDE = 32_000
"""In pixels, of what OpenCV can sample."""


def warp(image: Decoded, window: Box, size: int, angle: float, bend: float) -> np.ndarray:
    """The window turned by `angle` degrees about its centre (what is seen turns counter-clockwise) and seen through a
    lens: (size, size, 3) uint8.

    A point of the result at the distance r from the centre (the corner's being 1, the window stretched to the square)
    shows what a perfect lens shows at r / (1 + bend·r²) (Fitzgibbon 2001). The window is turned in the image's own
    pixels, as a camera would be, then resized straight to the square.
    """
    x, y, w, h = window
    wide, high = _fine(w, h, size)
    (margin_x, steps_x), (margin_y, steps_y) = _steps(wide, size), _steps(high, size)
    across, down = np.meshgrid(steps_x * w, steps_y * h)
    if bend:
        square = 4 * (across**2 + down**2) / (w**2 + h**2)
        scale = 1 / (1 + bend * np.minimum(square, 1))  # beyond the corners, in the margin, as at them
        across, down = across * scale, down * scale
    turn = np.deg2rad(angle)
    columns = x + w / 2 + np.cos(turn) * across - np.sin(turn) * down
    rows = y + h / 2 + np.sin(turn) * across + np.cos(turn) * down
    part, x0, y0, shrink_x, shrink_y = _reduced(image, columns, rows, max(wide / w, high / h))
    sampled = cv2.remap(
        part,
        ((columns - x0) * shrink_x - 0.5).astype(np.float32),
        ((rows - y0) * shrink_y - 0.5).astype(np.float32),
        cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )
    inner = (margin_x, margin_y, margin_x + wide, margin_y + high)
    return np.asarray(Image.fromarray(sampled).resize((size, size), Image.Resampling.BICUBIC, box=inner))


def _fine(width: float, height: float, size: int) -> tuple[int, int]:
    """How many points a turned or bent window is sampled at, across and down.

    They lie as close along its longer side as along its shorter, for the window is turned against the image and what
    the image is reduced to has one fineness; closer than the image's pixels only where the result needs it.
    """
    step = max(min(width, height) / (FINE * size), 1.0)
    most = LONGEST_SIDE * 3 // 4  # leaves room for margins

    def points(side: float) -> int:
        return min(most, max(FINE * size, int(np.ceil(side / step - 1e-9))))

    return points(width), points(height)


def _steps(count: int, size: int) -> tuple[int, np.ndarray]:
    """How many points beyond either end the filter of the last resize needs, and where all of them lie, the ends being
    at ± 0.5."""
    margin = int(np.ceil(2 * count / size)) + 2
    return margin, (np.arange(-margin, count + margin) + 0.5) / count - 0.5


def _reduced(
    image: Decoded, columns: np.ndarray, rows: np.ndarray, fineness: float
) -> tuple[np.ndarray, int, int, float, float]:
    """The part of the image around the given points, where they are fewer than its pixels reduced to their `fineness`,
    points a pixel: its pixels, its left and top in the image, and its reduction in x and y."""
    x0, x1 = int(np.floor(columns.min())) - 3, int(np.ceil(columns.max())) + 3
    y0, y1 = int(np.floor(rows.min())) - 3, int(np.ceil(rows.max())) + 3
    part = _with_repeated_edges(image, x0, y0, x1, y1)
    shrink = min(1.0, fineness, LONGEST_SIDE / max(part.shape))
    if shrink == 1:
        return part, x0, y0, 1.0, 1.0
    width, height = int(np.ceil((x1 - x0) * shrink)), int(np.ceil((y1 - y0) * shrink))
    small = np.asarray(Image.fromarray(part).resize((width, height), Image.Resampling.BICUBIC))
    return small, x0, y0, width / (x1 - x0), height / (y1 - y0)


def render_batch(images: list[Decoded], size: int, out: np.ndarray) -> np.ndarray:
    """The unmoved boxes into `out` (N, size, size, 3) uint8."""
    for row, image in zip(out, images, strict=True):
        row[...] = render(image, size)
    return out


def box_pixels(image: Decoded) -> np.ndarray:
    """The box at its own resolution, (h, w, 3) uint8."""
    rows, columns = _box_slices(image)
    return image.pixels[rows, columns]


def decode_mask(uri: str, image: Decoded, values: tuple[int, int]) -> np.ndarray:
    """Where the object is inside `box_pixels(image)`: (h, w) bool.

    `values`: the inclusive range of gray values in the mask file that mean object. Raises as `decode`.
    """
    try:
        with Image.open(io.BytesIO(read_patiently(uri))) as mask:
            full = np.asarray(mask.convert("L") if mask.mode not in ("L", "P") else mask)
    except StorageError:
        raise
    except Exception as error:
        raise ImageError(f"{uri}: the mask cannot be read ({type(error).__name__})") from None
    if full.shape[:2] != (image.height, image.width):
        raise ImageError(f"{uri}: the mask's size differs from its image's")
    rows, columns = _box_slices(image)
    moved_rows = slice(rows.start + image.top, rows.stop + image.top)
    moved_columns = slice(columns.start + image.left, columns.stop + image.left)
    part = full[moved_rows, moved_columns]
    return (part >= values[0]) & (part <= values[1])


def _box_slices(image: Decoded) -> tuple[slice, slice]:
    x, y, w, h = image.box
    left, top = int(np.floor(x)) - image.left, int(np.floor(y)) - image.top
    right, bottom = int(np.ceil(x + w)) - image.left, int(np.ceil(y + h)) - image.top
    return slice(top, bottom), slice(left, right)


def _with_repeated_edges(image: Decoded, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    left, top = x0 - image.left, y0 - image.top
    right, bottom = x1 - image.left, y1 - image.top
    if x0 >= 0 and y0 >= 0 and x1 <= image.width and y1 <= image.height:
        rows: Any = slice(top, bottom)
        columns: Any = slice(left, right)
    else:
        rows = (np.arange(y0, y1).clip(0, image.height - 1) - image.top)[:, None]
        columns = np.arange(x0, x1).clip(0, image.width - 1) - image.left
        left, right, top, bottom = columns[0], columns[-1] + 1, rows[0, 0], rows[-1, 0] + 1
    if left < 0 or top < 0 or bottom > image.pixels.shape[0] or right > image.pixels.shape[1]:
        raise ValueError("a view leaves the part of the image that was kept: decode() got too small a reach")
    return image.pixels[rows, columns]


def _load(uri: str) -> Image.Image:
    try:
        content = io.BytesIO(read_patiently(uri))
        # A file beyond the size that Pillow warns of is refused, not only those beyond twice that size.
        with warnings.catch_warnings(), Image.open(content) as image:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except StorageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{uri}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{uri}: a folder, not an image: name the files in it") from None
    except UnidentifiedImageError:
        raise ImageError(f"{uri}: not an image that Pillow can read") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ImageError(f"{uri}: refused as a decompression bomb ({error})") from None
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise ImageError(f"{uri}: cannot be decoded ({type(error).__name__}: {error})") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB: 16-bit gray scaled by 1/257, alpha laid over white, CMYK, palette and gray converted."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray(np.clip((values + 128) // 257, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(np.clip(np.nan_to_num(np.asarray(image)), 0, 255).round().astype(np.uint8)).convert(
            "RGB"
        )
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        ground = Image.new("RGBA", layers.size, "white")
        return Image.alpha_composite(ground, layers).convert("RGB")
    return image.convert("RGB")


def _clip(box: Box | None, width: int, height: int, uri: str) -> Box:
    if box is None or any(np.isnan(box)):
        return (0.0, 0.0, float(width), float(height))
    x, y, w, h = map(float, box)
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + w, width), min(y + h, height)
    if not (right - left > 0 and bottom - top > 0):
        raise ImageError(f"{uri}: the box ({x:g}, {y:g}, {w:g}, {h:g}) has no area inside the {width}×{height} image")
    return (left, top, right - left, bottom - top)


ROW_COLUMNS = ("pixels", "rows", "columns", "left", "top", "width", "height", "clip_x", "clip_y", "clip_w", "clip_h")


def to_row(image: Decoded) -> dict[str, Any]:
    """Flat columns, for a table of images on its way between processes."""
    sizes = (*image.pixels.shape[:2], image.left, image.top, image.width, image.height)
    return dict(zip(ROW_COLUMNS, (image.pixels.tobytes(), *sizes, *image.box), strict=True))


def from_row(row: dict[str, Any]) -> Decoded:
    """The inverse of `to_row`."""
    pixels = np.frombuffer(row["pixels"], np.uint8).reshape(row["rows"], row["columns"], 3)
    box = (row["clip_x"], row["clip_y"], row["clip_w"], row["clip_h"])
    return Decoded(pixels, row["left"], row["top"], row["width"], row["height"], box)


PNG_STEPS = (1, 3, 5, 15)
"""Of which white is a multiple."""


def write_png(path: Path, pixels: np.ndarray, step: int = 1) -> None:
    """Write (h, w, 3) uint8 as a PNG, values rounded to multiples of `step` (of `PNG_STEPS`): 5 halves its size, and
    nothing shows, where a palette or dithering would bend colours or add noise."""
    rounded = (pixels.astype(np.uint16) + step // 2) // step * step
    Image.fromarray(rounded.astype(np.uint8)).save(path, format="png", optimize=True)


def decode_row(row: Mapping[str, Any], reach: tuple[float, float]) -> Decoded | str:
    """Decode a sample's image; the sentence that says why where it cannot be decoded.

    `reach`: `shift` and `radius` of `decode`. Raises `StorageError`.
    """
    box = (row["box_x"], row["box_y"], row["box_w"], row["box_h"])
    try:
        return decode(row["uri"], box, *reach)
    except ImageError as error:
        return str(error)
