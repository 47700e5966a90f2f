"""Fits how noise grows with light, over several photographs: photon transfer, as EMVA 1288 calls it."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls

from cnnsens_bench.camera.noise import RANGES
from cnnsens_bench.camera.report import Measurement
from cnnsens_bench.degradations.camera.light import LIGHT

CENTRES = (np.arange(RANGES) + 0.5) * 256 / RANGES
"""The gray levels in the middle of the ranges of brightness."""
FEWEST_RANGES = 3
RESAMPLES = 400
FEWEST_RESAMPLED = 6
"""The fewest photographs that resampling tells an interval of."""
SLOPE_OF_LIGHT = np.gradient(LIGHT.astype(float))
"""How much linear light, as a share of white, one more gray level is."""


class PhotonTransfer(NamedTuple):
    """The noise as a function of light.

    `offset` and `slope` are a and b of the variance a + b · brightness, in squared gray levels and in gray levels.
    `electrons` is how many electrons a white pixel holds if noise in linear light is that of counting them, the level
    of the degradation `shot_noise`; None where noise does not grow with light.
    """

    offset: Measurement
    slope: Measurement
    electrons: Measurement | None


def photon_transfer(variances: np.ndarray) -> PhotonTransfer | None:
    """Fit the noise of photographs, with 95 % intervals by resampling the photographs.

    Fewer than six photographs have no intervals.

    Parameters
    ----------
    variances
        (photographs, RANGES): the variance of noise in squared gray levels by brightness; NaN where it is not known.

    Returns
    -------
    PhotonTransfer or None
        None where fewer than three ranges of brightness are known.
    """
    known = variances[np.isfinite(variances).any(1)]
    fitted = _fit(known)
    if fitted is None:
        return None
    rng = np.random.default_rng(0)
    repeats = RESAMPLES if len(known) >= FEWEST_RESAMPLED else 0
    resamples = [_fit(known[rng.integers(0, len(known), len(known))]) for _ in range(repeats)]
    draws = np.array([one for one in resamples if one is not None]).reshape(-1, 3)
    values = np.array(fitted)
    bounds = np.quantile(draws, [0.025, 0.975], axis=0) if len(draws) else np.full((2, 3), np.nan)
    bounds = np.stack([np.fmin(bounds[0], values), np.fmax(bounds[1], values)]) if len(draws) else bounds
    with np.errstate(divide="ignore"):  # the more noise grows with light, the fewer electrons there are
        values[2], bounds[:, 2] = 1 / values[2], 1 / bounds[::-1, 2]
    offset, slope, electrons = (
        Measurement.of(value, low, high) if np.isfinite(value) else None
        for value, low, high in zip(values, *bounds, strict=True)
    )
    assert offset is not None
    assert slope is not None
    return PhotonTransfer(offset, slope, electrons)


def _fit(variances: np.ndarray) -> tuple[float, float, float] | None:
    """Return offset and slope in gray levels, and the slope in linear light, none of them negative."""
    counts = np.isfinite(variances).sum(0)
    ranges = counts > 0
    if ranges.sum() < FEWEST_RANGES:
        return None
    # A variance is known to a share of itself, so that each range counts by its relative deviation.
    variance, at, weight = np.nanmedian(variances[:, ranges], axis=0), CENTRES[ranges], np.sqrt(counts[ranges])
    offset, slope = _line(at, variance, weight)
    level = at.astype(int)
    _, growth = _line(LIGHT[level].astype(float), variance * SLOPE_OF_LIGHT[level] ** 2, weight)
    return offset, slope, growth


def _line(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Return a and b, both at least 0, of the line a + b · x that comes closest relative to y."""
    scale = weight / np.maximum(y, max(float(np.median(y)) / 4, 1e-12))
    solution, _ = nnls(np.stack([scale, scale * x], axis=1), scale * y)
    return float(solution[0]), float(solution[1])
