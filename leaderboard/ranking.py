"""Which entrants of a board are ranked, over which conditions, and which ranks their differences allow."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cnnsens_bench.measures import measures
from cnnsens_bench.measures.paired import difference_variances, separated
from cnnsens_bench.measures.spec import UNKNOWN, Interval

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
    samples
        By the name of a measure that has resamples: its values over all images and over each resample.
    of_images
        On a board with a budget, by the name of a mean: its value with the interval for these very images.
    ranks
        By the name of a measure: the first and the last rank that is possible, counted from 1.
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
    samples: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    of_images: dict[str, Interval] = field(default_factory=dict)
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

    An entrant's first rank comes after all entrants that are surely better, and its last rank before all that are
    surely worse. The others are tied with it. Two entrants are compared by their difference over the same resamples of
    images, see `separated`; by a measure without resamples, an entrant is better where the intervals do not overlap.
    Entrants without an interval, and those that a measure does not rank, get no rank.
    """
    for spec in measures.values():
        ranked = [
            one
            for one in entrants
            if spec.ranked_among and getattr(one, spec.ranked_among)
            if not np.isnan(one.stats.get(spec.name, UNKNOWN)[1])
        ]
        if not ranked:
            continue
        above = _surely_above(ranked, spec.name)
        better, worse = (above.sum(0), above.sum(1)) if spec.higher_is_better else (above.sum(1), above.sum(0))
        for one, before, after in zip(ranked, better.tolist(), worse.tolist(), strict=True):
            one.ranks[spec.name] = (before + 1, len(ranked) - after)


def _surely_above(entrants: list[BoardEntrant], name: str) -> np.ndarray:
    """Return which entrants have surely larger values of a measure than which others: (entrants, entrants) bool."""
    values, lows, highs = np.array([one.stats[name] for one in entrants]).T
    if not all(name in one.samples for one in entrants):
        return lows[:, None] > highs[None]
    samples = np.stack([one.samples[name][1:] for one in entrants])
    return separated(values, difference_variances(samples), min(one.n_images for one in entrants))
