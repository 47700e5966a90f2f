"""What all data sets share: the table of samples, the registry, and safe ways to the files that lists name."""

import functools
import hashlib
import http.client
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import Registry
from cnnsens_bench.utils.storage import StoragePath, names_below, storing

COLUMNS = ("image_id", "split", "uri", "label", "class_name", "box_x", "box_y", "box_w", "box_h", "mask_uri")
"""The columns of a table of samples, which `Samples` explains."""
BOX = ("box_x", "box_y", "box_w", "box_h")
SPLITS = ("train", "val", "test")
MASK_RANGE = (128, 255)


@dataclass(frozen=True)
class Samples:
    """The samples of a data set: what is known of each image, without its pixels.

    Attributes
    ----------
    name : str
        The name of the data set, as the tables of results show it.
    classes : tuple of str
        The names of the classes. `classes[label]` is the class of a label.
    table : pandas.DataFrame
        One row for each image, with the columns `COLUMNS`:

        - `image_id` (text): unique, and the same on every machine, because random draws depend on it.
        - `split` (text): `train`, `val` or `test`.
        - `uri` (text): the path or URI of the image file.
        - `label` (int64): the class, from 0.
        - `class_name` (text): the name of the class.
        - `box_x`, `box_y`, `box_w`, `box_h` (float64): the left, top, width and height of the object's box in pixels
          of the upright image, from 0; NaN where there is no box.
        - `mask_uri` (text or None): the path or URI of a mask of the object, which is as large as the image.
    mask_range : tuple of int
        The lowest and the highest gray value that mean object in the masks.
    has_split : bool
        Whether the data set says which images are for training. Where it does not, the splits in the table are a
        proposal, and all images are tested in a run that trains nothing.
    notes : tuple of str
        What was left out or guessed while the data set was read, in sentences that a run says.
    content : str
        A digest of what is known of the images without decoding them, such as their sizes; empty where
        nothing is. It is part of the fingerprint, so that a file replaced by another of its name is noticed.
    """

    name: str
    classes: tuple[str, ...]
    table: pd.DataFrame
    mask_range: tuple[int, int] = MASK_RANGE
    has_split: bool = True
    notes: tuple[str, ...] = ()
    content: str = ""

    def split(self, *names: str) -> pd.DataFrame:
        """Return the rows of the given splits in the order of the table, with a fresh index."""
        return self.table[self.table["split"].isin(names)].reset_index(drop=True)

    def fingerprint(self) -> str:
        """Return a SHA-256 of the classes and of the table without its paths, which is equal on every machine."""
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        without_paths = self.table.drop(columns=["uri", "mask_uri"])
        rows = pd.util.hash_pandas_object(without_paths, index=False).to_numpy().tobytes()
        return hashlib.sha256(rows + repr(self.classes).encode() + self.content.encode()).hexdigest()


Loader = Callable[..., Samples]
"""A function of a data set's folder and options."""


@dataclass(frozen=True)
class DatasetSource:
    """A registered data set; `dataset` explains the attributes."""

    name: str
    function: Loader
    folder: str | None
    source: str


datasets: Registry[DatasetSource] = Registry("dataset")


def dataset(name: str, *, folder: str | None, source: str) -> Callable[[Loader], Loader]:
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

    Examples
    --------
    >>> import pandas as pd
    >>> @dataset("two_dots", folder=None, source="it needs no files")
    ... def two_dots(root, *, ending: str = "png"):
    ...     names = ["red", "blue"]
    ...     rows = {"image_id": names, "split": "test", "uri": [f"{name}.{ending}" for name in names], "label": [0, 1]}
    ...     return make_samples("two_dots", names, pd.DataFrame(rows))
    >>> load("two_dots", None, None, {"ending": "jpg"}).table[["uri", "class_name"]].to_numpy().tolist()
    [['red.jpg', 'red'], ['blue.jpg', 'blue']]
    """

    def decorate(function: Loader) -> Loader:
        datasets.add(name, DatasetSource(name, function, folder, source))
        return function

    return decorate


def make_samples(
    name: str,
    classes: list[str],
    rows: pd.DataFrame,
    mask_range: tuple[int, int] = MASK_RANGE,
    has_split: bool = True,
    notes: tuple[str, ...] = (),
    content: str = "",
) -> Samples:
    """Check the rows of a data set, complete their columns, and return them as `Samples`.

    Parameters
    ----------
    name
        The name of the data set.
    classes
        The names of the classes by label.
    rows
        A row for each image with the columns `image_id`, `split`, `uri` and `label`, and optionally the other columns
        of `Samples.table`. Further columns are dropped.
    mask_range
        The lowest and the highest gray value that mean object in the masks.
    has_split, notes, content
        As in `Samples`.

    Raises
    ------
    UserError
        If there are no rows, an image id occurs twice, a label is not a class, a class has no images, or a split is
        unknown.
    """
    absent = {column: float("nan") for column in (*BOX, "mask_uri") if column not in rows}
    table = rows.assign(**absent).astype(dict.fromkeys(BOX, "float64"))
    # pandas turns None into NaN in a column that also holds text.
    table["mask_uri"] = table["mask_uri"].astype(object).where(table["mask_uri"].notna(), None)
    if table.empty:
        raise UserError(f"dataset '{name}' has no images: check its root and its lists")
    if table["image_id"].duplicated().any():
        twice = table.loc[table["image_id"].duplicated(), "image_id"].iloc[0]
        raise UserError(f"dataset '{name}' lists image '{twice}' twice: image ids must be unique")
    _check_labels(name, classes, table)
    table["label"] = table["label"].astype("int64")
    if "class_name" not in table:
        table["class_name"] = np.asarray(classes, object)[table["label"]]
    if not table["split"].isin(SPLITS).all():
        wrong = table.loc[~table["split"].isin(SPLITS), "image_id"].iloc[0]
        raise UserError(f"dataset '{name}': image '{wrong}' is in no split: use one of {', '.join(SPLITS)}")
    table["image_id"] = table["image_id"].astype(str)
    return Samples(
        name, tuple(classes), table[list(COLUMNS)].reset_index(drop=True), mask_range, has_split, notes, content
    )


def _check_labels(name: str, classes: list[str], table: pd.DataFrame) -> None:
    """Raise `UserError` unless the labels are the whole numbers from 0 to the number of classes less 1, all used."""
    outside = ~table["label"].between(0, len(classes) - 1)
    if outside.any():
        wrong = table.loc[outside, "image_id"].iloc[0]
        raise UserError(f"dataset '{name}': image '{wrong}' has a label outside its {len(classes)} classes")
    if not (table["label"] == table["label"].round()).all():
        raise UserError(f"dataset '{name}' has labels that are not whole numbers: number its classes 0, 1, 2, …")
    absent = sorted(set(range(len(classes))) - set(table["label"]))
    if absent:
        raise UserError(
            f"dataset '{name}': class '{classes[absent[0]]}' (label {absent[0]}) has no images: leave it out of the "
            "classes, and number the others 0, 1, 2, … without gaps"
        )


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
