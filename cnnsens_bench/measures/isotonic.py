"""Recalibration of predicted probabilities: a monotone map to measured shares that no image has fitted for itself."""

import hashlib
from collections.abc import Sequence

import numpy as np

FEWEST = 20
"""The least number of measured rows that a map is fitted to; with fewer, predictions stay as they are."""


def recalibrate(
    predicted: np.ndarray, share: np.ndarray, n_trials: np.ndarray, image_ids: Sequence[str], folds: int = 5
) -> np.ndarray:
    """Return predicted probabilities after isotonic regression on measured shares, cross-fitted over images.

    Images are put into folds by a hash of their ids. The map of a fold is fitted to the images of the others, so that
    an image never calibrates itself, and it is linear between the fitted points. An image without trials has no part in
    any map, and is mapped too.

    Parameters
    ----------
    predicted
        Shape (rows,), in [0, 1].
    share
        Shape (rows,): the measured share of trials, in [0, 1]; of any value where there are no trials.
    n_trials
        Shape (rows,): the number of trials, which are the weights of the regression; 0 where there are none.
    image_ids
        The image of each row. An image may have several rows, such as those of several levels.
    folds
        The number of folds, at least 2.

    Returns
    -------
    np.ndarray
        Shape (rows,), in [0, 1]. Where fewer than `FEWEST` rows with trials are left for a map, `predicted` itself.

    Raises
    ------
    ValueError
        If there are fewer than 2 folds.

    Examples
    --------
    >>> predicted = np.linspace(0, 1, 200)
    >>> doubled = recalibrate(predicted / 2, predicted, np.ones(200), [str(i) for i in range(200)])
    >>> bool(np.abs(doubled - predicted).max() < 0.05)
    True
    """
    if folds < 2:
        raise ValueError("cross-fitting needs at least 2 folds")
    predicted, trials = np.asarray(predicted, float), np.asarray(n_trials, float)
    fold = np.array([_fold(image, folds) for image in image_ids])
    found = predicted.copy()
    for number in range(folds):
        fitted = (fold != number) & (trials > 0)
        if fitted.sum() >= FEWEST:
            points, values = _isotonic(predicted[fitted], np.asarray(share, float)[fitted], trials[fitted])
            here = fold == number
            found[here] = np.interp(predicted[here], points, values)
    return found


def _fold(image: str, folds: int) -> int:
    return int.from_bytes(hashlib.blake2b(image.encode(), digest_size=8).digest(), "little") % folds


def _isotonic(predicted: np.ndarray, share: np.ndarray, trials: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct predictions, ascending, and the fitted share at each."""
    from scipy.optimize import isotonic_regression  # imported here because most of the program does without it

    points, position = np.unique(predicted, return_inverse=True)
    weights = np.bincount(position, trials)
    means = np.bincount(position, trials * share) / weights
    return points, np.clip(isotonic_regression(means, weights=weights).x, 0, 1)
