"""What a defense is: a pre-filter of the degraded image, a change of the training recipe, or new batch-norm statistics.

    @defense("clamp")
    def clamp(low: float = 8.0):
        return lambda pixels: pixels.clamp(min=low)

A defense is written as in the config and in the `defense` column: `gaussian_filter(size=3, sigma=0.5)`, or several
joined by `+`, filters in their order: `input_dropout(p=0.1) + gaussian_filter(size=3, sigma=0.5)`.
"""

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import Registry, call

PreFilter = Callable[[Tensor], Tensor]
"""(N, 3, H, W) float32 in [0, 255], not changed → the same, filtered; each image by itself alone."""


@dataclass(frozen=True)
class TrainingChange:
    """What a trained defense changes in the recipe: names of its keys → values."""

    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Recalibration:
    """Batch-norm statistics of `images` degraded images, the training's counting as much as `prior` images."""

    images: int
    prior: float


@dataclass(frozen=True)
class Defense:
    """`name`: canonical, with every argument. `prefilter`: None where images go to the network as they are;
    `training`: what differs in the recipe; `recalibration`: None where batch norm keeps its trained statistics."""

    name: str
    prefilter: PreFilter | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    recalibration: Recalibration | None = None


Part = PreFilter | TrainingChange | Recalibration | None
"""What a factory gives."""

defenses: Registry[Callable[..., Part]] = Registry("defense")

FORM = "gaussian_filter(size=3, sigma=0.5)"


def defense(name: str) -> Callable[[Callable[..., Part]], Callable[..., Part]]:
    """Register a factory: keyword arguments → its part. It raises `ValueError` for impossible arguments."""
    return defenses.register(name)


@defense("none")
def none() -> None:
    """Images as they are."""
    return


def parse_defense(text: str) -> Defense:
    """`name`, `name(argument=value, …)`, or several joined by `+` → `Defense`; arguments left out take their defaults.

    Raises `UserError` for an unknown name, an unknown argument, an impossible value, or parts that exclude each other.
    """
    try:
        terms = _terms(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UserError(f"defense '{text[:200]}' cannot be read: write it as {FORM}") from None
    return _joined(text, [call(defenses, text, term, FORM) for term in terms])


def _terms(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [*_terms(node.left), *_terms(node.right)]
    return [node]


def _joined(text: str, parsed: list[tuple[str, Part]]) -> Defense:
    parts = [part for _, part in parsed]
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
    return Defense(
        " + ".join(name for name, _ in parsed),
        _chained(filters),
        changes,
        recalibrations[0] if recalibrations else None,
    )


def _chained(filters: list[PreFilter]) -> PreFilter | None:
    if len(filters) < 2:
        return filters[0] if filters else None

    def prefilter(pixels: Tensor) -> Tensor:
        for step in filters:
            pixels = step(pixels)
        return pixels

    return prefilter


def checked_size(size: int) -> int:
    """`size`, or a `ValueError` unless a square of that many pixels has a middle."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1 or size % 2 == 0:
        raise ValueError("size must be odd and at least 1")
    return size


def checked_number(name: str, value: float, good: Callable[[float], bool], bound: str) -> float:
    """`value`, or a `ValueError` that names `bound` unless it is a number that is `good`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not good(value):
        raise ValueError(f"{name} must be {bound}")
    return float(value)
