"""What a dataset is here: a table of samples (ids, paths, labels, boxes), never pixels."""

import hashlib
import http.client
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import Registry
from cnnsens_bench.utils.storage import StoragePath, names_below, storing

COLUMNS = ("image_id", "split", "uri", "label", "class_name", "box_x", "box_y", "box_w", "box_h", "mask_uri")
"""Columns of a sample table: `image_id` text, unique; `split` "train", "val" or "test"; `uri` a path or URI;
`label` 0-based; boxes in pixels of the upright image, NaN where there is none; `mask_uri` None where none."""
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Samples:
    """A dataset's sample table. `table` has exactly `COLUMNS`; `classes[label]` names a label;
    `mask_range`: the inclusive range of gray values that mean object in its mask files."""

    name: str
    classes: tuple[str, ...]
    table: pd.DataFrame
    mask_range: tuple[int, int] = (128, 255)

    def split(self, *names: str) -> pd.DataFrame:
        """The rows of the given splits, in the table's order."""
        return self.table[self.table["split"].isin(names)].reset_index(drop=True)

    def fingerprint(self) -> str:
        """SHA-256 of everything in the table but where the files lie; the same on every machine."""
        relative = self.table.drop(columns=["uri", "mask_uri"])
        rows = pd.util.hash_pandas_object(relative, index=False).to_numpy().tobytes()
        return hashlib.sha256(rows + repr(self.classes).encode()).hexdigest()


@dataclass(frozen=True)
class DatasetSource:
    """A registered dataset: how to make its sample table.

    `function(root, **options)` returns `Samples`; `folder` is its official folder name below `data_root`
    (None: it needs no folder); `source` says where people get it, for the error when it is absent.
    """

    name: str
    function: Callable[..., Samples]
    folder: str | None
    source: str


datasets: Registry[DatasetSource] = Registry("dataset")


def dataset(
    name: str, *, folder: str | None, source: str
) -> Callable[[Callable[..., Samples]], Callable[..., Samples]]:
    """Register `function(root: Place | None, **options) -> Samples` under `name`."""

    def decorate(function: Callable[..., Samples]) -> Callable[..., Samples]:
        datasets.add(name, DatasetSource(name, function, folder, source))
        return function

    return decorate


def make_samples(
    name: str, classes: list[str], rows: pd.DataFrame, mask_range: tuple[int, int] = (128, 255)
) -> Samples:
    """Check a loader's rows and put them in `COLUMNS` order; missing box and mask columns are filled.

    Raises `UserError` for duplicate ids, labels out of range or with gaps, unknown splits or an empty table.
    """
    table = rows.copy()
    for column in ("box_x", "box_y", "box_w", "box_h"):
        if column not in table:
            table[column] = float("nan")
        table[column] = table[column].astype("float64")
    if "mask_uri" not in table:
        table["mask_uri"] = None
    # pandas turns None into NaN in a column that has texts too.
    table["mask_uri"] = table["mask_uri"].astype(object).where(table["mask_uri"].notna(), None)
    if "class_name" not in table:
        table["class_name"] = [classes[i] for i in table["label"]]
    if table.empty:
        raise UserError(f"dataset '{name}' has no images: check its root and its lists")
    if table["image_id"].duplicated().any():
        twice = table.loc[table["image_id"].duplicated(), "image_id"].iloc[0]
        raise UserError(f"dataset '{name}' lists image '{twice}' twice: image ids must be unique")
    if not table["label"].between(0, len(classes) - 1).all():
        wrong = table.loc[~table["label"].between(0, len(classes) - 1), "image_id"].iloc[0]
        raise UserError(f"dataset '{name}': image '{wrong}' has a label outside its {len(classes)} classes")
    if not (table["label"] == table["label"].round()).all():
        raise UserError(f"dataset '{name}' has labels that are not whole numbers: number its classes 0, 1, 2, …")
    table["label"] = table["label"].astype("int64")
    absent = sorted(set(range(len(classes))) - set(table["label"]))
    if absent:
        raise UserError(
            f"dataset '{name}': class '{classes[absent[0]]}' (label {absent[0]}) has no images: leave it out of the "
            "classes, and number the others 0, 1, 2, … without gaps"
        )
    if not table["split"].isin(SPLITS).all():
        wrong = table.loc[~table["split"].isin(SPLITS), "image_id"].iloc[0]
        raise UserError(f"dataset '{name}': image '{wrong}' is in no split: use one of {', '.join(SPLITS)}")
    table["image_id"] = table["image_id"].astype(str)
    return Samples(name, tuple(classes), table[list(COLUMNS)].reset_index(drop=True), mask_range)


def require_folder(name: str, root: StoragePath | None, expected: str) -> StoragePath:
    """`root`, once it exists; else a `UserError` naming the source and the layout `expected`."""
    source = datasets[name].source
    if root is None:
        raise UserError(f"dataset '{name}' needs dataset.root=<folder> or data_root=<folder above it>: {source}")
    with storing(root):
        there = root.is_dir()
    if not there:
        raise UserError(f"dataset '{name}': the folder {root} does not exist; {source}; expected in it: {expected}")
    return root


def download_with(name: str, torchvision_class: str, root: StoragePath | None, expected: str) -> None:
    """Let a dataset class of torchvision fetch its archives to `root`.

    Raises `UserError`, naming the source and the layout `expected`, when it cannot.
    """
    import torchvision.datasets

    folder = datasets[name].folder
    if not isinstance(root, Path) or root.name != folder:
        raise UserError(f"dataset '{name}': a download needs data_root=<folder>, below which it makes {folder}/")
    try:
        getattr(torchvision.datasets, torchvision_class)(root.parent, download=True)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise UserError(
            f"dataset '{name}' cannot be downloaded ({error}): {datasets[name].source}; expected in {root}: {expected}"
        ) from None


def inside(root: StoragePath, relative: str, listed_in: str) -> StoragePath:
    """`root / relative`, which need not exist; of a path or a URI. `listed_in`: what names it, for the error.

    Raises `UserError` when it is not below `root` (absolute, `..`, a link that points outside) or is no path at all.
    """
    if not isinstance(root, Path):
        # A URI knows no links; what follows is no name of a file in any of the systems behind URIs.
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


def listed(folder: StoragePath, *within: str) -> Callable[[str], bool]:
    """Whether `folder` has a file of that relative name. Of a URI, `within` these folders, which are listed once."""
    if isinstance(folder, Path):
        # Unlike Path.is_file, no error for a name too long for the disk.
        return lambda relative: os.path.isfile(folder / relative)
    names = {f"{part}/{name}" for part in within for name in names_below(folder / part)}
    return lambda relative: relative in names


def load(name: str, root: StoragePath | None, data_root: StoragePath | None, options: dict[str, Any]) -> Samples:
    """The samples of a registered dataset; its folder is `root`, or its official name below `data_root`.

    Raises `UserError` for an unknown dataset or option.
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
