"""The public names of this package. Importing this module registers the built-in degradations."""

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
