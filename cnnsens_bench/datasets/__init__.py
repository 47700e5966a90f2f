"""Datasets: one file a source, each registers itself and gives a table of samples."""

from cnnsens_bench.datasets import cub200, plumage
from cnnsens_bench.datasets.base import DatasetSource, Samples, dataset, datasets, load, make_samples

__all__ = ["DatasetSource", "Samples", "cub200", "dataset", "datasets", "load", "make_samples", "plumage"]
