"""Failure points: the level of a degradation at which a network's accuracy has given way, or its labels change.

The SQL views `failure_points` (of images) and `entrant_failure_points` (of networks, without intervals) know the same
order and scale of levels; tests hold them equal.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cnnsens_bench.measures.intervals import bootstrap
from cnnsens_bench.utils.formatting import level_text

UNDEGRADED_LEVELS = {"jpeg": 100.0, "shot_noise": math.inf}
"""The degradations whose strength grows as the level falls, and the level that leaves an image as it is."""
SEVERITIES = ("common:", "stored:")
"""What the names of degradations begin with whose levels are severities from 1 to 5."""
HALF_ACCURACY, LABEL_CHANGE = "half_accuracy", "label_change"
"""The criteria: accuracy is halfway between its undegraded value and chance, and p_Δ passes a share."""
CHANGE = 0.1
"""The share of changed labels that p_Δ passes at the failure point."""
ROUNDING = 1e-9
"""What a share may miss a threshold by and still count as having reached it."""
COLUMNS = ["degradation", "direction", "criterion", "threshold", "level", "low", "high", "strongest", "n_levels"]


def is_falling(degradation: str, level: float) -> bool:
    """Return whether stronger levels are lower numbers: for negative levels, and for `jpeg` and `shot_noise`.

    Examples
    --------
    >>> is_falling("gaussian_rgb", 4), is_falling("pepper(0.02) + jpeg", 30), is_falling("white_balance", -1000)
    (False, True, True)
    """
    return level < 0 or _undegraded_level(degradation) > 0


def _undegraded_level(degradation: str) -> float:
    """Return the level that leaves an image as it is; a member of a chain with a level in brackets is not swept."""
    return next((UNDEGRADED_LEVELS[term] for term in degradation.split(" + ") if term in UNDEGRADED_LEVELS), 0.0)


@dataclass(frozen=True)
class LevelScale:
    """The axis along which curves over the levels of a degradation are interpolated.

    The undegraded image has position 0 and the weakest level position 1; each further position doubles the level (or
    halves it, where it falls). Between positions 0 and 1 the level itself is linear, or its inverse for `shot_noise`,
    whose undegraded level is infinite. Severities are their own positions.

    Parameters
    ----------
    weakest
        The weakest level that was evaluated.
    undegraded
        The level that leaves an image as it is.
    is_severity
        Whether the levels are severities.

    Examples
    --------
    >>> scale = LevelScale.of("gaussian_rgb", 4.0)
    >>> scale.positions(np.array([4.0, 8.0, 16.0])).tolist(), scale.level(0.5), scale.level(2.5)
    ([1.0, 2.0, 3.0], 2.0, 11.313708498984761)
    """

    weakest: float
    undegraded: float = 0.0
    is_severity: bool = False

    @classmethod
    def of(cls, degradation: str, weakest: float) -> "LevelScale":
        """Return the scale of a degradation whose weakest evaluated level is `weakest`."""
        terms = degradation.split(" + ")
        is_severity = any(term.startswith(SEVERITIES) and "(" not in term for term in terms)
        return cls(weakest, _undegraded_level(degradation), is_severity)

    def positions(self, levels: np.ndarray) -> np.ndarray:
        """Return the positions of levels, which are at least as strong as the weakest one."""
        levels = np.asarray(levels, float)
        return levels if self.is_severity else 1 + np.abs(np.log2(levels / self.weakest))

    def level(self, position: float) -> float:
        """Return the level at a position; beyond all levels (at infinity) it is ∞, or −∞ where levels fall."""
        if math.isnan(position) or self.is_severity:
            return position
        falls = self.weakest < 0 or self.undegraded > 0
        if math.isinf(position):
            return -math.inf if falls else math.inf
        if position > 1:
            return self.weakest * 2.0 ** ((1 - position) if self.undegraded > 0 else (position - 1))
        if math.isinf(self.undegraded):
            return self.weakest / position if position > 0 else math.inf
        return self.undegraded + position * (self.weakest - self.undegraded)


def first_crossing(positions: np.ndarray, values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return where curves first come down to a threshold, interpolated linearly between their points.

    Parameters
    ----------
    positions
        Shape (points,), ascending.
    values
        Shape (curves, points).
    thresholds
        Shape (curves,).

    Returns
    -------
    np.ndarray
        Shape (curves,): a position, ∞ where the curve stays above its threshold, or NaN where the threshold is NaN.

    Examples
    --------
    >>> first_crossing(np.array([0.0, 1, 2]), np.array([[0.9, 0.7, 0.3], [0.9, 0.8, 0.7]]), np.array([0.5, 0.5]))
    array([1.5, inf])
    """
    limits = np.asarray(thresholds, float)[:, None]
    reached = values <= limits + ROUNDING
    after = np.maximum(reached.argmax(1), 1)[:, None]
    lower, upper = (np.take_along_axis(values, at, 1) for at in (after, after - 1))
    drop = np.where(upper > lower, upper - lower, 1)
    shares = np.clip((upper - limits) / drop, 0, 1)
    starts = positions[after - 1]
    found = (starts + shares * (positions[after] - starts))[:, 0]
    found = np.where(reached[:, 0], positions[0], found)
    return np.where(np.isnan(limits[:, 0]), np.nan, np.where(reached.any(1), found, np.inf))


def failure_points(
    conditions: pd.DataFrame,
    hit: np.ndarray,
    changed: np.ndarray,
    chance: float,
    change: float = CHANGE,
    resamples: int = 1000,
) -> pd.DataFrame:
    """Return the levels at which an entrant's accuracy has fallen halfway to chance, and at which p_Δ passes a share.

    Accuracy and p_Δ under a condition are means over the images that have it, as in the views `accuracy` and
    `label_change`. A curve begins at the undegraded image, and the failure point is where it first reaches its
    threshold, linear along `LevelScale`. Intervals are bootstrap percentiles over images, the same at all levels.

    Parameters
    ----------
    conditions
        A row for each condition: degradation, level. The undegraded image is the degradation `none`.
    hit, changed
        Shape (images, conditions) each, in [0, 1]: the share of an image's trials that were right, and that had
        another label than the undegraded image; NaN where there are none.
    chance
        The accuracy of guessing: 1 divided by the number of classes that the network chooses among.
    change
        The share of changed labels, in (0, 1).
    resamples
        The largest number of bootstrap resamples; many images have fewer, because fewer are enough.

    Returns
    -------
    pandas.DataFrame
        A row for each degradation with levels, direction and criterion:

        - `direction`: `rising`, or `falling` where lower levels are stronger; a degradation with negative and positive
          levels has both.
        - `criterion`, `threshold`: `half_accuracy` or `label_change`, and the share that the curve comes to.
        - `level`, `low`, `high`: the failure point and its 95 % interval, `low` the smaller number. Each is ∞ (−∞ where
          levels fall) beyond the strongest level that was evaluated. They are NaN where the undegraded accuracy is not
          above chance, or there is no undegraded prediction.
        - `strongest`, `n_levels`: the strongest level, and the number of levels.

    Raises
    ------
    ValueError
        Where there are no images.
    """
    if not len(hit):
        raise ValueError("there is no failure point of no images")
    draws = bootstrap(len(hit), int(np.clip(20_000_000 // len(hit), 100, resamples)))
    weights = [np.ones((1, len(hit))), *draws]
    accuracy, changes = (_means(weights, np.asarray(table, float)) for table in (hit, changed))
    undegraded = np.flatnonzero(conditions["degradation"].to_numpy() == "none")
    start = accuracy[:, undegraded[0]] if len(undegraded) else np.full(len(accuracy), np.nan)
    half = np.where(start > chance + ROUNDING, (start + chance) / 2, np.nan)
    limits = {HALF_ACCURACY: half, LABEL_CHANGE: np.full(len(changes), 1 - change)}
    points = {HALF_ACCURACY: np.column_stack([start, accuracy]), LABEL_CHANGE: np.insert(1 - changes, 0, 1, axis=1)}
    shown = {HALF_ACCURACY: float(half[0]), LABEL_CHANGE: change}
    rows = [
        (
            degradation,
            direction,
            criterion,
            shown[criterion],
            *_failure_point(degradation, levels, curve, limits[criterion]),
        )
        for degradation, direction, levels, chosen in _swept(conditions)
        for criterion, curve in ((name, values[:, [0, *chosen + 1]]) for name, values in points.items())
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _swept(conditions: pd.DataFrame) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Yield each degradation and direction with its levels, weakest first, and the indices of their conditions.

    Level 0 is left out: it stands for the undegraded image, or for a degradation without levels.
    """
    names, levels = conditions["degradation"].to_numpy(), conditions["level"].to_numpy(float)
    swept = np.flatnonzero((names != "none") & (levels != 0))
    falls = np.array([is_falling(str(names[i]), levels[i]) for i in swept], bool)
    for name in sorted(set(names[swept])):
        for direction in ("falling", "rising"):
            chosen = swept[(names[swept] == name) & (falls == (direction == "falling"))]
            if len(chosen):
                order = np.argsort(levels[chosen])
                ordered = chosen[order[::-1] if direction == "falling" else order]
                yield str(name), direction, levels[ordered], ordered


def _failure_point(
    degradation: str, levels: np.ndarray, curves: np.ndarray, limits: np.ndarray
) -> tuple[float, float, float, float, int]:
    """Return level, low and high, the strongest level, and the number of levels that have a value.

    `curves` has the shape (resamples + 1, levels + 1) and begins with the undegraded value.
    """
    known = ~np.isnan(curves[0, 1:])
    if not known.any():
        return np.nan, np.nan, np.nan, float(levels[-1]), 0
    levels, curves = levels[known], curves[:, np.insert(known, 0, True)]
    scale = LevelScale.of(degradation, float(levels[0]))
    crossings = first_crossing(np.insert(scale.positions(levels), 0, 0), curves, limits)
    return *_interval(scale, crossings), float(levels[-1]), len(levels)


def _means(weights: list[np.ndarray], shares: np.ndarray) -> np.ndarray:
    """Return the means over images: (resamples + 1, conditions), of which the first is over all images.

    A resample without an image of a condition takes the mean over all images.
    """
    there = ~np.isnan(shares)
    filled = np.where(there, shares, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        blocks = [(block @ filled) / (block @ there.astype(float)) for block in weights]
    means = np.concatenate(blocks)
    return np.where(np.isnan(means), means[:1], means)


def _interval(scale: LevelScale, crossings: np.ndarray) -> tuple[float, float, float]:
    """Return the level of the first crossing, and the percentiles of the others, in the order of numbers."""
    if np.isnan(crossings[0]):
        return (np.nan,) * 3
    known = crossings[1:][~np.isnan(crossings[1:])]
    # A quantile that is one of the values is defined where some are infinite.
    bounds = np.quantile(known, [0.025, 0.975], method="inverted_cdf") if len(known) else [np.nan, np.nan]
    first, last = min(bounds[0], crossings[0]), max(bounds[1], crossings[0])
    point, *ends = (scale.level(float(position)) for position in (crossings[0], first, last))
    return point, min(ends), max(ends)


def failure_text(degradation: str, level: float, low: float, high: float, strongest: float) -> str:
    """Return a failure point with its interval as people read it; `–` where there is none.

    Examples
    --------
    >>> failure_text("gaussian_rgb", 12.34, 9.0, float("inf"), 64.0)
    'σ=12.3 [9 – beyond 64]'
    >>> failure_text("jpeg", float("-inf"), float("-inf"), float("-inf"), 10.0)
    'beyond q=10'
    """
    if math.isnan(level):
        return "–"
    shown = strongest if math.isinf(level) else float(f"{level:.3g}")
    point = ("beyond " if math.isinf(level) else "") + level_text(degradation, shown)
    if math.isnan(low) or (math.isinf(low) and math.isinf(high)):
        return point
    ends = (f"beyond {strongest:g}" if math.isinf(end) else f"{float(f'{end:.3g}'):g}" for end in (low, high))
    return f"{point} [{' – '.join(ends)}]"
