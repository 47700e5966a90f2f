"""What all data sets share besides `Samples`: the registry, and safe ways to the files that lists name."""

import http.client
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnsens_bench.datasets.samples import Samples
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import Registry
from cnnsens_bench.utils.storage import StoragePath, names_below, storing

Loader = Callable[..., Samples]
"""A function of a data set's folder and options."""


@dataclass(frozen=True)
class DatasetSource:
    """A registered data set; `dataset` explains the attributes."""

    name: str
    function: Loader
    folder: str | None
    source: str
    shareable: bool = False


datasets: Registry[DatasetSource] = Registry("dataset")


def dataset(name: str, *, folder: str | None, source: str, shareable: bool = False) -> Callable[[Loader], Loader]:
    """Register a function that makes the samples of a data set.

    The function is called as `function(root, **options)` and returns `Samples`, most simply by `make_samples`.
    `root` is the data set's folder (a `Path`, or a `UPath` for a URI), or None where the user named none. Each keyword
    argument is an option that the config key `dataset.options` takes. The function reads lists, never pixels, and
    raises `UserError` for files that are absent or damaged; `require_folder` and `path_below` help with both.

    Parameters
    ----------
    name
        The name that the config key `dataset` takes.
    folder
        The official name of the data set's folder, which is looked for below `data_root`; None if it has none.
    source
        A phrase that says where users get the data set, for the error when it is absent.
    shareable
        Whether its licence allows anybody to publish its images: the command `pictures` shows them without being asked.

    Examples
    --------
    >>> import pandas as pd
    >>> from cnnsens_bench.datasets import make_samples
    >>> @dataset("two_dots", folder=None, source="it needs no files")
    ... def two_dots(root, *, ending: str = "png"):
    ...     names = ["red", "blue"]
    ...     rows = {"image_id": names, "split": "test", "uri": [f"{name}.{ending}" for name in names], "label": [0, 1]}
    ...     return make_samples("two_dots", names, pd.DataFrame(rows))
    >>> load("two_dots", None, None, {"ending": "jpg"}).table[["uri", "class_name"]].to_numpy().tolist()
    [['red.jpg', 'red'], ['blue.jpg', 'blue']]
    """

    def decorate(function: Loader) -> Loader:
        datasets.add(name, DatasetSource(name, function, folder, source, shareable))
        return function

    return decorate


def require_folder(name: str, root: StoragePath | None, expected: str, download: str | None = None) -> StoragePath:
    """Return the folder of a data set once it is known to exist.

    Parameters
    ----------
    name
        The name of the registered data set.
    root
        The folder, or None where the user named none.
    expected
        The layout of the folder, for the error.
    download
        The name of the class in `torchvision.datasets` that downloads the archives into the folder first, which must
        have the official name of the data set; None for no download.

    Raises
    ------
    UserError
        If there is no folder, or the download fails. The sentence says where to get the data set.
    """
    if download:
        _download(name, download, root, expected)
    source = datasets[name].source
    if root is None:
        above = " or data_root=<folder above it>" if datasets[name].folder else ""
        raise UserError(f"dataset '{name}' needs dataset.root=<folder>{above}: {source}")
    with storing(root):
        exists = root.is_dir()
    if not exists:
        raise UserError(f"dataset '{name}': the folder {root} does not exist; {source}; expected in it: {expected}")
    return root


def _download(name: str, torchvision_class: str, root: StoragePath | None, expected: str) -> None:
    """Let a data set class of torchvision download its archives into the folder of a data set."""
    import torchvision.datasets

    folder = datasets[name].folder
    if not isinstance(root, Path) or root.name != folder:
        raise UserError(f"dataset '{name}': a download needs data_root=<folder>, below which it makes {folder}/")
    try:
        getattr(torchvision.datasets, torchvision_class)(root.parent, download=True)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        source = datasets[name].source
        raise UserError(
            f"dataset '{name}' cannot be downloaded ({error}): {source}; expected in {root}: {expected}"
        ) from None


def path_below(root: StoragePath, relative: str, listed_in: str) -> StoragePath:
    """Return the path of a file that a list names, once it is known to lie below a folder. The file need not exist.

    Parameters
    ----------
    root
        The folder, a path or a URI.
    relative
        What the list names, relative to the folder.
    listed_in
        The list, for the error.

    Raises
    ------
    UserError
        If the file would lie outside the folder (an absolute path, `..`, or a link that points outside), or if the
        name is no path at all.

    Examples
    --------
    >>> path_below(Path("/data/birds"), "auk/1.jpg", "images.txt").as_posix()
    '/data/birds/auk/1.jpg'
    >>> path_below(Path("/data/birds"), "../secret.jpg", "images.txt")
    Traceback (most recent call last):
    cnnsens_bench.utils.errors.UserError: images.txt names '../secret.jpg', which lies outside /data/birds: only files \
below it are read
    """
    if not isinstance(root, Path):
        # URIs have no links. What is refused here names no file in any of the systems behind URIs.
        parts = relative.split("/")
        if {"", ".", ".."} & set(parts) or any(text in relative for text in ("::", "://", "\\", "\0")):
            raise UserError(f"{listed_in} names '{relative[:80]}', which is no file below {root}: mend or remove it")
        return root / relative
    path = root / relative
    try:
        top, target = root.resolve(), path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a link to itself, a NUL byte
        raise UserError(f"{listed_in} names {relative[:80]!r}, which is no path ({error}): mend or remove it") from None
    if Path(relative).is_absolute() or target == top or not target.is_relative_to(top):
        raise UserError(f"{listed_in} names '{relative}', which lies outside {root}: only files below it are read")
    return path


def file_test(root: StoragePath, *folders: str) -> Callable[[str], bool]:
    """Return a function that says whether a file exists below a folder.

    Parameters
    ----------
    root
        The folder, a path or a URI.
    *folders
        The folders below `root` that are asked about. For a URI each is listed once, and other files do not exist.

    Returns
    -------
    callable
        It takes a name relative to `root`.
    """
    if isinstance(root, Path):
        # Unlike Path.is_file, this raises no error for a name that is too long for the disk.
        return lambda relative: os.path.isfile(root / relative)
    names = {f"{folder}/{name}" for folder in folders for name in names_below(root / folder)}
    return lambda relative: relative in names


def load(name: str, root: StoragePath | None, data_root: StoragePath | None, options: dict[str, Any]) -> Samples:
    """Return the samples of a registered data set.

    Parameters
    ----------
    name
        The name under which the data set is registered.
    root
        The folder of the data set, a path or a URI. It takes precedence over `data_root`.
    data_root
        A folder that holds data sets in folders of their official names.
    options
        The options of the data set, by name.

    Raises
    ------
    UserError
        If there is no such data set or option, or if its files are absent or damaged.
    """
    source = datasets[name]
    parameters = inspect.signature(source.function).parameters
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    known = [parameter for parameter in parameters if parameter != "root"]
    for option in options:
        if option not in known and not takes_any:
            has = f"its options are {', '.join(known)}" if known else "it has none"
            raise UserError(f"dataset '{name}' has no option '{option}': {has}")
    if root is None and data_root is not None and source.folder is not None:
        root = data_root / source.folder
    return source.function(root, **options)
