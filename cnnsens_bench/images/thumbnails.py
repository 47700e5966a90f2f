"""Small pictures for pages."""

import io

import numpy as np
from PIL import Image

QUALITY = 85


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
    image.save(content, "jpeg", quality=QUALITY, subsampling=0, optimize=True)
    return content.getvalue()
