"""Defenses: pre-filters at test time, changes of the training, and batch-norm statistics of the degraded images.

See `base` for what one is and how to register your own.
"""

from cnnsens_bench.defenses import filters, recalibration, trained
from cnnsens_bench.defenses.base import (
    Defense,
    Part,
    PreFilter,
    Recalibration,
    TrainingChange,
    defense,
    defenses,
    parse_defense,
)

__all__ = [
    "Defense",
    "Part",
    "PreFilter",
    "Recalibration",
    "TrainingChange",
    "defense",
    "defenses",
    "filters",
    "parse_defense",
    "recalibration",
    "trained",
]
