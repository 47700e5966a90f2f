"""The public names of this package. Importing this module registers the built-in degradations."""
# ruff: noqa: F401 (what is imported here is for others)

from cnnsens_bench.degradations.base import Degradation, degradation, degradations
from cnnsens_bench.degradations.expressions import parse_degradation, parse_degradations, write_expression
from cnnsens_bench.degradations.motion import Motion, Reach
from cnnsens_bench.degradations.streams import Streams
from cnnsens_bench.utils.plugins import import_submodules

for folder in ("camera", "imagenet_c", "paper"):
    import_submodules(f"cnnsens_bench.degradations.{folder}")
