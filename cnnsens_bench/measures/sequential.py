"""Decisions after each round of a growing budget: how wide the intervals of means are, and which entrants are tied.

`experiment/rounds.py` runs the rounds.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri, stdtr

from cnnsens_bench.measures.intervals import Z
from cnnsens_bench.measures.paired import BoardMean, board_mean

SHARES = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""The shares of the degraded cells at which a run with `until` looks at its results."""
LEAST_CELLS = 3
"""Degraded cells of an image in the first round, on average. With fewer, the spread within images is not known."""
ALPHA = 0.05
"""The probability that a pair with equal means is called separated in any round."""
UNDECIDED, SEPARATED, TIED = 0, 1, 2
"""What is known of a pair of entrants."""
STEP = 0.05
"""Ratios of information are rounded down to multiples of this, so that few critical values are computed."""
MOST_EARLY, LEAST_SPENT = 0.9, 0.01
"""The part of `ALPHA` that is spent before the last round at most, and that each round spends at least."""
NODES, WEIGHTS = np.polynomial.legendre.leggauss(96)
"""Gauss and Legendre's nodes in [-1, 1] and their weights, for numerical integration."""
HOPELESS = float(ndtri(0.95))
"""How many standard errors a prediction of the whole budget's difference may be wrong, before a pair counts as tied."""


def planned_shares(budget: float, cells: int) -> tuple[float, ...]:
    """Return the shares of the degraded cells that the rounds evaluate, smallest first.

    Parameters
    ----------
    budget
        The largest share that may be evaluated, above 0 and at most 1. It is that of the last round.
    cells
        The number of degraded cells of an image.

    Examples
    --------
    >>> planned_shares(0.5, cells=75)
    (0.05, 0.1, 0.2, 0.4, 0.5)
    """
    return *(share for share in SHARES if share < budget and share * cells >= LEAST_CELLS), budget


def mean_of_cells(outcomes: np.ndarray, conditions: Sequence[tuple[str, float]]) -> BoardMean:
    """Return the `board_mean` of images that have some of the cells.

    An image's trials of a condition are averaged first. The deviations from the mean of a condition are stretched by
    √(n / (n - 1)) for its n images, so that variances are unbiased where few images have a condition.

    Parameters
    ----------
    outcomes
        Shape (images, cells), 0 or 1: NaN where an image lacks a cell.
    conditions
        Shape (cells,): the degradation and the level of each cell.

    Returns
    -------
    BoardMean
        The mean, whose value is NaN where a condition has fewer than two images.

    Examples
    --------
    >>> mean = mean_of_cells(np.array([[1, 0], [0, 1], [1, 1]]), [("noise", 1.0), ("blur", 1.0)])
    >>> round(mean.value, 3), mean.influence.round(2).tolist()
    (0.667, [-0.2, -0.2, 0.41])
    """
    known = {condition: number for number, condition in enumerate(dict.fromkeys(conditions))}
    one_hot = np.eye(len(known), dtype=np.float32)[[known[condition] for condition in conditions]]
    there = ~np.isnan(outcomes)
    trials = there.astype(np.float32) @ one_hot
    sums = np.where(there, outcomes, 0).astype(np.float32) @ one_hot
    images = (trials > 0).sum(axis=0)
    shares = np.divide(sums, trials, out=np.full(sums.shape, np.nan), where=(trials > 0) & (images > 1))
    means = np.nansum(shares, axis=0) / np.maximum(images, 1)
    stretched = means + (shares - means) * np.sqrt(images / np.maximum(images - 1, 1))
    return board_mean(stretched, [degradation for degradation, _ in known])


def variance_at(share: float, shares: Sequence[float], variances: np.ndarray) -> np.ndarray:
    """Extrapolate the variance of means to a larger share of the cells.

    The variance is that between images, which no share lowers, and a part that falls as 1 / share. The last two shares
    tell them apart. The result is at least what it would be if images did not differ, and at most the last variance. It
    is that least one where the variance before the last is not known.

    Parameters
    ----------
    share
        The share to extrapolate to.
    shares
        The shares that variances are known for, in ascending order, two at least.
    variances
        Shape (shares, ...): NaN where a variance is not known.

    Examples
    --------
    >>> variance_at(1.0, [0.1, 0.2], np.array([1.5, 1.0])).item()
    0.6
    """
    before, last = variances[-2:]
    slope = (before - last) / (1 / shares[-2] - 1 / shares[-1])
    least = last * shares[-1] / share
    found = np.clip(last - slope * (1 / shares[-1] - 1 / share), least, last)
    return np.where(np.isnan(before), least, found)


def critical_values(ratios: Sequence[float], spent: Sequence[float]) -> np.ndarray:
    """Return the bounds of |z| that a pair of equal entrants passes in each round with a given probability.

    The estimates of nested shares have independent increments, so the bounds follow one after the other by numerical
    integration (Armitage, McPherson & Rowe 1969; Lan & DeMets 1983).

    Parameters
    ----------
    ratios
        The information, which is 1 / variance, of each round but the last ÷ that of the next: each above 0, below 1.
    spent
        The probability that a bound has been passed by the end of each round, in ascending order.

    Examples
    --------
    >>> critical_values((0.5,), (0.025, 0.05)).round(3).tolist()
    [2.241, 2.125]
    """
    bounds = [-float(ndtri(spent[0] / 2))]
    z = bounds[0] * NODES
    density = bounds[0] * WEIGHTS * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    for ratio, before, now in zip(ratios, spent, spent[1:], strict=False):
        shrunk, spread = np.sqrt(ratio) * z, np.sqrt(1 - ratio)
        passed = functools.partial(_passed, shrunk=shrunk, spread=spread, density=density)
        bounds.append(brentq(lambda bound, passed=passed, new=now - before: passed(bound) - new, 0.5, 8.0))
        z = bounds[-1] * NODES
        steps = (z[:, None] - shrunk) / spread
        density = bounds[-1] * WEIGHTS * (np.exp(-(steps**2) / 2) @ density) / (spread * np.sqrt(2 * np.pi))
    return np.array(bounds)


def _passed(bound: float, shrunk: np.ndarray, spread: float, density: np.ndarray) -> float:
    """Return the probability that |z| passes a bound, from what it was before: its nodes and their density."""
    return float(density @ (ndtr((shrunk - bound) / spread) + ndtr((-shrunk - bound) / spread)))


@functools.lru_cache(10_000)
def _last_bound(ratios: tuple[float, ...], spent: tuple[float, ...]) -> float:
    """Return the last of the `critical_values`."""
    return float(critical_values(ratios, spent)[-1])


@dataclass(frozen=True)
class Looks:
    """What is known of the entrants of a board at each share of the cells.

    Attributes
    ----------
    shares
        The shares, in ascending order. The first is no round: with it the second tells how variances fall.
    values
        Shape (shares, entrants): the means, NaN where an entrant has not the cells of a share.
    covariances
        Shape (shares, entrants, entrants): the covariances of the means over samples of images. They count for nothing
        where a value is NaN.
    images
        The number of images.
    budget
        The largest share that may be evaluated.
    """

    shares: tuple[float, ...]
    values: np.ndarray
    covariances: np.ndarray
    images: int
    budget: float

    def order(self) -> np.ndarray:
        """Return the entrants' positions, those with the largest means first, by the last share that each has."""
        known = ~np.isnan(self.values)
        last = len(self.shares) - 1 - known[::-1].argmax(axis=0)
        return np.argsort(-self.values[last, np.arange(self.values.shape[1])], kind="stable")

    def pair_states(self) -> np.ndarray:
        """Return what is known of each pair of entrants: `UNDECIDED`, `SEPARATED` or `TIED`.

        A pair is separated in the first round in which its difference, in standard errors of paired images, passes the
        round's bound. Equal means pass any bound with a probability of `ALPHA`. By the end of a round the part of it is
        spent that the round's information, 1 / variance, is of the whole budget's (Lan & DeMets 1983). A pair is tied
        in the first round which predicts, with a probability of 95 %, that the whole budget would not separate it
        either, and in the last round. A pair stays what it is.

        Returns
        -------
        np.ndarray
            Shape (entrants, entrants).
        """
        entrants = self.values.shape[1]
        first, second = np.triu_indices(entrants, 1)
        differences = np.abs(self.values[:, first] - self.values[:, second])
        own = np.diagonal(self.covariances, axis1=1, axis2=2)
        variances = own[:, first] + own[:, second] - 2 * self.covariances[:, first, second]
        # Rounding leaves a variance of 0 just above or below it.
        variances = np.where(variances > 1e-9 * (own[:, first] + own[:, second]), variances, 0)
        variances[np.isnan(differences)] = np.nan
        states, spent = np.full(len(first), UNDECIDED), np.zeros((1, len(first)))
        for number in range(1, len(self.shares)):
            shares, last = self.shares[: number + 1], self.shares[number] >= self.budget
            known = (states == UNDECIDED) & ~np.isnan(differences[number])
            varies = known & (variances[number] > 0)
            difference, variance = differences[number, varies], variances[number, varies]
            whole = variance_at(self.budget, shares, variances[: number + 1, varies])
            information = np.zeros(len(first))
            information[varies] = 1.0 if last else whole / variance
            spent = np.vstack([spent, _spent(information, spent[-1])])
            most = difference + HOPELESS * np.sqrt(variance - whole)
            score = _normal_score(difference / np.sqrt(variance), self.images)
            separated = _passes(score, variances[1 : number + 1, varies], spent[:, varies])
            states[varies] = np.select([separated, most < Z * np.sqrt(whole)], [SEPARATED, TIED], UNDECIDED)
            never_differ = known & (variances[number] == 0) & (differences[number] == 0)
            states[never_differ | (known & last & (states == UNDECIDED))] = TIED
        table = np.full((entrants, entrants), TIED)
        table[first, second] = table[second, first] = states
        return table


def _spent(information: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return the probability that is spent by the end of a round, from the share of the information that it has."""
    rounded = np.where(information < 1, np.clip(np.floor(information / STEP) * STEP, STEP, MOST_EARLY), 1)
    return np.maximum(ALPHA * rounded, before + ALPHA * LEAST_SPENT).round(6)


def _passes(score: np.ndarray, variances: np.ndarray, spent: np.ndarray) -> np.ndarray:
    """Return whether each pair's |z| of the last round passes its bound.

    Parameters
    ----------
    score
        Shape (pairs,): |z|.
    variances
        Shape (rounds, pairs).
    spent
        Shape (1 + rounds, pairs): the spent probabilities, from 0 on.
    """
    # No bound is below that of a single round, and none above the one that leaves out what earlier rounds have passed.
    passes = score > -ndtri((spent[-1] - spent[-2]) / 2)
    close = ~passes & (score > Z)
    passes[close] = score[close] > _bounds(variances[:, close], spent[1:, close])
    return passes


def _bounds(variances: np.ndarray, spent: np.ndarray) -> np.ndarray:
    """Return the last round's bound for each pair, from variances and spent probabilities, (rounds, pairs) each."""
    # A lower ratio gives a larger bound, so that rounding down is safe.
    unknown = np.zeros_like(variances[1:])
    ratios = np.floor(np.divide(variances[1:], variances[:-1], out=unknown, where=variances[:-1] > 0) / STEP) * STEP
    rows = np.vstack([np.clip(ratios, STEP, 1 - STEP).round(6), spent]).T
    different, pair = np.unique(rows, axis=0, return_inverse=True)
    bounds = [_last_bound(tuple(row[: len(ratios)]), tuple(row[len(ratios) :])) for row in different]
    return np.array(bounds)[pair.ravel()]


def _normal_score(score: np.ndarray, images: int) -> np.ndarray:
    """Return the normal quantile that is as probable as a value of Student's t for a mean of so many images."""
    return -ndtri(stdtr(max(1, images - 1), -score))
