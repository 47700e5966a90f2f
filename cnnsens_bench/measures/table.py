"""The measures that leaderboard and summary show, in the order of their columns. One function here is one column.

The docstring of a measure is its explanation: the page shows it, and so does the documentation.
"""

from collections.abc import Callable

import numpy as np

from cnnsens_bench.measures.predictions import (
    excess_ratios,
    mce,
    mean_flip_rate,
    ratios_by_degradation,
    relative_mce,
)
from cnnsens_bench.measures.spec import EntrantResults, Interval, mean_over_conditions, measure


@measure("mean_degraded_accuracy", "Degraded accuracy", "%, mean", higher_is_better=True, summary="mean\ndegraded")
def mean_degraded_accuracy(entrant: EntrantResults) -> np.ndarray:
    """The share of right predictions of degraded images: the mean over levels, then over degradations."""
    return entrant.mean(entrant.accuracy)


@measure(
    "accuracy", "Undegraded accuracy", "%", higher_is_better=True, ranked_among="same_images", summary="undegraded",
    resampled=lambda entrant: entrant.at_undegraded(entrant.accuracy),
)  # fmt: skip
def accuracy(entrant: EntrantResults) -> Interval:
    """The share of right predictions of undegraded images."""
    return entrant.interval("accuracy", entrant.undegraded)


@measure("mean_label_change", "Label change p_Δ", "%, mean", higher_is_better=False, summary="mean\np_Δ")
def mean_label_change(entrant: EntrantResults) -> np.ndarray:
    """The share of (image, trial) whose predicted label differs from that of the undegraded image: the mean over
    levels, then over degradations."""
    known = entrant.averaged & ~np.isnan(entrant.label_change[0])
    return mean_over_conditions(entrant.label_change, entrant.degradation, known)


@measure(
    "worst_accuracy", "Worst condition", "%, accuracy", higher_is_better=True, summary="worst condition\nits accuracy"
)
def worst_accuracy(entrant: EntrantResults) -> Interval:
    """The lowest accuracy under any one condition, and which condition that is."""
    return entrant.interval("accuracy", entrant.worst)


def compare_with_reference(
    entrant: EntrantResults, function: Callable[..., np.ndarray], values: Callable[[EntrantResults], np.ndarray]
) -> np.ndarray | float:
    """Return what `function` makes of the entrant's values and the reference's, over the entrant's averaged conditions.

    Parameters
    ----------
    entrant
        The results of the entrant; without a reference the result is NaN.
    function
        One that takes own values, the reference's values and the names of the degradations, such as `mce`.
    values
        Gives the samples, shape (samples, conditions), to compare.

    Returns
    -------
    np.ndarray or float
        What the function returns, or NaN.
    """
    if entrant.reference is None:
        return float("nan")
    used = entrant.averaged | (entrant.degradation == "none")
    own = np.where(used, values(entrant), np.nan)
    return function(own, values(entrant.reference), entrant.degradation)


def error_rates(entrant: EntrantResults) -> np.ndarray:
    """Return the error rates, shape (samples, conditions)."""
    return 1 - entrant.accuracy


def label_changes(entrant: EntrantResults) -> np.ndarray:
    """Return the label changes p_Δ, shape (samples, conditions)."""
    return entrant.label_change


def ratios_of(
    function: Callable[..., np.ndarray], values: Callable[[EntrantResults], np.ndarray]
) -> Callable[[EntrantResults], np.ndarray]:
    """Return the `ratios` of a measure: what `compare_with_reference` gives for a function such as `excess_ratios`."""
    return lambda entrant: np.atleast_2d(compare_with_reference(entrant, function, values))


@measure(
    "mce", "mCE", "%", higher_is_better=False, needs_reference=True,
    ratios=ratios_of(ratios_by_degradation, error_rates),
)  # fmt: skip
def corruption_error(entrant: EntrantResults) -> np.ndarray | float:
    """The mean corruption error: errors summed over the levels of a degradation, divided by those of the reference,
    then the mean over degradations."""
    return compare_with_reference(entrant, mce, error_rates)


@measure(
    "relative_mce", "Relative mCE", "%", higher_is_better=False, needs_reference=True,
    ratios=ratios_of(excess_ratios, error_rates),
)  # fmt: skip
def relative_corruption_error(entrant: EntrantResults) -> np.ndarray | float:
    """The mean corruption error of the errors in excess of the undegraded ones."""
    return compare_with_reference(entrant, relative_mce, error_rates)


@measure("parameters", "Parameters", "", higher_is_better=False, notation="count", ranked_among=None)
def parameters(entrant: EntrantResults) -> float:
    """The number of the network's parameters."""
    return entrant.num_parameters


@measure(
    "images_per_second", "Speed", "images/s", higher_is_better=True, notation="significant", digits=3,
    ranked_among="same_device",
)  # fmt: skip
def images_per_second(entrant: EntrantResults) -> Interval:
    """The images per second through the defense's filter and the network alone, as the sweep ran."""
    return entrant.images_per_second


@measure(
    "mean_flip_rate", "Mean flip rate", "%", higher_is_better=False, needs_reference=True, optional=True,
    ratios=ratios_of(ratios_by_degradation, label_changes),
)  # fmt: skip
def flip_rate(entrant: EntrantResults) -> np.ndarray | float:
    """The label change p_Δ summed over the levels of a degradation, divided by that of the reference, then the mean
    over degradations."""
    return compare_with_reference(entrant, mean_flip_rate, label_changes)


@measure(
    "top5", "Top-5", "%", higher_is_better=True, ranked_among="same_images", optional=True,
    resampled=lambda entrant: entrant.at_undegraded(entrant.top5),
)  # fmt: skip
def top5(entrant: EntrantResults) -> Interval:
    """The share of undegraded images whose true label is among the five most probable."""
    return entrant.interval("top5", entrant.undegraded)


@measure("top5_degraded", "Top-5 degraded", "%, mean", higher_is_better=True, optional=True)
def top5_degraded(entrant: EntrantResults) -> np.ndarray:
    """The share of degraded images whose true label is among the five most probable: the mean over levels, then over
    degradations."""
    return entrant.mean(entrant.top5)


@measure("mean_per_class", "Per-class accuracy", "%", higher_is_better=True, ranked_among="same_images", optional=True)
def mean_per_class(entrant: EntrantResults) -> np.ndarray:
    """The mean over classes of each class's accuracy on undegraded images: rare classes count as much as common
    ones."""
    return entrant.at_undegraded(entrant.class_accuracy)


@measure("mean_per_class_degraded", "Per-class degraded", "%, mean", higher_is_better=True, optional=True)
def mean_per_class_degraded(entrant: EntrantResults) -> np.ndarray:
    """The mean over classes of each class's accuracy on degraded images: the mean over levels, then over
    degradations."""
    return entrant.mean(entrant.class_accuracy)


@measure("ece", "ECE", "%", higher_is_better=False, ranked_among="same_images", optional=True)
def calibration_error(entrant: EntrantResults) -> np.ndarray:
    """The expected calibration error on undegraded images, over 15 bins. It has no interval and no rank."""
    return entrant.at_undegraded(entrant.ece)


@measure("ece_degraded", "ECE degraded", "%, mean", higher_is_better=False, optional=True)
def calibration_error_degraded(entrant: EntrantResults) -> np.ndarray:
    """The expected calibration error on degraded images, over 15 bins: the mean over levels, then over degradations.
    It has no interval and no rank."""
    return entrant.mean(entrant.ece)


@measure(
    "nll", "NLL", "nats", higher_is_better=False, notation="decimal", digits=3, ranked_among="same_images",
    optional=True,
)  # fmt: skip
def negative_log_likelihood(entrant: EntrantResults) -> np.ndarray:
    """The mean negative log-likelihood of the true label on undegraded images."""
    return entrant.at_undegraded(entrant.nll)


@measure(
    "nll_degraded", "NLL degraded", "nats, mean", higher_is_better=False, notation="decimal", digits=3, optional=True
)
def negative_log_likelihood_degraded(entrant: EntrantResults) -> np.ndarray:
    """The mean negative log-likelihood of the true label on degraded images: the mean over levels, then over
    degradations."""
    return entrant.mean(entrant.nll)
