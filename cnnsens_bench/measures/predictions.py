"""Measures of predictions and of error rates: what each means, for arrays of any origin."""

import numpy as np

from cnnsens_bench.measures.intervals import IntervalEstimate, clustered_share


def accuracy(image: np.ndarray, label: np.ndarray, prediction: np.ndarray) -> IntervalEstimate:
    """Return the share of (image, trial) whose predicted label is the true one.

    Parameters
    ----------
    image, label, prediction
        Shape (N,) each, one entry per (image, trial): the image's id, its true label, and the predicted label.

    Returns
    -------
    IntervalEstimate
        The share and its 95 % interval, see `clustered_interval`.

    Examples
    --------
    >>> accuracy(np.array(["a", "a", "b", "b"]), np.array([1, 1, 2, 2]), np.array([1, 0, 2, 2])).value
    0.75
    """
    return clustered_share(image, np.asarray(label) == np.asarray(prediction))


def label_change(image: np.ndarray, prediction: np.ndarray, reference: np.ndarray) -> IntervalEstimate:
    """Return p_Δ: the share of (image, trial) whose predicted label differs from that of the undegraded image.

    Parameters
    ----------
    image, prediction, reference
        Shape (N,) each, one entry per (image, trial): the image's id, the predicted label, and the label that the
        same model and defense predicted for the undegraded image.

    Returns
    -------
    IntervalEstimate
        The share and its 95 % interval, see `clustered_interval`.
    """
    return clustered_share(image, np.asarray(prediction) != np.asarray(reference))


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error (Guo et al. 2017, equation 3).

    Parameters
    ----------
    confidence
        Shape (N,), in [0, 1]: the largest probabilities.
    correct
        Shape (N,), bool: whether the predictions are right.
    bins
        The number of bins of equal width; each excludes its lower edge.

    Returns
    -------
    float
        The mean gap between confidence and accuracy, in [0, 1].

    Examples
    --------
    >>> round(expected_calibration_error(np.array([0.9, 0.9]), np.array([True, False])), 3)
    0.4
    """
    confidence, correct = np.asarray(confidence, float), np.asarray(correct, float)
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def ratios_by_degradation(own: np.ndarray, reference: np.ndarray, degradation: np.ndarray) -> np.ndarray:
    """Return, for each degradation, the sum of `own` over its levels divided by that of `reference`.

    Parameters
    ----------
    own, reference
        Shape (…, conditions) each: NaN where there is no value. A condition that one of them lacks counts for neither.
    degradation
        Shape (conditions,): the names of the degradations. The condition `none` is left out.

    Returns
    -------
    np.ndarray
        Shape (…, degradations), in the order of their first conditions: NaN for a degradation without a condition
        that both have, and where the reference's sum is 0.
    """
    own, reference = np.asarray(own, float), np.asarray(reference, float)
    both = ~(np.isnan(own) | np.isnan(reference))
    names, found = np.asarray(degradation), []
    for name in dict.fromkeys(names[names != "none"].tolist()):
        here = both & (names == name)
        mine, theirs = (np.where(here, values, 0).sum(-1) for values in (own, reference))
        # A sum below a millionth of an error is rounding.
        found.append(np.divide(mine, theirs, out=np.full_like(mine, np.nan), where=theirs > 1e-6))
    return np.stack(found, axis=-1) if found else np.full((*own.shape[:-1], 0), np.nan)


def excess_ratios(error: np.ndarray, reference: np.ndarray, degradation: np.ndarray) -> np.ndarray:
    """Return `ratios_by_degradation` of the errors in excess of the undegraded ones, those of the condition `none`.

    Without that condition there are no ratios: all are NaN. Parameters and result are those of `ratios_by_degradation`.
    """
    own, others = np.asarray(error, float), np.asarray(reference, float)
    undegraded = np.flatnonzero(np.asarray(degradation) == "none")[:1]
    if not len(undegraded):
        return ratios_by_degradation(np.full_like(own, np.nan), others, degradation)
    return ratios_by_degradation(own - own[..., undegraded], others - others[..., undegraded], degradation)


def mce(error: np.ndarray, reference: np.ndarray, degradation: np.ndarray) -> np.ndarray:
    """Return the mean corruption error (Hendrycks & Dietterich 2019), in which 1 is as good as the reference.

    The errors are summed over the levels of a degradation and divided by those of the reference; the result is the
    mean of these ratios over degradations. Only levels and degradations that both have count, and a degradation under
    which the reference makes no errors is left out.

    Parameters
    ----------
    error, reference
        Shape (conditions,), or (samples, conditions) for resamples of the images: error rates, NaN where there is none.
    degradation
        Shape (conditions,): the names of the degradations.

    Returns
    -------
    np.ndarray
        A scalar, or shape (samples,): NaN where no degradation is left. The first sample decides which degradations
        count; a sample in which one of these has no ratio is NaN.

    Examples
    --------
    >>> mce(np.array([0.2, 0.4, 0.3]), np.array([0.4, 0.8, 0.3]), np.array(["noise", "noise", "blur"])).item()
    0.75
    """
    return _mean(ratios_by_degradation(error, reference, degradation))


def relative_mce(error: np.ndarray, reference: np.ndarray, degradation: np.ndarray) -> np.ndarray:
    """Return `mce` of the errors in excess of the undegraded ones.

    A degradation under which the reference makes no more errors than undegraded is left out. Parameters and result
    are those of `mce`.
    """
    return _mean(excess_ratios(error, reference, degradation))


def mean_flip_rate(change: np.ndarray, reference: np.ndarray, degradation: np.ndarray) -> np.ndarray:
    """Return the mean flip rate (Hendrycks & Dietterich 2019): flip probabilities relative to the reference's.

    The flip probability of a degradation is p_Δ averaged over its levels. Levels and degradations count as in `mce`,
    whose parameters and result these are, with label change p_Δ in place of error rates.
    """
    return _mean(ratios_by_degradation(change, reference, degradation))


def _mean(ratios: np.ndarray) -> np.ndarray:
    """Average over the degradations (the last axis) that have a ratio in the first sample."""
    samples = np.atleast_2d(ratios)
    used = samples[:, ~np.isnan(samples[0])]
    means = used.mean(1) if used.shape[1] else np.full(len(samples), np.nan)
    return means if np.ndim(ratios) > 1 else means[0]
