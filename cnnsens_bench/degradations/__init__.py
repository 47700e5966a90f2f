"""Degradations: batched tensor maths without I/O. Importing this package registers the built-in ones.

To add one to the tree, put its module into `camera`, `imagenet_c` or `paper`: every module there is imported.
"""

from cnnsens_bench.degradations.base import Degradation, degradation, degradations
from cnnsens_bench.degradations.expressions import parse_degradation, parse_degradations, write_expression
from cnnsens_bench.degradations.motion import Motion, Reach
from cnnsens_bench.degradations.streams import Streams
from cnnsens_bench.utils.registry import import_modules

for folder in ("camera", "imagenet_c", "paper"):
    import_modules(f"{__name__}.{folder}")

__all__ = [
    "Degradation",
    "Motion",
    "Reach",
    "Streams",
    "degradation",
    "degradations",
    "parse_degradation",
    "parse_degradations",
    "write_expression",
]
