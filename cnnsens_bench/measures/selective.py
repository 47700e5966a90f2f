"""Selective prediction: how many errors are left where the least certain predictions are refused ("I don't know").

The SQL view `confidence_selection` computes the area and the accuracy at 90 % coverage too; a test holds them equal.
"""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cnnsens_bench.measures.intervals import bootstrap

ROUNDING = 1e-9
"""What a share may miss another one by and still count as equal."""


class SelectiveResult(NamedTuple):
    """What is left where the least certain predictions are refused, for one or several sets of weights.

    Parameters
    ----------
    aurc
        Shape (…): the area under the risk–coverage curve, in [0, 1]; lower is better.
    accuracy
        Shape (…): the accuracy of the most certain predictions, at the coverage that was asked for.
    """

    aurc: np.ndarray
    accuracy: np.ndarray


class _Ties:
    """Predictions by falling score, those of equal score together; arrays have the shape (…, distinct scores)."""

    def __init__(self, score: np.ndarray, wrong: np.ndarray, weights: np.ndarray) -> None:
        score, weights = np.asarray(score, float), np.asarray(weights, float)
        order = np.argsort(-score, kind="stable")
        ordered, weights = score[order], weights[..., order]
        kept = np.cumsum(weights, axis=-1)
        inverse = np.divide(weights, kept, out=np.zeros_like(weights), where=kept > 0)
        errors = weights * np.asarray(wrong, float)[order]
        first = np.flatnonzero(np.diff(ordered, prepend=np.inf))
        self.scores = ordered[first]
        self.weights, self.errors, self.inverse = weights, errors, inverse
        if len(first) < len(ordered):
            summed = (np.add.reduceat(values, first, axis=-1) for values in (weights, errors, inverse))
            self.weights, self.errors, self.inverse = summed
        self.ends = np.cumsum(self.weights, axis=-1)
        self.errors_before = np.cumsum(self.errors, axis=-1) - self.errors
        self.rates = np.divide(self.errors, self.weights, out=np.zeros_like(self.errors), where=self.weights > 0)
        self.total = self.ends[..., -1]

    def aurc(self) -> np.ndarray:
        """Return the areas, shape (…)."""
        before = self.ends - self.weights
        areas = self.errors + (self.errors_before - self.rates * before) * self.inverse
        return areas.sum(-1) / self.total

    def reached(self, coverages: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the tie in which each coverage is reached, and the risk there: shape (…, coverages) each."""
        wanted = self.total[..., None] * coverages
        ends, before = self.ends[..., None, :], (self.ends - self.weights)[..., None, :]
        at = (ends < wanted[..., None] - ROUNDING).sum(-1)
        taken = [
            np.take_along_axis(np.broadcast_to(one, ends.shape), at[..., None], -1)[..., 0]
            for one in (self.errors_before[..., None, :], self.rates[..., None, :], before)
        ]
        errors, rates, starts = taken
        return at, (errors + rates * (wanted - starts)) / wanted


def selection(score: np.ndarray, wrong: np.ndarray, weights: np.ndarray, coverage: float = 0.9) -> SelectiveResult:
    """Return the area under the risk–coverage curve, and the accuracy of the most certain predictions.

    The area (AURC, Geifman & El-Yaniv 2017) is the mean, over the predictions, of the error rate among those that are
    at least as certain. Predictions of equal score count as in any order, on average.

    Parameters
    ----------
    score
        Shape (N,): how certain each prediction is, higher where it is more certain.
    wrong
        Shape (N,), bool: whether it is wrong.
    weights
        Shape (…, N): what each prediction counts.
    coverage
        The share of the predictions that is kept, in (0, 1].

    Returns
    -------
    SelectiveResult
        The area and the accuracy, shape (…) each.

    Examples
    --------
    >>> found = selection(np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 0, 1, 1]), np.ones(4), coverage=0.75)
    >>> round(float(found.aurc), 4), round(float(found.accuracy), 4)
    (0.2083, 0.6667)
    """
    ties = _Ties(score, wrong, weights)
    return SelectiveResult(ties.aurc(), 1 - ties.reached(np.array([coverage]))[1][..., 0])


def risk_coverage_curve(
    score: np.ndarray, wrong: np.ndarray, weights: np.ndarray, coverages: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the error rate among the most certain predictions, for each share of them that is kept.

    Parameters
    ----------
    score, wrong, weights
        Shape (N,) each, as for `selection`.
    coverages
        Shape (C,), in (0, 1].

    Returns
    -------
    risk : np.ndarray
        Shape (C,), in [0, 1].
    threshold : np.ndarray
        Shape (C,): the lowest score that is kept.

    Examples
    --------
    >>> risk, threshold = risk_coverage_curve(
    ...     np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 0, 1, 1]), np.ones(4), np.array([0.5, 1])
    ... )
    >>> risk.tolist(), threshold.tolist()
    ([0.0, 0.5], [0.8, 0.6])
    """
    ties = _Ties(score, wrong, weights)
    at, risk = ties.reached(np.asarray(coverages, float))
    return risk, ties.scores[at]


def accuracy_threshold(
    score: np.ndarray, wrong: np.ndarray, weights: np.ndarray, accuracy: float
) -> tuple[float, float]:
    """Return the lowest score that predictions must have so that those kept reach an accuracy, and how many are kept.

    Parameters
    ----------
    score, wrong, weights
        Shape (N,) each, as for `selection`.
    accuracy
        The accuracy that is wanted, in (0, 1].

    Returns
    -------
    tuple of float
        The threshold, and the share of the predictions with at least that score; NaN and 0 where no threshold will do.

    Examples
    --------
    >>> accuracy_threshold(np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 0, 1, 1]), np.ones(4), 0.6)
    (0.7, 0.75)
    """
    ties = _Ties(score, wrong, weights)
    errors = ties.errors_before + ties.errors
    enough = np.flatnonzero(ties.ends - errors >= (accuracy - ROUNDING) * ties.ends)
    if not len(enough):
        return float("nan"), 0.0
    return float(ties.scores[enough[-1]]), float(ties.ends[enough[-1]] / ties.total)


@dataclass(frozen=True)
class SelectiveSkill:
    """How well a score tells right predictions from wrong ones, with 95 % intervals by bootstrap over images.

    Parameters
    ----------
    aurc, low, high
        The area under the risk–coverage curve and its interval.
    gain, gain_low, gain_high
        The area of the baseline minus this one, paired, and its interval: above 0 where the score does better.
    accuracy, accuracy_low, accuracy_high
        The accuracy of the most certain predictions and its interval.
    """

    aurc: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float


def selective_skill(
    score: np.ndarray,
    baseline: np.ndarray,
    image: np.ndarray,
    wrong: np.ndarray,
    coverage: float = 0.9,
    resamples: int = 200,
) -> SelectiveSkill:
    """Say how well a score tells right predictions from wrong ones, and compare it with a baseline.

    Parameters
    ----------
    score, baseline
        Shape (N,) each, as for `selection`.
    image
        Shape (N,): the image of each prediction. Each image counts once, whatever the number of its trials.
    wrong
        Shape (N,), bool.
    coverage
        The share of the predictions that is kept, in (0, 1].
    resamples
        The largest number of bootstrap resamples; many predictions have fewer. With 0 there are no intervals.

    Returns
    -------
    SelectiveSkill
        The bounds are NaN where there are no resamples.
    """
    number, weights = image_weights(image)
    n = int(number.max()) + 1
    count = int(np.clip(40_000_000 // len(number), min(50, resamples), resamples))
    blocks = bootstrap(n, count, at_once=max(n, 1_000_000 * n // len(number)))
    # Of equal scores those that count less come first, so that the order of the predictions does not matter.
    order = np.argsort(weights, kind="stable")
    number, weights, wrong = number[order], weights[order], np.asarray(wrong)[order]
    scores = [score[order]] if score is baseline else [score[order], baseline[order]]
    parts = [
        [selection(one, wrong, weights * draw[:, number], coverage) for one in scores]
        for draw in itertools.chain([np.ones((1, n))], blocks)
    ]
    found = [SelectiveResult(*map(np.concatenate, zip(*samples, strict=True))) for samples in zip(*parts, strict=True)]
    own, others = found[0], found[-1]
    gain = others.aurc - own.aurc
    return SelectiveSkill(*_with_bounds(own.aurc), *_with_bounds(gain), *_with_bounds(own.accuracy))


def image_weights(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each prediction's image, counted from 0, and 1 divided by how many predictions it has.

    Examples
    --------
    >>> number, weights = image_weights(np.array(["b", "a", "b"]))
    >>> number.tolist(), weights.tolist()
    ([1, 0, 1], [0.5, 1.0, 0.5])
    """
    _, number, counts = np.unique(np.asarray(image), return_inverse=True, return_counts=True)
    return number, 1 / counts[number]


def _with_bounds(samples: np.ndarray) -> tuple[float, float, float]:
    """Return the first sample, and the 95 % percentiles of the others."""
    if len(samples) == 1:
        return float(samples[0]), float("nan"), float("nan")
    low, high = np.quantile(samples[1:], [0.025, 0.975])
    return float(samples[0]), float(min(low, samples[0])), float(max(high, samples[0]))
