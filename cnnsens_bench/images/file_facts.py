"""What an image file says about itself beside its pixels: its format, its camera, and how JPEG has stored it."""

import io
import warnings
from dataclasses import dataclass

from PIL import ExifTags, Image

from cnnsens_bench.utils.errors import ImageError

LOSSY = ("JPEG", "MPO", "WEBP", "HEIF", "AVIF", "JPEG2000")
"""Pillow's names of formats that do not keep every pixel as it was."""


@dataclass(frozen=True)
class FileFacts:
    """What an image file says about itself.

    Attributes
    ----------
    format : str
        Pillow's name of the format.
    bits : int
        The bits of a value: 8 or 16.
    orientation : int
        The orientation of EXIF, from 1, which means upright.
    camera : str or None
        The maker and model of the camera.
    stated_size : tuple of int or None
        The width and height in pixels that the camera has written.
    size : tuple of int
        The width and height that the file has, before it is turned upright.
    quantization : tuple of tuples or None
        The quantization tables of a JPEG, 64 numbers each in rows of eight.
    """

    format: str
    bits: int
    orientation: int
    camera: str | None
    stated_size: tuple[int, int] | None
    size: tuple[int, int]
    quantization: tuple[tuple[int, ...], ...] | None

    @property
    def lossy(self) -> bool:
        """Whether the format does not keep every pixel as it was."""
        return self.format in LOSSY


def file_facts(uri: str, content: bytes) -> FileFacts:
    """Return what the content of an image file says. Raise `ImageError` where it is no image."""
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(content)) as image:
            warnings.simplefilter("ignore")
            bits = 16 if _has_16_bits(image) else 8  # the next line may load the pixels, as 8 bits
            exif = image.getexif()
            details = exif.get_ifd(ExifTags.IFD.Exif)
            stated = details.get(ExifTags.Base.ExifImageWidth), details.get(ExifTags.Base.ExifImageHeight)
            tables = getattr(image, "quantization", None)
            return FileFacts(
                format=str(image.format),
                bits=bits,
                orientation=_whole(exif.get(ExifTags.Base.Orientation)) or 1,
                camera=_camera(exif.get(ExifTags.Base.Make), exif.get(ExifTags.Base.Model)),
                stated_size=(_whole(stated[0]), _whole(stated[1])) if all(map(_whole, stated)) else None,
                size=image.size,
                quantization=tuple(tuple(tables[key]) for key in sorted(tables)) if tables else None,
            )
    except Exception as error:  # Pillow and damaged EXIF raise errors of many types
        raise ImageError(f"{uri}: not an image that Pillow can read ({type(error).__name__})") from None


def _has_16_bits(image: Image.Image) -> bool:
    # Pillow opens colours of 16 bits as 8 bits; the decoder's own mode still names them.
    raw = " ".join(str(tile[3]) for tile in getattr(image, "tile", ()))
    return image.mode.startswith("I;16") or image.mode in ("I", "F") or ";16" in raw


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _camera(make: object, model: object) -> str | None:
    """Return the maker and model in one text, the maker once."""
    first, second = (" ".join(str(part or "").replace("\0", " ").split()) for part in (make, model))
    if not second:
        return first or None
    maker = first.split(" ")[0].lower()
    return second if not maker or second.lower().startswith(maker) else f"{first} {second}"
