"""Measures of a set of predictions: arrays in, numbers out.

The views of the store compute the same in SQL; this is for what is not in the database, and what the views are
tested against. Register your own with `@measure("name")`.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from cnnsens_bench.utils.registry import Registry

Z = float(norm.ppf(0.975))


@dataclass(frozen=True)
class Estimate:
    """A share, or a difference of two, with its 95 % interval, of `n_images` images with at most `n_trials` trials."""

    value: float
    low: float
    high: float
    n_images: int
    n_trials: int


measures: Registry[Callable[..., float | Estimate]] = Registry("measure")
measure = measures.register


def clustered_interval(per_image_means: np.ndarray, n_trials: int) -> Estimate:
    """The mean of the images' shares, with an interval that knows trials are nested in images.

    `per_image_means` (images,) in [0, 1]; `n_trials`: the most trials of one image. Wilson's score interval for an
    effective sample size of value·(1 − value)/v, where v is the variance of that mean (Kish's design effect; Korn &
    Graubard 1998), at least 1 and at most images·trials; the number of images where v is 0. Raises `ValueError` when
    there are no images.
    """
    means = np.asarray(per_image_means, float)
    if not len(means):
        raise ValueError("there is no share of no images")
    value, n_images = float(means.mean()), len(means)
    variance = float(means.var(ddof=1)) / n_images if n_images > 1 else 0.0
    size = float(n_images)
    # Below 1e-24 it is rounding: equal thirds do not average to a third.
    if variance >= 1e-24 and 0 < value < 1:
        size = float(np.clip(value * (1 - value) / variance, 1, n_images * n_trials))
    centre = (value + Z**2 / (2 * size)) / (1 + Z**2 / size)
    half = Z * np.sqrt(value * (1 - value) / size + Z**2 / (4 * size**2)) / (1 + Z**2 / size)
    # At 0 and 1 the bound is the value, and rounding must not put it beside.
    low, high = min(value, float(centre - half)), max(value, float(centre + half))
    return Estimate(value, max(0.0, low), min(1.0, high), n_images, n_trials)


def clustered_share(image: np.ndarray, hit: np.ndarray) -> Estimate:
    """`clustered_interval` of raw outcomes: `image` (N,) ids, `hit` (N,) bool, one per (image, trial)."""
    per_image = pd.Series(np.asarray(hit, float)).groupby(np.asarray(image)).agg(["mean", "count"])
    return clustered_interval(per_image["mean"].to_numpy(), int(per_image["count"].max()) if len(per_image) else 0)


@measure("accuracy")
def accuracy(image: np.ndarray, label: np.ndarray, prediction: np.ndarray) -> Estimate:
    """Share of (image, trial) whose predicted label is the true one."""
    return clustered_share(image, np.asarray(label) == np.asarray(prediction))


@measure("label_change")
def label_change(image: np.ndarray, prediction: np.ndarray, reference: np.ndarray) -> Estimate:
    """p_Δ: share of (image, trial) whose predicted label differs from `reference`, the undegraded image's."""
    return clustered_share(image, np.asarray(prediction) != np.asarray(reference))


def accuracy_gain(image: np.ndarray, hit: np.ndarray, reference_hit: np.ndarray) -> Estimate:
    """The mean of `hit` less that of `reference_hit`, both (N,) bool and of the same (image, trial): in [-1, 1].

    Agresti & Min's (2005) interval for matched pairs, of the images' mean differences: computed with one image more
    that counts +1/2 and -1/2, and one of 0. Raises `ValueError` when there are no images.
    """
    difference = np.asarray(hit, float) - np.asarray(reference_hit, float)
    per_image = pd.Series(difference).groupby(np.asarray(image)).agg(["mean", "count"])
    if per_image.empty:
        raise ValueError("there is no gain on no images")
    means, size = per_image["mean"].to_numpy(), len(per_image) + 2
    centre = means.sum() / size
    half = Z * np.sqrt(((means**2).sum() + 1) / size - centre**2) / np.sqrt(size)
    value = float(means.mean())
    low, high = max(-1.0, min(value, centre - half)), min(1.0, max(value, centre + half))
    return Estimate(value, float(low), float(high), len(means), int(per_image["count"].max()))


def top_k(true_rank: np.ndarray, k: int) -> float:
    """Share whose true label is among the `k` most probable; `true_rank` counts from 1."""
    return float(np.mean(np.asarray(true_rank) <= k))


@measure("top5")
def top5(true_rank: np.ndarray) -> float:
    """`top_k` of five."""
    return top_k(true_rank, 5)


@measure("mean_per_class_accuracy")
def mean_per_class_accuracy(label: np.ndarray, prediction: np.ndarray) -> float:
    """The mean over classes of each class's accuracy: rare classes count as much as common ones."""
    right = pd.Series(np.asarray(label) == np.asarray(prediction))
    return float(right.groupby(np.asarray(label)).mean().mean())


@measure("nll")
def nll(true_probability: np.ndarray) -> float:
    """Mean negative log-likelihood in nats; a probability of 0 counts as the smallest float32."""
    floor = np.finfo(np.float32).tiny
    return float(-np.log(np.maximum(np.asarray(true_probability, float), floor)).mean())


@measure("ece")
def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Over `bins` bins of equal width, each open below (Guo et al. 2017, equation 3). `confidence` (N,) in [0, 1]."""
    confidence, correct = np.asarray(confidence, float), np.asarray(correct, float)
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


ece = expected_calibration_error


def ratios_by_degradation(own: np.ndarray, reference: np.ndarray, degradation: np.ndarray) -> np.ndarray:
    """For each degradation, the sum of `own` over its levels ÷ that of `reference`.

    `own`, `reference` (…, conditions): NaN where there is none, and a condition that one of them lacks counts for
    neither; `degradation` (conditions,): names, of which `none` is left out. Gives (…, degradations), in the order of
    their first condition: NaN for one that has no condition of both, or whose reference sums to 0.
    """
    own, reference = np.asarray(own, float), np.asarray(reference, float)
    both = ~(np.isnan(own) | np.isnan(reference))
    names, found = np.asarray(degradation), []
    for name in dict.fromkeys(names[names != "none"].tolist()):
        here = both & (names == name)
        mine, theirs = (np.where(here, values, 0).sum(-1) for values in (own, reference))
        # A millionth of an error more or less is rounding.
        found.append(np.divide(mine, theirs, out=np.full_like(mine, np.nan), where=theirs > 1e-6))
    return np.stack(found, axis=-1) if found else np.full((*own.shape[:-1], 0), np.nan)


def above_undegraded(error: np.ndarray, degradation: np.ndarray) -> np.ndarray:
    """`error` (…, conditions) less that of the condition `none`; NaN where there is no such condition."""
    error, still = np.asarray(error, float), np.flatnonzero(np.asarray(degradation) == "none")
    return error - error[..., still[:1]] if len(still) else np.full_like(error, np.nan)


@measure("mce")
def mce(error: np.ndarray, reference: np.ndarray, degradation: np.ndarray) -> float:
    """Mean corruption error (Hendrycks & Dietterich 2019): errors summed over levels ÷ the reference's, mean over
    degradations.

    `error`, `reference` (conditions,): error rates, NaN where there is none; `degradation` (conditions,): their names.
    1 is as good as the reference. Over degradations that both have, at levels that both have; a degradation without
    an error of the reference is left out; NaN when none is left.
    """
    return _mean(ratios_by_degradation(error, reference, degradation))


@measure("relative_mce")
def relative_mce(error: np.ndarray, reference: np.ndarray, degradation: np.ndarray) -> float:
    """`mce` of how far errors exceed the undegraded one, the condition `none`.

    A degradation under which the reference makes no more errors than undegraded is left out.
    """
    own, others = (above_undegraded(values, degradation) for values in (error, reference))
    return _mean(ratios_by_degradation(own, others, degradation))


@measure("mean_flip_rate")
def mean_flip_rate(change: np.ndarray, reference: np.ndarray, degradation: np.ndarray) -> float:
    """Mean flip rate (Hendrycks & Dietterich 2019): flip probability ÷ the reference's, mean over degradations.

    The flip probability of a degradation is p_Δ averaged over its levels: `change`, `reference` (conditions,), NaN
    where there is none. Levels and degradations count as in `mce`.
    """
    return _mean(ratios_by_degradation(change, reference, degradation))


def _mean(ratios: np.ndarray) -> float:
    known = ratios[~np.isnan(ratios)]
    return float(known.mean()) if len(known) else float("nan")


def bootstrap(n: int, resamples: int, seed: int = 0, at_once: int = 4_000_000) -> Iterator[np.ndarray]:
    """How often each of `n` images is in each of `resamples` resamples: blocks (some, n) of at most about `at_once`
    numbers. The same seed gives the same draws, however they are cut into blocks."""
    rng, step = np.random.default_rng(seed), max(1, at_once // n)
    for start in range(0, resamples, step):
        yield rng.multinomial(n, np.full(n, 1 / n), min(step, resamples - start))


def bootstrap_interval(
    function: Callable[..., float], image: np.ndarray, *columns: np.ndarray, resamples: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """`function(*columns)`, and the 95 % percentile interval of it by bootstrap over images.

    `image` (N,): ids; `columns` (N,) each: an image's rows stay together. Samples in which the function is NaN do not
    count; the bounds are NaN when it is so in all. Raises `ValueError` when there are no images.
    """
    ids, row_image = np.unique(np.asarray(image), return_inverse=True)
    if not len(ids):
        raise ValueError("there is no interval of no images")
    columns = tuple(np.asarray(column) for column in columns)
    found = []
    for block in bootstrap(len(ids), resamples, seed):
        for counts in block:
            rows = np.repeat(np.arange(len(row_image)), counts[row_image])
            found.append(function(*(column[rows] for column in columns)))
    known = np.asarray(found, float)[~np.isnan(np.asarray(found, float))]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    return float(function(*columns)), float(low), float(high)


def auroc(score: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Area under the ROC curve: the chance that a positive has a higher `score` than a negative, ties counting half.

    `score` (N,); `positive`, `negative` (…, N): how many of each every element stands for. Gives (…), NaN where there
    are none of one kind.
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
class Foretelling:
    """How well a score foretells an event, with 95 % intervals by bootstrap over images; `gain`: AUROC less that of the
    baseline, paired."""

    auroc: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float


def foretellings(
    scores: Mapping[str, np.ndarray], baseline: str, share: np.ndarray, n_trials: np.ndarray, resamples: int = 1000
) -> dict[str, Foretelling]:
    """Each of `scores` beside the one named `baseline`, all (images,) and higher for an event that is more likely.

    `share` (images,): of each image's `n_trials` (images,) trials that had the event. An image's trials stay together
    in the bootstrap, whose draws are fixed and shared by all scores; with very many images, which need fewer, there are
    fewer.
    """
    share, trials = np.asarray(share, float), np.asarray(n_trials, float)
    n = len(share)
    draws = bootstrap(n, int(np.clip(20_000_000 // n, 100, resamples)))
    areas: dict[str, list[np.ndarray]] = {name: [] for name in scores}
    for weights in itertools.chain([np.ones((1, n))], draws):
        positive, negative = weights * share * trials, weights * (1 - share) * trials
        for name, score in scores.items():
            areas[name].append(auroc(score, positive, negative))
    whole = {name: np.concatenate(parts) for name, parts in areas.items()}
    return {name: _foretelling(area, whole[baseline]) for name, area in whole.items()}


def _foretelling(own: np.ndarray, other: np.ndarray) -> Foretelling:
    """From areas of the images as they are, then of resamples."""
    if not np.isfinite(own[0]):
        return Foretelling(*[float("nan")] * 6)
    low, high = np.nanquantile(own[1:], [0.025, 0.975])
    gain_low, gain_high = np.nanquantile((own - other)[1:], [0.025, 0.975])
    return Foretelling(*(float(v) for v in (own[0], low, high, own[0] - other[0], gain_low, gain_high)))


def brier_score(probability: np.ndarray, share: np.ndarray, n_trials: np.ndarray) -> float:
    """Mean squared error of `probability` (images,) over all trials, `share` of whose `n_trials` had the event."""
    probability, share, trials = (np.asarray(a, float) for a in (probability, share, n_trials))
    errors = share * (1 - probability) ** 2 + (1 - share) * probability**2
    return float(np.average(errors, weights=trials))
