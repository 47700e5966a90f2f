"""numba and OpenCV, which make loops over pixels fast on a CPU.

Where one of them is not installed, the tensor operations that a GPU runs run on the CPU too, with the same bits.
"""

from types import SimpleNamespace
from typing import Any

numba: Any
cv2: Any

try:
    import cv2
    import numba

    INSTALLED = True
except ModuleNotFoundError:
    INSTALLED = False
    # A loop is then defined, but never run.
    numba = SimpleNamespace(njit=lambda loop=None, **_: loop or (lambda each: each))
    cv2 = None
