"""Degradations: pure batched tensor maths, no I/O.

The names below come from `builtin`, which registers the built-in degradations. It is imported when the first of them is
used, so that `python -m cnnsens_bench.degradations --help` does not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnsens_bench.degradations.builtin import (
        Degradation,
        Motion,
        Reach,
        Streams,
        degradation,
        degradations,
        expression,
        parse_degradation,
    )

__all__ = [
    "Degradation",
    "Motion",
    "Reach",
    "Streams",
    "degradation",
    "degradations",
    "expression",
    "parse_degradation",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module("cnnsens_bench.degradations.builtin"), name)
