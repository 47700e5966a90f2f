"""Shares and differences of shares with 95 % intervals that respect that trials are nested in images."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtri

Z = float(ndtri(0.975))
"""The 97.5 % quantile of the standard normal distribution."""


@dataclass(frozen=True)
class IntervalEstimate:
    """A share, or a difference of two shares, with its 95 % interval.

    Parameters
    ----------
    value, low, high
        The estimate and the bounds of its interval: in [0, 1] for a share, in [-1, 1] for a difference.
    n_images
        The number of images.
    n_trials
        The largest number of trials of one image.
    """

    value: float
    low: float
    high: float
    n_images: int
    n_trials: int


def clustered_interval(per_image_means: np.ndarray, n_trials: int) -> IntervalEstimate:
    """Return the mean of the images' shares, with an interval that respects that trials are nested in images.

    The interval is Wilson's score interval for an effective sample size of value·(1 − value)/v, where v is the
    variance of the mean (Kish's design effect; Korn & Graubard 1998). The size is at least 1 and at most
    images·trials; where v is 0 it is the number of images.

    Parameters
    ----------
    per_image_means
        Shape (images,), in [0, 1]: each image's share over its trials.
    n_trials
        The largest number of trials of one image.

    Returns
    -------
    IntervalEstimate
        The mean share and its 95 % interval.

    Raises
    ------
    ValueError
        Where there are no images.

    Examples
    --------
    >>> estimate = clustered_interval(np.array([1.0, 1.0, 0.5, 0.0]), n_trials=2)
    >>> estimate.value, round(estimate.low, 2), round(estimate.high, 2)
    (0.625, 0.22, 0.91)
    """
    means = np.asarray(per_image_means, float)
    if not len(means):
        raise ValueError("there is no share of no images")
    value, n_images = float(means.mean()), len(means)
    variance = float(means.var(ddof=1)) / n_images if n_images > 1 else 0.0
    size = float(n_images)
    # A variance below 1e-24 is rounding: the mean of equal thirds is not exactly a third.
    if variance >= 1e-24 and 0 < value < 1:
        size = float(np.clip(value * (1 - value) / variance, 1, n_images * n_trials))
    low, high = map(float, wilson_bounds(value, size))
    return IntervalEstimate(value, low, high, n_images, n_trials)


def wilson_bounds(value: float | np.ndarray, size: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Wilson's 95 % score intervals of shares, for sample sizes that may be infinite.

    Examples
    --------
    >>> [round(float(bound), 3) for bound in wilson_bounds(0.5, 100)]
    [0.404, 0.596]
    """
    centre = (value + Z**2 / (2 * size)) / (1 + Z**2 / size)
    half = Z * np.sqrt(value * (1 - value) / size + Z**2 / (4 * size**2)) / (1 + Z**2 / size)
    # At 0 and 1 the bound equals the value; rounding must not move the bound past it.
    low, high = np.minimum(value, centre - half), np.maximum(value, centre + half)
    return np.maximum(0.0, low), np.minimum(1.0, high)


def clustered_share(image: np.ndarray, hit: np.ndarray) -> IntervalEstimate:
    """Return the share of outcomes that are true, averaged per image first, with `clustered_interval`'s interval.

    Parameters
    ----------
    image
        Shape (N,): the image id of each (image, trial).
    hit
        Shape (N,), bool: the outcome of each (image, trial).

    Returns
    -------
    IntervalEstimate
        The share and its 95 % interval.
    """
    per_image = pd.Series(np.asarray(hit, float)).groupby(np.asarray(image)).agg(["mean", "count"])
    return clustered_interval(per_image["mean"].to_numpy(), int(per_image["count"].max()) if len(per_image) else 0)


def accuracy_gain(image: np.ndarray, hit: np.ndarray, reference_hit: np.ndarray) -> IntervalEstimate:
    """Return the mean of `hit` minus the mean of `reference_hit`, paired by (image, trial).

    The interval is Agresti & Min's (2005) for matched pairs, of the images' mean differences: one extra image counts
    +1/2 and -1/2, and another one counts 0.

    Parameters
    ----------
    image
        Shape (N,): the image id of each (image, trial).
    hit, reference_hit
        Shape (N,) each, bool or share: the two outcomes of the same (image, trial).

    Returns
    -------
    IntervalEstimate
        The difference in [-1, 1] and its 95 % interval.

    Raises
    ------
    ValueError
        Where there are no images.
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
    return IntervalEstimate(value, float(low), float(high), len(means), int(per_image["count"].max()))


def bootstrap(n: int, resamples: int, seed: int = 0, at_once: int = 4_000_000) -> Iterator[np.ndarray]:
    """Draw bootstrap resamples of `n` images, in blocks that bound the memory.

    Parameters
    ----------
    n
        The number of images.
    resamples
        The number of resamples over all blocks.
    seed
        The same seed gives the same draws, whatever the size of the blocks.
    at_once
        About the largest number of entries of one block.

    Yields
    ------
    np.ndarray
        Shape (resamples of this block, n): how often each image is in each resample.

    Examples
    --------
    >>> [block.sum(axis=1).tolist() for block in bootstrap(5, resamples=3)]
    [[5, 5, 5]]
    """
    rng, step = np.random.default_rng(seed), max(1, at_once // n)
    for start in range(0, resamples, step):
        yield rng.multinomial(n, np.full(n, 1 / n), min(step, resamples - start))
