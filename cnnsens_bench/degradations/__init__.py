"""Degradations: pure batched tensor maths, no I/O. Importing this package registers the built-in ones."""

from cnnsens_bench.degradations import camera, imagenet_c, paper
from cnnsens_bench.degradations.base import Degradation, Motion, Reach, degradation, degradations
from cnnsens_bench.degradations.expressions import expression, parse_degradation
from cnnsens_bench.degradations.streams import Streams

__all__ = [
    "Degradation",
    "Motion",
    "Reach",
    "Streams",
    "camera",
    "degradation",
    "degradations",
    "expression",
    "imagenet_c",
    "paper",
    "parse_degradation",
]
