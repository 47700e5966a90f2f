"""Sensitivity: how strongly noise will change the prediction of one image (paper, sections 3 and 4).

The package can be called too: `cnnsens_bench.sensitivity(network, images)` is the function of `cnnsens_bench.api`.
"""

import importlib
import sys
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package that hands calls on to the public function of its name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call `cnnsens_bench.api.sensitivity`."""
        return importlib.import_module("cnnsens_bench.api").sensitivity(*arguments, **options)


sys.modules[__name__].__class__ = CallablePackage
