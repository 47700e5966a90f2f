"""Defenses: filters at test time, changes of the training, and batch-norm statistics of the degraded images.

`base` says what a defense is and how to register one. To add one to the tree, put its module here: all are imported.
"""

from cnnsens_bench.defenses.base import Defense, Recalibration, TrainingChange, defense, defenses, parse_defense
from cnnsens_bench.utils.plugins import import_submodules

import_submodules(__name__)

__all__ = ["Defense", "Recalibration", "TrainingChange", "defense", "defenses", "parse_defense"]
