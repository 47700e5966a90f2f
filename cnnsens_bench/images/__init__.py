"""Image files: decoding images and masks, sending images between processes, and writing PNGs.

No other module reads image files. `archives.py` reads images that lie inside larger files, and `views.py` renders what
a network sees of a decoded image.
"""

import functools
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cnnsens_bench.images.archives import Reader, forget_files, read_ahead, read_content, stop_reading
from cnnsens_bench.images.published import PublishedView
from cnnsens_bench.images.views import Box, Decoded, box_pixels, box_slices, render, render_wide, resample, warp
from cnnsens_bench.utils.errors import ImageError, StorageError
from cnnsens_bench.utils.image_formats import register_heic
from cnnsens_bench.utils.reading import read_patiently

__all__ = [
    "PNG_STEPS", "Box", "Decoded", "PublishedView", "Reader", "box_pixels", "decode", "decode_mask", "decode_row",
    "forget_files", "from_row", "read_ahead", "render", "render_wide", "resample", "stop_reading", "thumbnail",
    "to_rgb", "to_row", "warp", "write_png",
]  # fmt: skip

register_heic()


def decode(
    uri: str,
    box: Box | None = None,
    shift: float = float("inf"),
    radius: float = 0.0,
    read: Reader | None = None,
) -> Decoded:
    """Read an image, upright and as 8-bit RGB, and keep the pixels that views of its box can show.

    Parameters
    ----------
    uri
        A path, or a URI that fsspec knows. `archives.py` says what URIs of images inside larger files look like.
    box
        The box, which is clipped to the image. None or NaN stands for the whole image.
    shift
        How far views move, as a share of the sides of the box.
    radius
        How far views reach from the centre of the box, in half diagonals; 1 for a turned box, 0 for none.
    read
        A function of `read_ahead` that returns what the image consists of. The default reads it from `uri`.

    Raises
    ------
    ImageError
        If the file is absent or damaged, or the box has no area inside the image.
    StorageError
        If the storage of the file does not answer.
    """
    image = _load(uri, read or functools.partial(read_content, uri))
    width, height = image.size
    clipped = _clip(box, width, height, uri)
    x, y, w, h = clipped
    if np.isinf(shift) or np.isinf(radius):
        keep = (0, 0, width, height)
    else:
        # The filter reaches beyond a view; this is far enough for views of at least 16 pixels. In a turned or bent view
        # the longer side of the box can lie in any direction.
        around = radius * (np.hypot(w, h) / 2 + 3 * max(w / 16, h / 16, 1)) if radius else 0.0
        reach_x = max(w / 2 + 3 * max(w / 16, 1), around) + shift * w + 4
        reach_y = max(h / 2 + 3 * max(h / 16, 1), around) + shift * h + 4
        left, top = max(0, int(np.floor(x + w / 2 - reach_x))), max(0, int(np.floor(y + h / 2 - reach_y)))
        right, bottom = min(width, int(np.ceil(x + w / 2 + reach_x))), min(height, int(np.ceil(y + h / 2 + reach_y)))
        keep = (left, top, right, bottom)
    return Decoded(np.asarray(image.crop(keep)), keep[0], keep[1], width, height, clipped)


def decode_mask(uri: str, image: Decoded, values: tuple[int, int]) -> np.ndarray:
    """Return which of `box_pixels(image)` show the object, (h, w) bool.

    Parameters
    ----------
    uri
        The file of the mask, which must be as large as the full image.
    image
        The decoded image.
    values
        The lowest and the highest gray value that mean object in the mask.

    Raises
    ------
    ImageError, StorageError
        As `decode` does.
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
    rows, columns = box_slices(image)
    moved_rows = slice(rows.start + image.top, rows.stop + image.top)
    moved_columns = slice(columns.start + image.left, columns.stop + image.left)
    part = full[moved_rows, moved_columns]
    return (part >= values[0]) & (part <= values[1])


def _load(uri: str, read: Reader) -> Image.Image:
    try:
        content = read()
        if isinstance(content, np.ndarray):
            return Image.fromarray(content)
        # Pillow warns of images above some size, and refuses those above twice that size. Here both are refused.
        with warnings.catch_warnings(), Image.open(io.BytesIO(content)) as image:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except (StorageError, ImageError):
        raise
    except FileNotFoundError:
        raise ImageError(f"{uri}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{uri}: a folder, not an image: name the files in it") from None
    except UnidentifiedImageError:
        raise ImageError(f"{uri}: not an image that Pillow can read") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ImageError(f"{uri}: refused as a decompression bomb ({error})") from None
    except Exception as error:  # decoders raise errors of many types for damaged files
        raise ImageError(f"{uri}: cannot be decoded ({type(error).__name__}: {error})") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image of any mode as 8-bit RGB. 16-bit gray is scaled by 1/257, and alpha is laid over white."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray(np.clip((values + 128) // 257, 0, 255).astype(np.uint8))
    elif image.mode == "F":
        image = Image.fromarray(np.clip(np.nan_to_num(np.asarray(image)), 0, 255).round().astype(np.uint8))
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
    """Return an image as flat values by column, for a table that is sent to another process."""
    sizes = (*image.pixels.shape[:2], image.left, image.top, image.width, image.height)
    return dict(zip(ROW_COLUMNS, (image.pixels.tobytes(), *sizes, *image.box), strict=True))


def from_row(row: dict[str, Any]) -> Decoded:
    """Return the image of which `to_row` gave the values."""
    pixels = np.frombuffer(row["pixels"], np.uint8).reshape(row["rows"], row["columns"], 3)
    box = (row["clip_x"], row["clip_y"], row["clip_w"], row["clip_h"])
    return Decoded(pixels, row["left"], row["top"], row["width"], row["height"], box)


PNG_STEPS = (1, 3, 5, 15)
"""The steps of which white, 255, is a multiple."""


def write_png(path: Path, pixels: np.ndarray, step: int = 1) -> None:
    """Write an image as a PNG.

    Parameters
    ----------
    path
        The file to write.
    pixels
        The image, (h, w, 3) uint8.
    step
        One of `PNG_STEPS`. Values are rounded to its multiples. A step of 5 halves the file without visible change; a
        palette or dithering would change colours or add noise.
    """
    rounded = (pixels.astype(np.uint16) + step // 2) // step * step
    Image.fromarray(rounded.astype(np.uint8)).save(path, format="png", optimize=True)


THUMBNAIL_QUALITY = 85
"""The quality of the JPEG files that `thumbnail` makes."""


def thumbnail(pixels: np.ndarray, side: int) -> bytes:
    """Return a square image as the content of a small JPEG file.

    Parameters
    ----------
    pixels
        (size, size, 3) uint8.
    side
        The side of the picture in pixels. A smaller image keeps its size.

    Examples
    --------
    >>> content = thumbnail(np.zeros((224, 224, 3), np.uint8), 96)
    >>> Image.open(io.BytesIO(content)).size
    (96, 96)
    """
    image = Image.fromarray(pixels)
    if image.width > side:
        image = image.resize((side, side), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "jpeg", quality=THUMBNAIL_QUALITY, subsampling=0, optimize=True)
    return content.getvalue()


def decode_row(row: Mapping[str, Any], reach: tuple[float, float], read: Reader | None = None) -> Decoded | str:
    """Return the image of a sample, or the sentence that says why it cannot be decoded.

    Parameters
    ----------
    row
        The sample, a row of `Samples.table`.
    reach
        The arguments `shift` and `radius` of `decode`.
    read
        The argument `read` of `decode`.

    Raises
    ------
    StorageError
        If the storage of the file does not answer.
    """
    box = (row["box_x"], row["box_y"], row["box_w"], row["box_h"])
    try:
        return decode(row["uri"], box, *reach, read)
    except ImageError as error:
        return str(error)
