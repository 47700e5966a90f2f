"""Data sets as tables of samples. Each module of this folder registers one data set with `@dataset`."""

from typing import Any

from cnnsens_bench.datasets.base import DatasetSource, dataset, datasets, load
from cnnsens_bench.datasets.samples import Samples, make_samples
from cnnsens_bench.utils.plugins import import_submodules
from cnnsens_bench.utils.storage import StoragePath, storage_path

import_submodules(__name__)

__all__ = ["DatasetSource", "Samples", "dataset", "datasets", "load", "load_dataset", "make_samples"]


def load_dataset(name: str, root: str | StoragePath | None = None, **options: Any) -> Samples:
    """Return the table of samples of a registered data set.

    Parameters
    ----------
    name
        The name that the config key `dataset` takes, such as `plumage` or `folder`.
    root
        The folder or URI of the data set; a data set that needs none, such as `plumage`, is drawn into the cache.
    **options
        The data set's own options, which the config has as `dataset.options`.

    Raises
    ------
    UserError
        If there is no such data set or option, or if the files are not where they should be.
    """
    return load(name, storage_path(root) if root else None, None, options)
