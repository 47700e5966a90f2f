"""Datasets: one file a source, each registers itself and gives a table of samples."""

from cnnsens_bench.datasets import cub200, flowers102, folder, oxford_pets, plumage
from cnnsens_bench.datasets.base import DatasetSource, Samples, dataset, datasets, load, make_samples

__all__ = [
    "DatasetSource",
    "Samples",
    "cub200",
    "dataset",
    "datasets",
    "flowers102",
    "folder",
    "load",
    "make_samples",
    "oxford_pets",
    "plumage",
]
