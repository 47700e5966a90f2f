"""The photographs of ice that ImageNet-C's frost was made with, which the package `imagecorruptions` carries."""

import functools
import importlib.util
import math
from pathlib import Path

import numpy as np

from cnnsens_bench.utils.cpu_libraries import cv2
from cnnsens_bench.utils.errors import UserError

PACKAGE = "imagecorruptions"
PHOTOGRAPHS = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
"""The files that the published code draws from; it never takes the sixth one of its folder."""
SURPLUS = 1.1
"""How many times larger than needed the published code scales a photograph, so that there is something to crop from."""
WAY_OUT = "pip install --no-deps imagecorruptions on every machine of the run, or leave frost=generated"


@functools.lru_cache(maxsize=4)
def frost_photographs(size: int) -> tuple[np.ndarray, ...]:
    """Return the photographs of ice, scaled as the code that made ImageNet-C scales them.

    A photograph with a side shorter than the image is enlarged until both sides suffice; then each is enlarged 1.1
    times, bicubically.

    Parameters
    ----------
    size
        The side of the square images that ice is put on, in pixels.

    Returns
    -------
    tuple of numpy.ndarray
        Five RGB images, each (height, width, 3) uint8 with both sides larger than `size`.

    Raises
    ------
    UserError
        If the package `imagecorruptions` is absent, or lacks a photograph.
    """
    return tuple(_scaled(photograph, size) for photograph in _photographs())


@functools.cache
def _photographs() -> tuple[np.ndarray, ...]:
    spec = importlib.util.find_spec(PACKAGE)  # the package itself is not imported: it needs an old pkg_resources
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"frost=photographs takes the ice of the package {PACKAGE}, which is not installed: {WAY_OUT}")
    folder = Path(spec.submodule_search_locations[0]) / "frost"
    found = []
    for name in PHOTOGRAPHS:
        picture = cv2.imread(str(folder / name), cv2.IMREAD_COLOR)
        if picture is None:
            raise UserError(f"frost=photographs: {folder / name} cannot be read: install {PACKAGE} again: {WAY_OUT}")
        found.append(picture[:, :, ::-1])  # OpenCV reads BGR
    return tuple(found)


def _scaled(photograph: np.ndarray, size: int) -> np.ndarray:
    height, width = photograph.shape[:2]
    scale = max(1.0, size / height, size / width) * SURPLUS
    shape = (math.ceil(width * scale), math.ceil(height * scale))
    return cv2.resize(np.ascontiguousarray(photograph), shape, interpolation=cv2.INTER_CUBIC)
