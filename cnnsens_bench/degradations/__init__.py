"""Degradations: pure batched tensor maths, no I/O. Importing this package registers the built-in ones."""

from cnnsens_bench.degradations import colour, geometry, impulse
from cnnsens_bench.degradations.base import Degradation, Motion, degradation, degradations
from cnnsens_bench.degradations.streams import Streams

__all__ = ["Degradation", "Motion", "Streams", "colour", "degradation", "degradations", "geometry", "impulse"]
