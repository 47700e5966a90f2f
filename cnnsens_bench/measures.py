"""Measures of a set of predictions: arrays in, numbers out.

The views of the store compute the same in SQL; this is for what is not in the database, and what the views are
tested against. Register your own with `@measure("name")`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from cnnsens_bench.registry import Registry

Z = float(norm.ppf(0.975))

measures: Registry[Callable[..., float]] = Registry("measure")
measure = measures.register


@dataclass(frozen=True)
class Estimate:
    """A share with its 95 % interval, of `n_images` images with at most `n_trials` trials each."""

    value: float
    low: float
    high: float
    n_images: int
    n_trials: int


def clustered_share(image: np.ndarray, hit: np.ndarray) -> Estimate:
    """The mean over images of each image's share of hits, with an interval that knows trials are nested in images.

    `image` (N,) ids, `hit` (N,) bool, one per (image, trial). Wilson's score interval for an effective sample size
    of value·(1 − value)/v, where v is the variance of the mean of the images' shares (Kish's design effect; Korn &
    Graubard 1998), at least 1 and at most N; the number of images where v is 0.
    """
    per_image = pd.Series(np.asarray(hit, float)).groupby(np.asarray(image)).agg(["mean", "count"])
    shares = per_image["mean"].to_numpy()
    value, n_images = float(shares.mean()), len(shares)
    variance = float(shares.var(ddof=1)) / n_images if n_images > 1 else 0.0
    size = float(n_images)
    if variance > 0 and 0 < value < 1:
        size = float(np.clip(value * (1 - value) / variance, 1, len(np.asarray(hit))))
    centre = (value + Z**2 / (2 * size)) / (1 + Z**2 / size)
    half = Z * np.sqrt(value * (1 - value) / size + Z**2 / (4 * size**2)) / (1 + Z**2 / size)
    return Estimate(value, max(0.0, centre - half), min(1.0, centre + half), n_images, int(per_image["count"].max()))


def accuracy(image: np.ndarray, label: np.ndarray, prediction: np.ndarray) -> Estimate:
    """Share of (image, trial) whose predicted label is the true one."""
    return clustered_share(image, np.asarray(label) == np.asarray(prediction))


def label_change(image: np.ndarray, prediction: np.ndarray, reference: np.ndarray) -> Estimate:
    """p_Δ: share of (image, trial) whose predicted label differs from `reference`, the undegraded image's."""
    return clustered_share(image, np.asarray(prediction) != np.asarray(reference))


@measure("top5")
def top5(true_rank: np.ndarray) -> float:
    """Share whose true label is among the five most probable; `true_rank` counts from 1."""
    return float(np.mean(np.asarray(true_rank) <= 5))


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
def ece(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error over bins of equal width (Guo et al. 2017, equation 3)."""
    confidence, correct = np.asarray(confidence, float), np.asarray(correct, float)
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))
