"""Finds black pixels of single photographs, and pixels that are dark or bright in all photographs of a camera."""

from collections.abc import Hashable
from typing import NamedTuple

import numpy as np

from cnnsens_bench.utils.cpu_libraries import cv2

WINDOW = 5
"""The side of the window whose median stands for what a pixel should show."""
BRIGHT = 40
"""The gray level that the median must exceed at least, so that a black pixel is no shadow."""
OUT_OF_NOISE = 6.0
"""By how many standard deviations of the noise the median must be above 0, so that noise makes no pixel black."""
OUTSTANDING = 40
"""By how many gray levels a defective pixel differs from its window's median."""
FEWEST_SHOTS = 5
"""The fewest photographs of one size in which defective pixels can be told from what was before the camera."""
ALWAYS = 0.8
"""The share of the photographs in which a defective pixel stands out."""


class BlackCounts(NamedTuple):
    """How many pixels of a photograph lie in bright surroundings, and how many of them and of their values are 0.

    `pixels` are black in all channels; `values` counts zeros of the three channels together, and the number of pixels
    that all of them come from is `looked_at`.
    """

    looked_at: int
    pixels: int
    values: int


def surroundings(pixels: np.ndarray) -> np.ndarray:
    """Return the median around each value of a picture, (h, w, 3) uint8."""
    around: np.ndarray = cv2.medianBlur(np.ascontiguousarray(pixels), WINDOW)
    return around


def zeros_in_light(pixels: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Return which values of a picture are 0 although their surroundings are bright, (h, w, 3) bool."""
    return (pixels == 0) & (around > BRIGHT)


def black_counts(pixels: np.ndarray, around: np.ndarray, noise: float) -> BlackCounts:
    """Count the zeros of a picture in bright surroundings; `noise` is its standard deviation in gray levels."""
    found = pixels[(around > max(BRIGHT, OUT_OF_NOISE * noise)).all(2)] == 0
    return BlackCounts(len(found), int(found.all(1).sum()), int(found.sum()))


def value_share(black: float, zeros: float) -> float:
    """Return the share of values that are set to 0 one by one, beside pixels that are black as a whole.

    Parameters
    ----------
    black
        The share of the pixels that are 0 in all channels.
    zeros
        The share of the values that are 0.

    Returns
    -------
    float
        p of the degradation `pepper`, if pixels were first turned black as `pepper_pixel` does and independent values
        then set to 0.

    Examples
    --------
    >>> round(value_share(0.02, 0.02), 6), round(value_share(0.1**3, 0.1), 6)
    (0.0, 0.1)
    """
    alone = 0.0
    for _ in range(50):
        whole = max(black - alone**3, 0.0) / (1 - alone**3)
        alone = max(zeros - whole, 0.0) / (1 - whole) if whole < 1 else 0.0
    return alone


def without_zeros(pixels: np.ndarray, zeros: np.ndarray) -> np.ndarray:
    """Return a picture in which values that `zeros_in_light` has found are replaced by one from two pixels beside."""
    filled, left = pixels.copy(), zeros
    for step in (2, -2, 3, -3):
        other, unusable = np.roll(pixels, step, 1), np.roll(zeros, step, 1)
        now = left & ~unusable
        filled[now] = other[now]
        left = left & unusable
    return filled


class DefectFinder:
    """Counts for each pixel of the sensor in how many photographs it stands out from its surroundings.

    Photographs are compared with those of the same `layout`, since others were turned or resized.
    """

    def __init__(self) -> None:
        self._dark: dict[Hashable, np.ndarray] = {}
        self._bright: dict[Hashable, np.ndarray] = {}
        self._counts: dict[Hashable, int] = {}

    def add(self, pixels: np.ndarray, layout: Hashable) -> None:
        """Count a photograph.

        Parameters
        ----------
        pixels
            The photograph, (h, w, 3) uint8.
        layout
            Its size and how it was turned.
        """
        gray = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
        difference = gray.astype(np.int16) - cv2.medianBlur(gray, WINDOW)
        if layout not in self._counts:
            self._counts[layout] = 0
            self._dark[layout], self._bright[layout] = (np.zeros(gray.shape, np.uint16) for _ in range(2))
        self._counts[layout] += 1
        self._dark[layout] += difference < -OUTSTANDING
        self._bright[layout] += difference > OUTSTANDING

    def shares(self) -> tuple[int, int, int, int] | None:
        """Return the numbers of photographs, pixels, dark and bright defects, of the layout with most photographs.

        None stands for fewer than `FEWEST_SHOTS` photographs of one layout.
        """
        if not self._counts:
            return None
        layout = max(self._counts, key=lambda key: self._counts[key])
        count = self._counts[layout]
        if count < FEWEST_SHOTS:
            return None
        enough = int(np.ceil(ALWAYS * count))
        dark, bright = ((found[layout] >= enough) for found in (self._dark, self._bright))
        return count, dark.size, int(dark.sum()), int(bright.sum())
