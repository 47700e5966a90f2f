"""Who is ranked on a board, over which conditions, and in which places."""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

ENOUGH = 0.95
"""Share of the board's images below which an entrant is not ranked among the others."""
HIGHER_IS_BETTER = {
    **dict.fromkeys(("accuracy", "mean_degraded_accuracy", "top5", "top5_degraded"), True),
    **dict.fromkeys(("mean_per_class", "mean_per_class_degraded", "worst_accuracy", "images_per_second"), True),
    **dict.fromkeys(("mean_label_change", "mce", "relative_mce", "mean_flip_rate"), False),
    **dict.fromkeys(("ece", "ece_degraded", "nll", "nll_degraded"), False),
}
UNDEGRADED = {"accuracy", "top5", "mean_per_class", "nll", "ece"}
Interval = tuple[float, float, float]


@dataclass
class BoardEntrant:
    """Everything of one entrant. `accuracy`, `label_change`: condition → (value, low, high); `stats`: measure → the
    same, bounds NaN where an interval means nothing; `by_degradation`: name → (accuracy, p_Δ), means over levels."""

    entrant: int
    n_images: int
    conditions: list[int]
    accuracy: dict[int, Interval]
    label_change: dict[int, Interval]
    by_degradation: dict[str, tuple[float, float]]
    stats: dict[str, Interval]
    worst: int | None
    fragile: list[tuple[int, float]]
    degradations_of: dict[str, int] = field(default_factory=dict)
    """Measure relative to the reference → degradations that it averages."""
    same_images: bool = True
    """As many as the others on the board: ranked by the measures of undegraded images."""
    comparable: bool = True
    """And under the conditions that the ranked entrants share: ranked by the others too."""
    device: str | None = None
    """Of its images per second."""
    same_device: bool = False
    """The board's: ranked by them."""
    ranks: dict[str, tuple[int, int]] = field(default_factory=dict)


def enough(images: pd.Series) -> set[int]:
    """The entrants with about as many images as the one with most; `images`: entrant → how many."""
    return {int(entrant) for entrant, count in images.items() if count >= ENOUGH * images.max()}


def ranked_conditions(
    sets: Mapping[int, frozenset[int]], undefended: Set[int], undegraded: frozenset[int]
) -> frozenset[int]:
    """The conditions that a board's means are compared over: of the entrants' own sets S the one with the largest
    (number of undefended entrants that have all of S) × |S|², where |S| counts degraded conditions.

    `sets`: entrant → its conditions; of a board without undefended entrants all count. Equals: the larger set, then
    the one whose first conditions come first. A study of many defenses under few conditions does not outvote the
    networks under many; nor does a condition that one network alone has leave it alone in the ranking.
    """
    counted = [those for entrant, those in sets.items() if entrant in undefended] or list(sets.values())

    def worth(those: frozenset[int]) -> tuple[int, int, list[int]]:
        size = len(those - undegraded)
        return sum(those <= others for others in counted) * size**2, len(those), [-one for one in sorted(those)]

    return max(set(sets.values()), key=worth)


def rank(made: list[BoardEntrant]) -> None:
    """First and last place that an entrant's interval allows: those it overlaps are ties. No interval, no rank."""
    for measure, higher in HIGHER_IS_BETTER.items():
        sign: Callable[[Interval], Interval] = _turned if higher else _kept
        ranked = [
            (one, sign(one.stats[measure]))
            for one in made
            if measure in one.stats and not np.isnan(one.stats[measure][1]) and _ranked_by(one, measure)
        ]
        lows = np.sort([low for _, (_, low, _) in ranked])
        highs = np.sort([high for _, (_, _, high) in ranked])
        for one, (_, low, high) in ranked:
            one.ranks[measure] = (int(np.searchsorted(highs, low)) + 1, int(np.searchsorted(lows, high, side="right")))


def _ranked_by(one: BoardEntrant, measure: str) -> bool:
    if measure == "images_per_second":
        return one.same_device
    return one.same_images if measure in UNDEGRADED else one.comparable


def _turned(interval: Interval) -> Interval:
    value, low, high = interval
    return -value, -high, -low


def _kept(interval: Interval) -> Interval:
    return interval
