"""Which entrants of a board are ranked, over which conditions, and which ranks their intervals allow."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cnnsens_bench.measures import measures
from cnnsens_bench.measures.spec import Interval

ENOUGH = 0.95
"""The share of the images of the board's largest entrant that an entrant needs to be ranked among the others."""


@dataclass
class BoardEntrant:
    """What the page shows of one entrant (a model with a defense).

    Parameters
    ----------
    entrant
        Its number in the database that is read.
    n_images
        The number of images with a prediction.
    conditions
        The indices of the conditions that it was measured under.
    accuracy, label_change
        By the index of a condition: the value with its interval.
    by_degradation
        By the name of a degradation: accuracy and p_Δ, means over its levels.
    stats
        By the name of a measure: the value with its interval; bounds are NaN where an interval means nothing.
    worst
        The index of the condition with the lowest accuracy.
    fragile
        The indices of the images whose label changes most, with the share of changed labels.
    degradations_of
        By the name of a measure relative to the reference: the number of degradations that it averages.
    same_images
        Whether it has about as many images as the others, and is ranked by measures of undegraded images.
    comparable
        Whether it also has all conditions that the ranked entrants share, and is ranked by measures of degraded images.
    device
        The device that its images per second were measured on.
    same_device
        Whether that is the device of the board, so that it is ranked by speed.
    outcomes
        What happened to each image under each condition, as `leaderboard.outcomes.pack` returns it.
    ranks
        By the name of a measure: the first and the last rank that its interval allows, counted from 1.
    """

    entrant: int
    n_images: int
    conditions: list[int]
    accuracy: Mapping[int, Interval]
    label_change: Mapping[int, Interval]
    by_degradation: dict[str, tuple[float, float]]
    stats: dict[str, Interval]
    worst: int | None
    fragile: list[tuple[int, float]]
    degradations_of: dict[str, int] = field(default_factory=dict)
    same_images: bool = True
    comparable: bool = True
    device: str | None = None
    same_device: bool = False
    outcomes: dict[str, str | int] = field(default_factory=dict)
    ranks: dict[str, tuple[int, int]] = field(default_factory=dict)


def enough(images: pd.Series) -> set[int]:
    """Return the entrants that have about as many images as the one with most; `images` counts them per entrant."""
    return {int(entrant) for entrant, count in images.items() if count >= ENOUGH * images.max()}


def ranked_conditions(
    sets: Mapping[int, frozenset[int]], undefended: Set[int], undegraded: frozenset[int]
) -> frozenset[int]:
    """Choose the conditions over which the entrants of a board are compared.

    Of the entrants' own sets S of conditions this is the one with the largest product of the number of undefended
    entrants that have all of S and |S|², where |S| counts degraded conditions. So a study of many defenses under few
    conditions does not outvote the networks under many, and a condition that only one network has does not leave that
    network alone in the ranking. Among equals the larger set wins, then the one whose conditions come first.

    Parameters
    ----------
    sets
        By entrant: the indices of its conditions.
    undefended
        The entrants without a defense. On a board without any, all entrants count.
    undegraded
        The index of the undegraded condition, if the board has it.

    Returns
    -------
    frozenset
        The indices of the chosen conditions.

    Examples
    --------
    >>> sorted(ranked_conditions({0: frozenset({0, 1, 2}), 1: frozenset({0, 1, 2, 3})}, {0, 1}, frozenset({0})))
    [0, 1, 2, 3]
    """
    counted = [conditions for entrant, conditions in sets.items() if entrant in undefended] or list(sets.values())

    def score(conditions: frozenset[int]) -> tuple[int, int, list[int]]:
        size = len(conditions - undegraded)
        supporters = sum(conditions <= others for others in counted)
        return supporters * size**2, len(conditions), [-one for one in sorted(conditions)]

    return max(set(sets.values()), key=score)


def rank(entrants: list[BoardEntrant]) -> None:
    """Set the ranks of the entrants of a board by every measure.

    An entrant's first and last rank are those that its interval allows: entrants whose intervals overlap are tied.
    Entrants without an interval, and those that a measure does not rank, get no rank.
    """
    for spec in measures.values():
        ranked = [
            (one, _best_first(one.stats[spec.name], spec.higher_is_better))
            for one in entrants
            if spec.ranked_among and getattr(one, spec.ranked_among)
            if not np.isnan(one.stats.get(spec.name, (np.nan,) * 3)[1])
        ]
        lows, highs = np.sort([low for _, (low, _) in ranked]), np.sort([high for _, (_, high) in ranked])
        for one, (low, high) in ranked:
            first, last = np.searchsorted(highs, low) + 1, np.searchsorted(lows, high, side="right")
            one.ranks[spec.name] = (int(first), int(last))


def _best_first(interval: Interval, higher_is_better: bool) -> tuple[float, float]:
    """Return the bounds of an interval, negated where higher is better, so that smaller ones are better."""
    _, low, high = interval
    return (-high, -low) if higher_is_better else (low, high)
