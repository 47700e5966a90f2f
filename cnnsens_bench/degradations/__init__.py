"""Degradations: pure batched tensor maths, no I/O. Importing this package registers the built-in ones."""

from cnnsens_bench.degradations import camera, colour, common, geometry, impulse
from cnnsens_bench.degradations.base import Degradation, Motion, Reach, degradation, degradations
from cnnsens_bench.degradations.expressions import expression, parse_degradation
from cnnsens_bench.degradations.streams import Streams

__all__ = [
    "Degradation",
    "Motion",
    "Reach",
    "Streams",
    "camera",
    "colour",
    "common",
    "degradation",
    "degradations",
    "expression",
    "geometry",
    "impulse",
    "parse_degradation",
]
