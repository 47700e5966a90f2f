"""What a measure of the leaderboard is: its description, what it is computed from, and the registry of all measures."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from cnnsens_bench.utils.registry import Registry

Interval = tuple[float, float, float]
"""A value and the bounds of its 95 % interval; the bounds are NaN where there is no interval."""
UNKNOWN: Interval = (float("nan"),) * 3
FORMATS = {"decimal": "f", "significant": "g"}


@dataclass(frozen=True)
class EntrantResults:
    """The results of one entrant (a model with a defense) under every condition of its board.

    Arrays of samples have the shape (samples, conditions). The first sample is over all images. Each further one is
    over a bootstrap resample of the images, the same for all entrants of a board, so that ratios are paired. A value is
    NaN where the entrant has none. The terminal's summary has one sample, and knows only accuracy and label change.

    Parameters
    ----------
    degradation, level
        Shape (conditions,): what each condition is. The degradation `none` is the undegraded image.
    averaged
        Shape (conditions,), bool: the degraded conditions that this entrant's means are over.
    accuracy, label_change, top5, class_accuracy
        Samples of shares in [0, 1]; `class_accuracy` is the mean of the classes' accuracies.
    nll
        Samples of the mean negative log-likelihood, in nats.
    ece
        Shape (1, conditions), in [0, 1]: the expected calibration error. It has no resamples, because resampling
        images makes it larger.
    intervals
        For `accuracy`, `label_change` and `top5`: by the index of a condition, the value with Wilson's interval.
    images_per_second
        The speed on the device that computed most of the entrant's images, with its interval.
    num_parameters
        The number of the network's parameters.
    reference
        The results of the network that mCE is relative to: the board's reference network, or published error rates
        (see `published_reference`); None where there is neither.
    """

    degradation: np.ndarray
    level: np.ndarray
    averaged: np.ndarray
    accuracy: np.ndarray
    label_change: np.ndarray
    top5: np.ndarray
    class_accuracy: np.ndarray
    nll: np.ndarray
    ece: np.ndarray
    intervals: Mapping[str, Mapping[int, Interval]] = field(default_factory=dict)
    images_per_second: Interval = UNKNOWN
    num_parameters: float = float("nan")
    reference: "EntrantResults | None" = None

    @property
    def undegraded(self) -> int | None:
        """The index of the undegraded condition, or None if there is none."""
        return next(iter(np.flatnonzero(self.degradation == "none").tolist()), None)

    def at_undegraded(self, samples: np.ndarray) -> np.ndarray:
        """Return samples, shape (samples,), of the undegraded condition: NaN if there is none."""
        return np.full(len(samples), np.nan) if self.undegraded is None else samples[:, self.undegraded]

    def interval(self, name: str, condition: int | None) -> Interval:
        """Return the value with Wilson's interval of `accuracy`, `label_change` or `top5` under a condition."""
        return UNKNOWN if condition is None else self.intervals.get(name, {}).get(condition, UNKNOWN)

    def mean(self, samples: np.ndarray) -> np.ndarray:
        """Return samples, shape (samples,), of the mean over the levels of a degradation, then over degradations.

        The mean is over the conditions `averaged`; it is NaN if there are none, or if one of them has no value.
        """
        return mean_over_conditions(samples, self.degradation, self.averaged)

    def first_sample(self) -> "EntrantResults":
        """Return the results over all images alone, without resamples; of the reference too."""
        names = ("accuracy", "label_change", "top5", "class_accuracy", "nll")
        reference = self.reference.first_sample() if self.reference else None
        return dataclasses.replace(self, reference=reference, **{name: getattr(self, name)[:1] for name in names})

    @property
    def worst(self) -> int | None:
        """The index of the averaged condition with the lowest accuracy, or None if there is none."""
        accuracy = self.intervals.get("accuracy", {})
        candidates = [i for i in np.flatnonzero(self.averaged).tolist() if i in accuracy]
        return min(candidates, key=lambda i: (accuracy[i][0], self.degradation[i], self.level[i]), default=None)


def mean_over_conditions(samples: np.ndarray, degradation: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Average over the levels of each degradation, then over degradations.

    Parameters
    ----------
    samples
        Shape (samples, conditions).
    degradation
        Shape (conditions,): the names of the degradations.
    chosen
        Shape (conditions,), bool: the conditions to average over.

    Returns
    -------
    np.ndarray
        Shape (samples,): NaN where no condition is chosen, or where a chosen one is NaN.
    """
    if not chosen.any():
        return np.full(len(samples), np.nan)
    kinds, kind, counts = np.unique(degradation[chosen].astype(str), return_inverse=True, return_counts=True)
    return samples[:, chosen] @ (1 / (len(kinds) * counts[kind]))


MeasureFunction = Callable[[EntrantResults], np.ndarray | Interval | float]


@dataclass(frozen=True)
class MeasureSpec:
    """One measure: how it is computed, and how ranking, page, terminal and documentation show it.

    Parameters
    ----------
    name
        The key of the measure in the page's data and links.
    function
        Computes it from the results of an entrant: samples of shape (samples,), whose first is the value and whose
        others give a bootstrap interval; or a value with its interval; or a number, which has no interval.
    heading, unit
        The heading of its column, and what stands below it.
    higher_is_better
        Whether the largest value is the best one.
    explanation
        What it measures, in plain sentences.
    notation
        How a value is written: `percent` (a share times 100), `decimal`, `significant` (so many significant digits)
        or `count` (a whole number, such as 61.1 M).
    digits
        Decimals, or significant digits. The bounds of an interval have one decimal less.
    ranked_among
        Who is ranked by it: the entrants with the `same_images`, those that are `comparable` because they have the
        same images and conditions, or those timed on the `same_device`. None: nobody, the measure is only shown.
    optional
        Whether the page shows it only after a press of the button "More measures".
    needs_reference
        Whether it is relative to a reference network. Boards without a reference do not show it.
    ratios
        Gives the ratios to the reference that such a measure averages, shape (samples, degradations), NaN where a
        degradation has none, so that the page can say how many there are. None: the page does not say it.
    resampled
        Gives the samples by which entrants are compared in pairs, shape (samples,), where `function` returns a value
        with its interval. None: such a measure ranks by whether intervals overlap.
    summary
        Its heading in the summary at the end of a run; it is not shown there where this is empty.
    """

    name: str
    function: MeasureFunction = field(repr=False)
    heading: str
    unit: str
    higher_is_better: bool
    explanation: str
    notation: Literal["percent", "decimal", "significant", "count"] = "percent"
    digits: int = 1
    ranked_among: Literal["same_images", "comparable", "same_device"] | None = "comparable"
    optional: bool = False
    needs_reference: bool = False
    ratios: Callable[[EntrantResults], np.ndarray] | None = field(default=None, repr=False)
    resampled: Callable[[EntrantResults], np.ndarray] | None = field(default=None, repr=False)
    summary: str = ""

    def samples(self, results: EntrantResults) -> np.ndarray | None:
        """Return the measure over all images, then over each resample, shape (samples,); None where it has none."""
        found = self.resampled(results) if self.resampled else self.function(results)
        return np.asarray(found, float) if not isinstance(found, tuple) and np.size(found) > 1 else None

    def interval(self, results: EntrantResults) -> Interval:
        """Return the measure of an entrant with its 95 % interval: all NaN where the entrant has no value."""
        found = self.function(results)
        if isinstance(found, tuple):
            return found
        samples = np.atleast_1d(np.asarray(found, float))
        known = samples[1:][~np.isnan(samples[1:])]
        if len(samples) == 1:
            return float(samples[0]), float("nan"), float("nan")
        if np.isnan(samples[0]) or not len(known):
            return UNKNOWN
        low, high = np.quantile(known, [0.025, 0.975])
        # Resamples are computed in float32: where nothing varies, rounding must not move a bound past the value.
        return float(samples[0]), float(min(low, samples[0])), float(max(high, samples[0]))

    def degradations(self, results: EntrantResults) -> int | None:
        """Return how many degradations the measure averages for an entrant; None where that is not known."""
        if self.ratios is None or results.reference is None:
            return None
        return int(np.count_nonzero(~np.isnan(self.ratios(results.first_sample())[0])))

    def text(self, value: float) -> str:
        """Return a value as the terminal shows it: `–` for NaN."""
        if np.isnan(value):
            return "–"
        if self.notation == "percent":
            return f"{100 * value:.{self.digits}f}"
        return f"{value:,.0f}" if self.notation == "count" else f"{value:.{self.digits}{FORMATS[self.notation]}}"


measures: Registry[MeasureSpec] = Registry("measure")


def measure(
    name: str, heading: str, unit: str, *, higher_is_better: bool, **options: Any
) -> Callable[[MeasureFunction], MeasureFunction]:
    """Register the decorated function as a measure, which leaderboard, page and summary then show and rank.

    The function takes `EntrantResults`; see `MeasureSpec.function` for what it may return. Its docstring is the
    explanation of the measure.

    Parameters
    ----------
    name, heading, unit, higher_is_better
        As in `MeasureSpec`.
    **options
        The other fields of `MeasureSpec`, where their defaults do not fit.

    Returns
    -------
    Callable
        A decorator that returns the function unchanged.

    Raises
    ------
    UserError
        Where another measure has this name.

    Notes
    -----
    A column for the accuracy under the highest level is these four lines::

        @measure("hardest_level", "Hardest level", "%", higher_is_better=True, summary="hardest\\nlevel")
        def hardest_level(entrant: EntrantResults) -> np.ndarray:
            "The accuracy under the highest level of any degradation."
            return entrant.accuracy[:, np.argmax(entrant.level)]
    """

    def register(function: MeasureFunction) -> MeasureFunction:
        explanation = " ".join((inspect.getdoc(function) or "").split())
        measures.add(name, MeasureSpec(name, function, heading, unit, higher_is_better, explanation, **options))
        return function

    return register
