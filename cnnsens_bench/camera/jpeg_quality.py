"""Finds the quality that a JPEG file was stored with, from its quantization tables."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cnnsens_bench.degradations.kernels.jpeg import CHROMINANCE, LUMINANCE

FINE = np.add.outer(np.arange(8), np.arange(8)) >= 9
"""The frequencies at which `camera.noise` measures fine noise."""


class JpegQuality(NamedTuple):
    """The quality on the scale of the Independent JPEG Group, from 1 to 100.

    `exact` says whether the tables are those of that quality; otherwise it is the quality whose tables come closest.
    `fine_step` is the mean step to which fine detail is rounded, in gray levels.
    """

    quality: int
    exact: bool
    fine_step: float


def jpeg_quality(tables: Sequence[Sequence[int]]) -> JpegQuality:
    """Return the quality of quantization tables.

    Parameters
    ----------
    tables
        The 64 steps of luminance in rows of eight, and those of the colours; a gray picture has the first alone.

    Examples
    --------
    >>> jpeg_quality([standard_tables(83)[0].tolist()]).quality
    83
    """
    given = np.array(tables[:2], float).reshape(-1, 64)
    distance = [np.abs(np.log(standard_tables(q)[: len(given)] / given)).sum() for q in range(1, 101)]
    quality = int(np.argmin(distance)) + 1
    return JpegQuality(quality, min(distance) == 0, float(given[0].reshape(8, 8)[FINE].mean()))


@functools.cache
def standard_tables(quality: int) -> np.ndarray:
    """Return the tables of luminance and colours of a quality, (2, 64)."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return ((np.stack([LUMINANCE, CHROMINANCE]).reshape(2, 64) * scale + 50) // 100).clip(1, 255)
