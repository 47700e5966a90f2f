"""The kinds of image files that are read: Pillow's photographs, and HEIC where pillow-heif is installed."""

import functools
from importlib.util import find_spec

from PIL import Image

OTHER_FORMATS = frozenset({
    "BLP", "BUFR", "CUR", "DCX", "DDS", "EPS", "FITS", "FLI", "FTEX", "GBR", "GRIB", "HDF5", "ICNS", "ICO", "IM", "IMT",
    "IPTC", "MCIDAS", "MPEG", "MPO", "MSP", "PALM", "PCD", "PDF", "PIXAR", "PSD", "SPIDER", "WMF", "XBM", "XPM",
    "XVTHUMB",
})  # fmt: skip
"""Pillow's names of formats that are no photographs: documents, drawings, icons, films, stacks, textures and data."""
HEIC_ENDINGS = frozenset((".heic", ".heif", ".hif"))
"""The endings of photographs that only the package pillow-heif reads."""


@functools.cache
def register_heic() -> None:
    """Let Pillow read HEIC files in this process, where the package pillow-heif is installed."""
    if find_spec("pillow_heif") is not None:
        import pillow_heif

        Image.preinit()  # Pillow asks its formats in the order of their registration: its own come first
        pillow_heif.register_heif_opener()


@functools.cache
def photograph_endings() -> frozenset[str]:
    """Return the endings, in lower case and with their dot, of the files that are read as photographs.

    Examples
    --------
    >>> {".jpg", ".png", ".gif", ".jfif", ".tga"} <= photograph_endings(), ".pdf" in photograph_endings()
    (True, False)
    """
    register_heic()
    Image.preinit()
    Image.init()
    kinds = Image.registered_extensions().items()
    return frozenset(ending for ending, kind in kinds if kind in Image.OPEN and kind not in OTHER_FORMATS)
