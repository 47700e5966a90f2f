"""The probability that one of several rivals beats the reference class, from normal margins.

The arrays are small, one row for each image, so this is NumPy and SciPy on the CPU.
"""

import functools
import itertools

import numpy as np

NODES = 20
"""Nodes of the Gauss-Legendre rule in each dimension."""
FURTHEST = 37.0
"""A quantile beyond which the normal distribution is 0 or 1 in double precision."""
SMALLEST = 1e-300
LEAST_DEVIATION = 1e-4
"""The least deviation of a margin, relative to its own, that the margins before it leave open."""
SIGMOID = (8 / np.pi) ** 0.5
"""The factor by which the logistic function comes closest to Φ near 0: both then have one slope there."""


def any_negative(mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Return the probability that at least one of some normal values is negative.

    It is 1 less the probability of an orthant, which is integrated over the unit cube by a product of Gauss-Legendre
    rules (the transformation of Genz 1992). The error is below 1e-4 unless correlations are close to 1, and then below
    a few thousandths.

    Parameters
    ----------
    mean
        (N, R), the means of R values.
    covariance
        (N, R, R). It may be singular. A value without variance counts by the sign of its mean.

    Returns
    -------
    np.ndarray
        (N,), in [0, 1].

    Examples
    --------
    >>> independent = any_negative(np.zeros((1, 2)), np.eye(2)[None])
    >>> round(float(independent[0]), 9)
    0.75
    """
    from scipy.special import ndtr, ndtri  # imported here because a sweep without predictors does without it

    z, factor = _ordered(*_standardised(mean, covariance))
    count = z.shape[1]
    nodes, weights = _cube(count - 1)
    inside = np.broadcast_to(ndtr(z[:, 0])[:, None], (len(z), len(weights)))
    product, seen = inside, []
    for j in range(1, count):
        seen.append(ndtri(np.maximum(nodes[:, j - 1] * inside, SMALLEST)))
        known = sum(factor[:, j, k, None] * value for k, value in enumerate(seen))
        inside = ndtr(np.clip((z[:, j, None] - known) / factor[:, j, j, None], -FURTHEST, FURTHEST))
        product = product * inside
    return np.clip(1 - (product * weights).sum(1), 0, 1)


def any_negative_sigmoid(mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Return an approximation of `any_negative` in closed form, which uses the variances alone.

    This is the multivariate sigmoid of Han, Srinivas & Lakkaraju (UAI 2024), 1 − 1 / (1 + Σ exp(−c·m/s)) for margins of
    mean m and deviation s, with c = `SIGMOID`. The parameters and the result are those of `any_negative`.

    Examples
    --------
    >>> any_negative_sigmoid(np.zeros((1, 1)), np.ones((1, 1, 1)))
    array([0.5])
    """
    z, _ = _standardised(mean, covariance)
    return 1 - 1 / (1 + np.exp(-SIGMOID * z).sum(1))


def _standardised(mean: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return means in standard deviations, bounded, and the correlations."""
    deviation = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0))
    positive = deviation > 0
    divisor = np.where(positive, deviation, 1)
    certain = np.where(mean < 0, -FURTHEST, FURTHEST)
    z = np.where(positive, np.clip(mean / divisor, -FURTHEST, FURTHEST), certain)
    return z, covariance / (divisor[:, :, None] * divisor[:, None, :])


def _ordered(z: np.ndarray, correlation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return z in ascending order, and the Cholesky factor of the correlations in that order, also if singular."""
    order = np.argsort(z, axis=1, kind="stable")
    z = np.take_along_axis(z, order, 1)
    rows = np.take_along_axis(correlation, order[:, :, None], 1)
    correlation = np.take_along_axis(rows, order[:, None, :], 2)
    factor = np.zeros_like(correlation)
    for j in range(z.shape[1]):
        for k in range(j):
            known = (factor[:, j, :k] * factor[:, k, :k]).sum(1)
            factor[:, j, k] = np.clip((correlation[:, j, k] - known) / factor[:, k, k], -1, 1)
        factor[:, j, j] = np.sqrt(np.maximum(1 - (factor[:, j, :j] ** 2).sum(1), LEAST_DEVIATION**2))
    return z, factor


@functools.cache
def _cube(dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes (M, dimensions) and weights (M,) of the product rule on the unit cube."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    every = np.array(list(itertools.product(range(NODES), repeat=dimensions)), dtype=int)
    return (nodes[every] + 1) / 2, (weights[every] / 2).prod(axis=1)
