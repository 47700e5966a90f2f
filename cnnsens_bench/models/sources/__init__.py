"""The model sources. Each module of this folder registers one with `@model_source`."""

from cnnsens_bench.utils.plugins import import_submodules

import_submodules(__name__)
