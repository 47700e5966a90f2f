"""The settings of a search over recipes: which values it tries and by which objective it judges them."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.utils.errors import UserError

UNDEGRADED = "none"
"""The name of the undegraded condition in `Scores`."""

Scores = Mapping[str, Mapping[float, float]]
"""Accuracies in [0, 1] by degradation and level; `UNDEGRADED` has level 0."""


@dataclass(frozen=True)
class Axis:
    """The range of one searched number.

    Attributes
    ----------
    low, high
        The ends of the range, both included.
    log
        Whether values are drawn uniformly in the logarithm.
    whole
        Whether values are whole numbers.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False


@dataclass
class SearchConfig:
    """A search over recipes around the given one, which is always its first trial.

    The objective is `undegraded_weight` · undegraded accuracy + (1 − `undegraded_weight`) · accuracy under
    `degradations`, which is a mean over levels, then over degradations.
    """

    trials: int = 16
    """Recipes that are tried, at least 1. A search that has ended goes on where this number grows."""
    epochs: list[int] | None = None
    """Shortest and longest schedule in epochs. null: half to double the epochs of the given recipe."""
    rate_factor: float = 10.0
    """Factor by which the peak learning rates may leave the given recipe's, at least 1."""
    weight_decay: list[float] = field(default_factory=lambda: [1e-4, 0.3])
    """Smallest and largest weight decay, at least 0."""
    input_dropout: list[float] = field(default_factory=lambda: [0.0, 0.5])
    """Smallest and largest probability of input dropout, between 0 and 0.95."""
    validation: float = 0.2
    """Share of the training images of each class that is held out to judge by, between 0 and 1."""
    undegraded_weight: float = 0.5
    """Weight of the undegraded accuracy in the objective, 0 to 1."""
    degradations: list[Any] = field(
        default_factory=lambda: [{"name": "pepper", "levels": [0.08]}, {"name": "gaussian_rgb", "levels": [16]}]
    )
    """Degradations of the objective, at least one, written as those of a run; each has one trial."""
    grace: float = 0.25
    """Share of its schedule that a trial has before it can be stopped, above 0, at most 1."""
    concurrent: int | None = None
    """Trials that run at once, at least 1. null: as many as the machines have room for."""
    cpus_per_trial: int | None = None
    """CPU cores of each process of a trial, at least 1. null: what the machines have for it, at most 8."""
    gpus_per_trial: float | None = None
    """GPUs of a trial in all: a share of one, or a whole number. null: one where there are GPUs, else 0."""
    workers_per_trial: int | None = None
    """Processes of a trial, at least 1. null: one for each of its GPUs, or one."""

    def check(self) -> None:
        """Raise `UserError` for an impossible value."""
        rules = {
            "trials": (self.trials >= 1, "at least 1"),
            "epochs": (self.epochs is None or _range(self.epochs, 1, math.inf), "[shortest, longest], at least 1"),
            "rate_factor": (self.rate_factor >= 1, "at least 1"),
            "weight_decay": (_range(self.weight_decay, 0, math.inf), "[low, high], at least 0"),
            "input_dropout": (_range(self.input_dropout, 0, 0.95), "[low, high] between 0 and 0.95"),
            "validation": (0 < self.validation < 1, "between 0 and 1"),
            "undegraded_weight": (0 <= self.undegraded_weight <= 1, "in [0, 1]"),
            "degradations": (bool(self.degradations), "a list with at least one degradation"),
            "grace": (0 < self.grace <= 1, "in (0, 1]"),
            "concurrent": (self.concurrent is None or self.concurrent >= 1, "at least 1"),
            "cpus_per_trial": (self.cpus_per_trial is None or self.cpus_per_trial >= 1, "at least 1"),
            "gpus_per_trial": (_gpus_ok(self.gpus_per_trial), "a share of one GPU, or a whole number of them"),
            "workers_per_trial": (self.workers_per_trial is None or self.workers_per_trial >= 1, "at least 1"),
        }
        for key, (good, bound) in rules.items():
            if not good:
                raise UserError(f"search.{key} is {getattr(self, key)}: it must be {bound}")

    def shaping(self) -> dict[str, Any]:
        """Return the settings that decide the outcome, without those that say how it is computed."""
        how = ("concurrent", "cpus_per_trial", "gpus_per_trial", "workers_per_trial")
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in how}

    def objective(self, scores: Scores) -> float:
        """Return what a search maximises, in [0, 1].

        Examples
        --------
        >>> scores = {"none": {0.0: 0.9}, "pepper": {0.08: 0.5, 0.16: 0.3}}
        >>> round(SearchConfig(undegraded_weight=0.25).objective(scores), 3)
        0.525
        """
        return self.undegraded_weight * undegraded(scores) + (1 - self.undegraded_weight) * degraded(scores)


def undegraded(scores: Scores) -> float:
    """Return the undegraded accuracy, in [0, 1]."""
    return float(scores[UNDEGRADED][0.0])


def degraded(scores: Scores) -> float:
    """Return the mean accuracy over levels, then over degradations; where there are none, the undegraded accuracy."""
    means = [sum(levels.values()) / len(levels) for name, levels in scores.items() if name != UNDEGRADED]
    return float(sum(means) / len(means)) if means else undegraded(scores)


def axes(search: SearchConfig, recipe: Recipe) -> dict[str, Axis]:
    """Return the range of each searched key of a recipe.

    A range is widened where the given recipe lies outside of it. A body that is frozen (`lr_body` 0) stays frozen.

    Raises
    ------
    UserError
        If a range holds one value alone, and the given recipe has another.
    """
    longest = search.epochs or [max(1, math.ceil(recipe.epochs / 2)), 2 * recipe.epochs]
    found = {
        "lr_head": _around(recipe.lr_head, search.rate_factor),
        "lr_body": _around(recipe.lr_body, search.rate_factor) if recipe.lr_body > 0 else None,
        "weight_decay": Axis(search.weight_decay[0], search.weight_decay[1], log=True),
        "epochs": Axis(longest[0], longest[1], whole=True),
        "input_dropout": Axis(search.input_dropout[0], search.input_dropout[1]),
    }
    for key in ("weight_decay", "epochs", "input_dropout"):
        axis = found[key]
        if axis and axis.low == axis.high != getattr(recipe, key):
            raise UserError(f"search.{key} is no range: for one value set training.{key}={axis.low:g}")
    return {key: _widened(axis, getattr(recipe, key)) for key, axis in found.items() if axis and axis.low < axis.high}


def recipe_of(point: Mapping[str, Any], recipe: Recipe) -> Recipe:
    """Return a recipe with a trial's values.

    Values that differ from the recipe's are rounded to 4 digits: a file of recipes then holds exactly what was tried.

    Examples
    --------
    >>> recipe_of({"lr_head": 0.00123456, "epochs": 7.0}, Recipe()).lr_head
    0.001235
    """
    values: dict[str, Any] = {}
    for key, value in point.items():
        given = getattr(recipe, key)
        if math.isclose(value, given, rel_tol=1e-9):
            values[key] = given
        else:
            values[key] = round(value) if isinstance(given, int) else float(f"{value:.4g}")
    return dataclasses.replace(recipe, **values)


def _around(value: float, factor: float) -> Axis:
    return Axis(value / factor, value * factor, log=True)


def _widened(axis: Axis, value: float) -> Axis:
    low, high = min(axis.low, value), max(axis.high, value)
    return dataclasses.replace(axis, low=low, high=high, log=axis.log and low > 0)


def _range(pair: list[Any], low: float, high: float) -> bool:
    return len(pair) == 2 and low <= pair[0] <= pair[1] <= high


def _gpus_ok(gpus: float | None) -> bool:
    return gpus is None or 0 <= gpus <= 1 or (gpus > 1 and gpus == int(gpus))
