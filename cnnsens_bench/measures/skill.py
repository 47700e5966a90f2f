"""How well a score per image predicts an event, such as the change of its label: AUROC and Brier score."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cnnsens_bench.measures.intervals import bootstrap


def auroc(score: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve: the chance that a positive has a higher score than a negative.

    Ties count half.

    Parameters
    ----------
    score
        Shape (N,).
    positive, negative
        Shape (…, N) each: how many positives and negatives each score stands for.

    Returns
    -------
    np.ndarray
        Shape (…), in [0, 1]; NaN where there are no positives or no negatives.

    Examples
    --------
    >>> auroc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0])).item()
    0.875
    """
    score = np.asarray(score, float)
    order = np.argsort(score, kind="stable")
    positive, negative = (np.asarray(counts, float)[..., order] for counts in (positive, negative))
    _, first = np.unique(score[order], return_index=True)
    positive, negative = (np.add.reduceat(counts, first, axis=-1) for counts in (positive, negative))
    below = np.cumsum(negative, axis=-1) - negative / 2
    pairs = positive.sum(-1) * negative.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (positive * below).sum(-1) / pairs


@dataclass(frozen=True)
class PredictionSkill:
    """How well a score predicts an event, with 95 % intervals by bootstrap over images.

    Parameters
    ----------
    auroc, low, high
        The area under the ROC curve and its interval.
    gain, gain_low, gain_high
        The area minus that of the baseline, paired, and its interval.
    """

    auroc: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float


def prediction_skill(
    scores: Mapping[str, np.ndarray], baseline: str, share: np.ndarray, n_trials: np.ndarray, resamples: int = 1000
) -> dict[str, PredictionSkill]:
    """Compare how well each score predicts an event with how well a baseline predicts it.

    The trials of an image stay together in the bootstrap. Its draws are fixed, and all scores share them. With very
    many images there are fewer resamples, because fewer are enough.

    Parameters
    ----------
    scores
        Each of shape (images,), higher where the event is more likely.
    baseline
        The name of the score that the others are compared with.
    share
        Shape (images,): the share of each image's trials that had the event.
    n_trials
        Shape (images,): the number of trials of each image.
    resamples
        The largest number of bootstrap resamples.

    Returns
    -------
    dict
        The skill of each score, by its name.
    """
    share, trials = np.asarray(share, float), np.asarray(n_trials, float)
    n = len(share)
    draws = bootstrap(n, int(np.clip(20_000_000 // n, 100, resamples)))
    areas: dict[str, list[np.ndarray]] = {name: [] for name in scores}
    for weights in itertools.chain([np.ones((1, n))], draws):
        positive, negative = weights * share * trials, weights * (1 - share) * trials
        for name, score in scores.items():
            areas[name].append(auroc(score, positive, negative))
    whole = {name: np.concatenate(blocks) for name, blocks in areas.items()}
    return {name: _skill(area, whole[baseline]) for name, area in whole.items()}


def _skill(own: np.ndarray, baseline: np.ndarray) -> PredictionSkill:
    """Summarise areas of which the first is over all images and each other one over a resample."""
    if not np.isfinite(own[0]):
        return PredictionSkill(*[float("nan")] * 6)
    low, high = np.nanquantile(own[1:], [0.025, 0.975])
    gain_low, gain_high = np.nanquantile((own - baseline)[1:], [0.025, 0.975])
    return PredictionSkill(*(float(v) for v in (own[0], low, high, own[0] - baseline[0], gain_low, gain_high)))


def brier_score(probability: np.ndarray, share: np.ndarray, n_trials: np.ndarray) -> float:
    """Return the mean squared error of predicted probabilities over all trials.

    Parameters
    ----------
    probability
        Shape (images,), in [0, 1]: the predicted probability of the event.
    share
        Shape (images,): the share of each image's trials that had the event.
    n_trials
        Shape (images,): the number of trials of each image.

    Returns
    -------
    float
        The Brier score, in [0, 1]; 0 is best.

    Examples
    --------
    >>> brier_score(np.array([1.0, 0.0]), share=np.array([1.0, 0.5]), n_trials=np.array([2, 2]))
    0.25
    """
    probability, share, trials = (np.asarray(a, float) for a in (probability, share, n_trials))
    errors = share * (1 - probability) ** 2 + (1 - share) * probability**2
    return float(np.average(errors, weights=trials))
