"""Tests of whether one of two entrants is worse, paired by image, and the correction of p-values for their number."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.signal import fftconvolve
from scipy.special import bdtr, ndtr
from scipy.stats import binom

ALPHA = 0.05
"""The probability, corrected for the number of tests, with which entrants that do not differ are told apart at most."""
MOST_STEPS = 1_000_000
"""The largest number of steps, over all images, on which `exchange_p` computes a distribution."""


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values for their number by Holm's (1979) step-down procedure.

    Parameters
    ----------
    p
        The p-values, in any order.

    Returns
    -------
    list of float
        The corrected p-values, in the same order.

    Examples
    --------
    >>> holm([0.5, 0.125])
    [0.5, 0.25]
    """
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(np.asarray(p, float)[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(stepped, 1)
    return corrected.tolist()


def sign_p(wins: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Return the exact two-sided p-values of sign tests.

    Parameters
    ----------
    wins, losses
        Shape (tests,) each: the numbers of images on which the one and the other entrant does better.

    Examples
    --------
    >>> sign_p(np.array([0, 2, 0]), np.array([5, 2, 0])).round(6).tolist()
    [0.0625, 1.0, 1.0]
    """
    return np.minimum(1, 2 * bdtr(np.minimum(wins, losses), wins + losses, 0.5))


def margin_p(gains: np.ndarray, margin: float) -> float:
    """Return the p-value of the hypothesis that the mean gain of all images is at least -margin.

    This is a score test: the mean gain's distance from -margin, divided by the standard error that the gains have about
    -margin. As in Agresti & Min's (2005) interval, one extra image counts +1/2 and -1/2, and another one counts 0, so
    that gains that are all 0 have a variance. Small values say that the mean gain is below -margin; 1 minus the result
    is the p-value of the opposite hypothesis.

    Parameters
    ----------
    gains
        Shape (images,), in [-1, 1]: how much better the second entrant does on each image than the first.
    margin
        In [0, 1].

    Examples
    --------
    >>> bool(margin_p(np.repeat([-1.0, 0.0], [60, 940]), margin=0.01) < 0.001)
    True
    """
    size = len(gains) + 2
    centre = float(np.sum(gains)) / size
    squares = (float(np.sum(np.square(gains))) + 1) / size
    variance = squares + 2 * margin * centre + margin**2
    return float(ndtr((centre + margin) / math.sqrt(variance / size)))


def exchange_p(gains: np.ndarray, trials: np.ndarray) -> float:
    """Return the exact p-value of the hypothesis that on each image the two entrants could be exchanged.

    Then each image's gain has either sign with probability 1/2, which gives the distribution of the sum of gains. The
    p-value is the probability of a sum that is as low as the one at hand. With one trial of each image this is the
    one-sided test of McNemar. Where images have unlike numbers of trials, gains may be rounded to steps, of which
    `MOST_STEPS` are taken.

    Parameters
    ----------
    gains
        Shape (images,), in [-1, 1]: how much better the second entrant does on each image than the first.
    trials
        Shape (images,): the number of trials of each image.

    Examples
    --------
    >>> round(exchange_p(np.array([-1.0, -1.0, -1.0, 0.0]), np.ones(4, int)), 6)
    0.125
    """
    unit = min(math.lcm(*np.unique(trials).tolist()), max(int(np.max(trials)), MOST_STEPS // len(gains)))
    steps = np.rint(np.asarray(gains, float) * unit).astype(int)
    sizes, counts = np.unique(np.abs(steps[steps != 0]), return_counts=True)
    distribution = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        own = np.zeros(size * count + 1)
        own[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        distribution = own if len(distribution) == 1 else fftconvolve(distribution, own)
    # A sum of ±steps is as low as that at hand if the steps with a plus sum to at most those that are positive here.
    return float(np.clip(distribution[: steps[steps > 0].sum() + 1].sum(), 0, 1))


def worse_p(gains: np.ndarray, trials: np.ndarray, margin: float) -> float:
    """Return the p-value of the hypothesis that the second entrant is worse by at most a margin.

    It is the larger of those of `margin_p` and `exchange_p`, since an entrant that is worse by more than a margin is
    also worse at all: the first is approximate, and the second holds for any number of images.

    Parameters
    ----------
    gains, trials
        As in `exchange_p`.
    margin
        In [0, 1].
    """
    return max(margin_p(gains, margin), exchange_p(gains, trials))
