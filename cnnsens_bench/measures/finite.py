"""Intervals for these very images: what a budget leaves out and the noise of trials count, not which images there are.

The intervals of `intervals` and of the bootstrap are for the population that the images were drawn from. The views
`accuracy_of_images`, `label_change_of_images` and `leaderboard_of_images` compute the same in SQL.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cnnsens_bench.measures.intervals import IntervalEstimate, Z, wilson_bounds
from cnnsens_bench.measures.spec import UNKNOWN, Interval, mean_over_conditions


@dataclass(frozen=True)
class FinitePopulation:
    """The shares of an entrant on a budget, and the intervals of what all trials of these images would give.

    A budget chooses for each image, by chance, which conditions it has. So the images of a condition are a random
    sample, without replacement, of all images (Cochran 1977, section 2.6), and the conditions of an image are one of
    all conditions. Under a condition of one trial that trial counts as given: it has no noise, and where all images
    have it the interval has no width.

    Parameters
    ----------
    shares
        Shape (images, conditions): each image's share over its trials, NaN where it has no cell of a condition.
    trials
        Shape (images, conditions): the number of trials that were evaluated.
    planned
        Shape (conditions,): the number of trials that a condition has without a budget.

    Examples
    --------
    >>> shares = np.array([[1.0, 1.0], [0.0, np.nan], [1.0, np.nan], [1.0, np.nan]])
    >>> images = FinitePopulation(shares, np.ones((4, 2)), np.ones(2))
    >>> images.condition(0).low, images.condition(0).high, round(images.condition(1).low, 2)
    (0.75, 0.75, 0.26)
    """

    shares: np.ndarray
    trials: np.ndarray
    planned: np.ndarray

    def condition(self, condition: int) -> IntervalEstimate:
        """Return the mean share under a condition with its 95 % interval.

        With f the part of the images that have the condition, the interval is Wilson's for an effective sample size of
        value·(1 − value)/v, v = (1 − f)·s²/n + f·w/n. Here s² is the variance of the images' shares, and w the mean
        variance of a share over other draws of its trials. Where v is 0 the size is n/(1 − f), with one trial.

        Parameters
        ----------
        condition
            The index of a condition that at least one image has.

        Raises
        ------
        ValueError
            Where no image has the condition.
        """
        there = ~np.isnan(self.shares[:, condition])
        if not there.any():
            raise ValueError("there is no share of no images")
        own, trials = self.shares[there, condition], self.trials[there, condition]
        value, n, part = float(own.mean()), len(own), float(there.mean())
        variance = (1 - part) * (float(own.var(ddof=1)) if n > 1 else 0.0) / n
        variance += part * self._within(condition) * float((1 / trials).sum()) / n**2
        # A variance below 1e-24 is rounding: the mean of equal thirds is not exactly a third.
        if variance >= 1e-24 and 0 < value < 1:
            size = max(value * (1 - value) / variance, 1.0)
        else:
            inverse = (1 - part) / n + (part / float(trials.sum()) if self.planned[condition] > 1 else 0.0)
            size = 1 / inverse if inverse else float("inf")
        low, high = map(float, wilson_bounds(value, size))
        return IntervalEstimate(value, low, high, n, int(trials.max()))

    def mean(self, degradation: Sequence[str] | np.ndarray) -> Interval:
        """Return the mean over levels, then over degradations, with its 95 % interval.

        The variance is that within images: of the conditions that an image has, weighed by what they contribute to the
        mean, their variance times the part of the conditions that are left out, and the noise of their trials.

        Parameters
        ----------
        degradation
            Shape (conditions,): the names of the degradations.

        Returns
        -------
        tuple
            The mean with its bounds in [0, 1]: all NaN where a condition has no image.
        """
        there = ~np.isnan(self.shares)
        counts = there.sum(0)
        if not counts.all():
            return UNKNOWN
        every, names = np.ones(len(counts), bool), np.asarray(degradation)
        means = np.nansum(self.shares, 0) / counts
        weights = mean_over_conditions(np.eye(len(counts)), names, every)
        part = counts / len(there)
        moves = np.where(there, self.shares - means, 0) * (weights / part)
        conditions = there.sum(1)
        middle = moves.sum(1) / np.maximum(conditions, 1)
        # An image with one condition tells no variance, so that its distance from the mean takes its place.
        centred = np.where(there, moves - np.where(conditions > 1, middle, 0)[:, None], 0)
        factor = np.where(conditions > 1, conditions / np.maximum(conditions - 1, 1), 1)
        chosen = (centred**2 @ (1 - part)) * factor
        within = np.array([self._within(condition) for condition in range(len(counts))])
        noise = np.where(there, weights**2 / part * within / np.where(there, self.trials, 1), 0).sum(1)
        value, half = float(weights @ means), Z * float(np.sqrt((chosen + noise).sum())) / len(there)
        return value, max(0.0, value - half), min(1.0, value + half)

    def of(self, conditions: np.ndarray) -> "FinitePopulation":
        """Return the same for some conditions alone, which a mask or indices choose."""
        chosen = {name: getattr(self, name)[..., conditions] for name in ("shares", "trials", "planned")}
        return dataclasses.replace(self, **chosen)

    def _within(self, condition: int) -> float:
        """Return the variance of one trial within an image, pooled over the images; 0 where there is one trial."""
        there = ~np.isnan(self.shares[:, condition])
        own, trials = self.shares[there, condition], self.trials[there, condition]
        if self.planned[condition] == 1:
            return 0.0
        if trials.sum() == len(own):  # no image tells it, so that it is taken to be as large as it can be
            return float(own.mean() * (1 - own.mean()))
        return float((trials * own * (1 - own)).sum() / (trials - 1).sum())
