"""95 % intervals of what was measured in several photographs of one camera."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from cnnsens_bench.camera.report import Measurement

FEWEST_ORDERED = 6
"""The fewest values between whose smallest and largest the median lies with a probability of 95 %."""
TAIL = 0.025


def median_over(values: Sequence[float] | np.ndarray, least: float = -math.inf, most: float = math.inf) -> Measurement:
    """Return the median of values and its 95 % interval.

    From six values on, the bounds are two of the values, chosen by the binomial distribution, whatever the values are
    distributed like. Two to five values have Student's interval around the median, and one value has none.

    Parameters
    ----------
    values
        One value for each photograph, at least one. NaN stands for photographs that tell nothing.
    least, most
        The smallest and the largest possible value, which the interval does not pass.

    Examples
    --------
    >>> median_over([3, 1, 2, 9, 4, 5, 6, 7, 8])
    Measurement(value=5.0, low=2.0, high=8.0)
    """
    known = np.sort(_known(values))
    middle = float(np.median(known))
    if len(known) < FEWEST_ORDERED:
        return _student(known, middle, least, most)
    beyond = int(stats.binom.ppf(TAIL, len(known), 0.5))
    beyond = beyond if stats.binom.cdf(beyond - 1, len(known), 0.5) <= TAIL else beyond - 1
    beyond = max(beyond, 1)
    return Measurement.of(middle, float(known[beyond - 1]), float(known[-beyond]))


def mean_over(values: Sequence[float] | np.ndarray, least: float = -math.inf, most: float = math.inf) -> Measurement:
    """Return the mean of values and Student's 95 % interval; the parameters are as in `median_over`.

    Examples
    --------
    >>> mean_over([1, 2, 3])
    Measurement(value=2.0, low=-0.4841, high=4.484)
    >>> mean_over([0.5, 0.9], least=0, most=1)
    Measurement(value=0.7, low=0.0, high=1.0)
    """
    known = _known(values)
    return _student(known, float(known.mean()), least, most)


def share_over(hits: Sequence[float] | np.ndarray, totals: Sequence[float] | np.ndarray) -> Measurement:
    """Return a share over photographs, with an interval that holds for photographs as well as for pixels.

    Parameters
    ----------
    hits, totals
        How many pixels of each photograph have the property, and how many were looked at.

    Examples
    --------
    >>> share_over([10], [1000])
    Measurement(value=0.01, low=0.005441, high=0.01831)
    """
    found, looked = np.asarray(hits, float), np.asarray(totals, float)
    found, looked = found[looked > 0], looked[looked > 0]
    value = found.sum() / looked.sum()
    exact = stats.binomtest(int(found.sum()), int(looked.sum())).proportion_ci(1 - 2 * TAIL, "wilson")
    low, high = min(exact.low, value), max(exact.high, value)
    if len(found) > 1:
        half = _half_width(found / looked)
        low, high = min(low, value - half), max(high, value + half)
    return Measurement.of(value, max(low, 0.0), min(high, 1.0))


def _known(values: Sequence[float] | np.ndarray) -> np.ndarray:
    found = np.asarray(values, float)
    return found[np.isfinite(found)]


def _half_width(known: np.ndarray) -> float:
    count = len(known)
    return float(stats.t.ppf(1 - TAIL, count - 1) * known.std(ddof=1) / math.sqrt(count))


def _student(known: np.ndarray, centre: float, least: float, most: float) -> Measurement:
    if len(known) < 2:
        return Measurement.of(centre)
    half = _half_width(known)
    return Measurement.of(centre, max(centre - half, least), min(centre + half, most))
