"""Which entrants a table tells apart: paired differences of means over conditions, with trials and cells in images.

The page ranks by `separated`. `accuracy_gain` of `intervals` is the same interval for a single condition.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cnnsens_bench.measures.intervals import Z
from cnnsens_bench.measures.spec import mean_over_conditions


@dataclass(frozen=True)
class BoardMean:
    """A mean over the levels of each degradation, then over degradations, and what each image contributes to it.

    Parameters
    ----------
    value
        The mean.
    influence
        Shape (images,), with the sum 0: how far each image moves the mean, times the number of images. The mean over
        resampled images is, to first order, the value plus the mean of their influences.
    """

    value: float
    influence: np.ndarray

    @property
    def variance(self) -> float:
        """The variance of the mean over the population of images."""
        return float((self.influence**2).sum()) / len(self.influence) ** 2


def board_mean(shares: np.ndarray, degradation: Sequence[str] | np.ndarray) -> BoardMean:
    """Average over the images of each condition, then over levels, then over degradations.

    Parameters
    ----------
    shares
        Shape (images, conditions): each image's share over its trials, or the difference of two entrants' shares; NaN
        where an image has no cell of a condition, or one of the two has none.
    degradation
        Shape (conditions,): the names of the degradations.

    Returns
    -------
    BoardMean
        The mean, whose value is NaN where a condition has no image.

    Examples
    --------
    >>> mean = board_mean(np.array([[1.0, 0.0], [1.0, np.nan], [0.0, 1.0]]), ["noise", "blur"])
    >>> round(mean.value, 3), mean.influence.round(2).tolist()
    (0.583, [-0.21, 0.17, 0.04])
    """
    names, there = np.asarray(degradation), ~np.isnan(shares)
    every = np.ones(len(names), bool)
    counts = there.sum(0)
    means = np.divide(np.nansum(shares, 0), counts, out=np.full(len(names), np.nan), where=counts > 0)
    shifts = np.where(there, shares - means, 0) * (len(shares) / np.maximum(counts, 1))
    return BoardMean(
        float(mean_over_conditions(means[None], names, every)[0]), mean_over_conditions(shifts, names, every)
    )


def difference_bounds(
    difference: np.ndarray, variance: np.ndarray, n_images: int, z: float = Z
) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of paired differences of means.

    The interval is Agresti & Min's (2005) for matched pairs, of the images' contributions: one extra image counts +1/2
    and -1/2, and another one counts 0. So it has a width even where no image differs.

    Parameters
    ----------
    difference
        Differences of two entrants' means over the same cells, of any shape.
    variance
        Their variances over the population of images, of the same shape.
    n_images
        The number of images.
    z
        The quantile of the standard normal distribution: 1.96 for 95 %.

    Returns
    -------
    tuple of np.ndarray
        The lower and the upper bounds, which are not clipped.

    Examples
    --------
    >>> low, high = difference_bounds(np.array(0.04), np.array(0.0384 / 100), 100)
    >>> round(float(low), 4), round(float(high), 4)
    (-0.0031, 0.0815)
    """
    size = n_images + 2
    centre = n_images * np.asarray(difference, float) / size
    squares = n_images**2 * np.asarray(variance, float) + 1 + 2 * centre * difference
    half = z * np.sqrt(squares) / size
    return centre - half, centre + half


def difference_variances(deviations: np.ndarray) -> np.ndarray:
    """Return the variances of the differences of all pairs of entrants.

    Parameters
    ----------
    deviations
        Shape (entrants, resamples): a measure over the same bootstrap resamples of images for all entrants. A resample
        in which one of a pair is NaN does not count for that pair.

    Returns
    -------
    np.ndarray
        Shape (entrants, entrants): NaN where a pair shares fewer than two resamples.

    Examples
    --------
    >>> difference_variances(np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 6.0]])).tolist()
    [[0.0, 3.0], [3.0, 0.0]]
    """
    known = (~np.isnan(deviations)).astype(float)
    middle = np.nan_to_num(np.nansum(deviations, 1) / np.maximum(known.sum(1), 1))[:, None]
    centred = np.where(known > 0, deviations - middle, 0)
    counts, products = known @ known.T, centred @ centred.T
    squares, sums = centred**2 @ known.T, centred @ known.T
    totals = squares + squares.T - 2 * products
    corrected = totals - np.divide((sums - sums.T) ** 2, counts, out=np.zeros_like(counts), where=counts > 0)
    # Rounding must not make the variance of equal entrants negative.
    found = np.full_like(counts, np.nan)
    return np.divide(np.maximum(corrected, 0), counts - 1, out=found, where=counts > 1)


def separated(values: np.ndarray, variances: np.ndarray, n_images: int, z: float = Z) -> np.ndarray:
    """Return which entrants have surely a larger mean than which others.

    Parameters
    ----------
    values
        Shape (entrants,): the means.
    variances
        Shape (entrants, entrants): the variances of the differences, by `difference_variances` or by `board_mean` of
        differences.
    n_images
        The number of images.
    z
        The quantile of the standard normal distribution: 1.96 for 95 %.

    Returns
    -------
    np.ndarray
        Shape (entrants, entrants), bool: whether the entrant of the row lies above that of the column.

    Examples
    --------
    >>> separated(np.array([0.8, 0.5, 0.78]), np.full((3, 3), 0.001), n_images=300).astype(int).tolist()
    [[0, 1, 0], [0, 0, 0], [0, 1, 0]]
    """
    differences = np.asarray(values, float)[:, None] - np.asarray(values, float)[None]
    return difference_bounds(differences, variances, n_images, z)[0] > 0
