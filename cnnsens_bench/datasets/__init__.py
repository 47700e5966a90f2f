"""Data sets as tables of samples. Each module of this folder registers one data set with `@dataset`."""

from cnnsens_bench.datasets.base import DatasetSource, Samples, dataset, datasets, load, make_samples
from cnnsens_bench.utils.plugins import import_submodules

import_submodules(__name__)

__all__ = ["DatasetSource", "Samples", "dataset", "datasets", "load", "make_samples"]
