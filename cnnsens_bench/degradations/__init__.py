"""Degradations: batched tensor maths without I/O. The public names are those of the module `builtin`.

They are imported when the first of them is used, so that `python -m cnnsens_bench.degradations --help` does not wait
for torch. To add one to the tree, put its module into `camera`, `imagenet_c` or `paper`: every module there is
imported.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnsens_bench.degradations.builtin import *  # noqa: F403


def __getattr__(name: str) -> Any:
    return getattr(importlib.import_module("cnnsens_bench.degradations.builtin"), name)
