"""What a defense is, how to register one, and how to read its text.

A defense is a function of its parameters that returns what the defense does, usually a filter of the degraded image:

    @defense("clamp")
    def clamp(low: float = 8.0):
        return lambda pixels: pixels.clamp(min=low)

A config and the database's column `defense` write it as `clamp(low=8.0)`, and several, applied in their order, as
`input_dropout(p=0.1) + gaussian_filter(size=3, sigma=0.5)`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import Registry
from cnnsens_bench.utils.spec_parser import SpecSyntax, call_factory, join_names, parse_spec

PreFilter = Callable[[Tensor], Tensor]
"""Filters a batch (N, 3, H, W) float32 in [0, 255], each image by itself, and returns the same shape and range; it must
not change its argument."""


@dataclass(frozen=True)
class TrainingChange:
    """What a defense changes in the fine-tuning of the network: keys of `training` in the config, and their values."""

    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Recalibration:
    """New batch-norm statistics, measured on degraded images.

    Parameters
    ----------
    images
        How many degraded images they are measured on.
    prior
        How many images the statistics of the training count for.
    """

    images: int
    prior: float


DefensePart = PreFilter | TrainingChange | Recalibration | None
"""What a registered function may return: a filter of the degraded images, a change of the training, new batch-norm
statistics, or None, which leaves everything as it is."""


@dataclass(frozen=True)
class Defense:
    """A defense as a run uses it; `parse_defense` makes one of a text.

    Parameters
    ----------
    name
        The canonical name, with every argument.
    prefilter
        The filter of degraded images; None if they go to the network unfiltered.
    training
        The keys of the training that differ, and their values.
    recalibration
        None if batch norm keeps the statistics of the training.
    """

    name: str
    prefilter: PreFilter | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    recalibration: Recalibration | None = None


defenses: Registry[Callable[..., DefensePart]] = Registry("defense")

SYNTAX = SpecSyntax("defense", "gaussian_filter(size=3, sigma=0.5)")


def defense(name: str) -> Callable[[Callable[..., DefensePart]], Callable[..., DefensePart]]:
    """Register the decorated function as a defense.

    The function's parameters need defaults; a config may give others, by name. It raises `ValueError` for impossible
    ones, and returns one of these:

    - a filter of the degraded images (N, 3, H, W) in [0, 255], which looks at each image by itself;
    - `TrainingChange({"epochs": 30})`, for a network that is fine-tuned otherwise;
    - `Recalibration(images, prior)`, for new batch-norm statistics.

    Examples
    --------
    In `my_defenses.py`, for a run with `plugins=[my_defenses]`::

        from cnnsens_bench.defenses import TrainingChange, defense

        @defense("brighten")
        def brighten(by: float = 10.0):
            return lambda pixels: (pixels + by).clamp(0, 255)

        @defense("close_crops")
        def close_crops(min_area: float = 0.8):
            return TrainingChange({"min_area": min_area})
    """
    return defenses.register(name)


@defense("none")
def none() -> None:
    """Leave images and training as they are."""
    return


def parse_defense(text: str) -> Defense:
    """Return the defense that a text describes; arguments that it leaves out take their defaults.

    Parameters
    ----------
    text
        `name`, `name(argument=value, …)`, or several of these joined by `+`.

    Raises
    ------
    UserError
        If the text cannot be read, a name or an argument is unknown, a value is impossible, or parts exclude each
        other.

    Examples
    --------
    >>> parse_defense("median_filter + input_dropout(p=0.2)").name
    'median_filter(size=3) + input_dropout(p=0.2)'
    """
    named_parts = [call_factory(defenses, text, term, SYNTAX) for term in parse_spec(text, SYNTAX)]
    return _join(text, join_names(name for name, _ in named_parts), [part for _, part in named_parts])


def _join(text: str, name: str, parts: Sequence[DefensePart]) -> Defense:
    """Return several parts as one defense."""
    if len(parts) > 1 and None in parts:
        raise UserError(f"defense '{text}': 'none' cannot be joined with another: leave it out")
    changes: dict[str, Any] = {}
    for training in (part for part in parts if isinstance(part, TrainingChange)):
        if changes.keys() & training.changes.keys():
            raise UserError(f"defense '{text}' sets the same key of the training twice: leave one part out")
        changes |= training.changes
    recalibrations = [part for part in parts if isinstance(part, Recalibration)]
    if len(recalibrations) > 1:
        raise UserError(f"defense '{text}' recalibrates twice: leave one part out")
    filters = [part for part in parts if part is not None and not isinstance(part, TrainingChange | Recalibration)]
    return Defense(name, _compose(filters), changes, recalibrations[0] if recalibrations else None)


def _compose(filters: Sequence[PreFilter]) -> PreFilter | None:
    """Return one filter that applies all in their order, or None where there are none."""
    if not filters:
        return None
    return lambda pixels: functools.reduce(lambda filtered, step: step(filtered), filters, pixels)


def checked_size(size: int) -> int:
    """Return the side of a square window. Raises `ValueError` unless it is odd and at least 1."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1 or size % 2 == 0:
        raise ValueError("size must be odd and at least 1")
    return size


def checked_number(name: str, value: float, good: Callable[[float], bool], bound: str) -> float:
    """Return an argument's value. Raises `ValueError`, which names the `bound`, unless it is a number that is good."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not good(value):
        raise ValueError(f"{name} must be {bound}")
    return float(value)
