"""The data set `folder`: the user's own folder of class folders, with an optional list of boxes."""

import csv
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsens_bench.datasets.base import Samples, dataset, make_samples, path_below, require_folder
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.storage import StoragePath, names_below, storage_path

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
LAYOUT = "one sub-folder of images per class, or train/ and test/ with such sub-folders"
SIDES = ("x", "y", "w", "h")


@dataset("folder", folder=None, source="name your own folder with dataset.root=<folder>")
def folder(root: StoragePath | None, *, boxes: str | None = None, test_fraction: float = 0.3) -> Samples:
    """Return the images of a folder. Their ids are their paths below it, and their classes the names of their folders.

    The folder has a folder for each class, or the folders `train` and `test` (or `val`, `valid`) with a folder for each
    class. A class may have images in one split only. Hidden files, and class folders without images, are left out.

    Parameters
    ----------
    root
        The folder, a path or a URI.
    boxes
        A CSV file with the columns `path` (below `root`), `x`, `y`, `w` and `h` (in pixels, from 0). The default is
        `boxes.csv` in the folder, if there is one.
    test_fraction
        The share of test images, between 0 and 1, where the folder has no splits. Test images are chosen by the hash
        of their paths, so that no image changes its split when others are added.

    Raises
    ------
    UserError
        If there are no images, an image lies outside the folder, or the list of boxes is damaged.
    """
    base = require_folder("folder", root, LAYOUT)
    if not isinstance(test_fraction, int | float) or not 0 < test_fraction < 1:
        raise UserError(f"dataset 'folder': test_fraction is {test_fraction}: it must be a number between 0 and 1")
    if boxes is not None and not isinstance(boxes, str):
        raise UserError(f"dataset 'folder': boxes is {boxes!r}: it must be the path of a CSV")
    has_split = True
    splits = {name: split for name, split in SPLIT_FOLDERS.items() if (base / name).is_dir()}
    if {"train", "test"} <= set(splits.values()) or {"train", "val"} <= set(splits.values()):
        # Without a test folder, the images of the validation folder are the test images.
        as_test = "test" if "test" in splits.values() else "val"
        rows = [
            {**row, "split": "test" if split == as_test else split}
            for name, split in splits.items()
            for row in _images(base, base / name)
        ]
    else:
        has_split = False
        rows = _images(base, base)
        for row in rows:
            digest = hashlib.blake2b(str(row["image_id"]).encode(), digest_size=8).digest()
            row["split"] = "test" if int.from_bytes(digest) < test_fraction * 2**64 else "train"
    table, classes = _labelled(base, rows)
    box_file = storage_path(boxes) if boxes else base / "boxes.csv"
    if boxes or box_file.is_file():
        table = table.join(_read_boxes(base, box_file, set(table["image_id"])), on="image_id")
    return make_samples("folder", classes, table, has_split=has_split)


def folder_samples(base: StoragePath, name: str) -> Samples:
    """Return the images of a folder of class folders as a data set of that name, all of them as test images."""
    table, classes = _labelled(base, _images(base, base))
    return make_samples(name, classes, table.assign(split="test"))


def _labelled(base: StoragePath, rows: list[dict[str, object]]) -> tuple[pd.DataFrame, list[str]]:
    """Return rows as a table with labels, and the names of the classes by label."""
    if not rows:
        raise UserError(f"{base} has no class folders with images: expected {LAYOUT}")
    table = pd.DataFrame(rows)
    names = table["class_name"].unique()
    classes = sorted(names, key=_class_order(names))
    return table.assign(label=table["class_name"].map({name: label for label, name in enumerate(classes)})), classes


def _class_order(names: Iterable[str]) -> Callable[[str], Any]:
    """Return the key that classes are sorted by: their numbers, where all names are numbers, else their names."""
    return int if all(name.isascii() and name.isdigit() for name in names) else str


def _images(root: StoragePath, base: StoragePath) -> list[dict[str, object]]:
    """Return a row for each image below `base`; the first folder on its way is its class."""
    rows: list[dict[str, object]] = []
    for parts in sorted(_files(base)):
        hidden = any(part.startswith(".") for part in parts)
        if len(parts) < 2 or Path(parts[-1]).suffix.lower() not in ENDINGS or hidden:
            continue
        path = base.joinpath(*parts)
        relative = "/".join(parts if base == root else (base.name, *parts))
        try:
            relative.encode()
        except UnicodeEncodeError:  # such a name cannot be stored with the results
            raise UserError(f"{root} has an image whose name is not UTF-8 ({relative!r}): rename it") from None
        path_below(root, relative, str(root))
        rows.append({"image_id": relative, "uri": str(path), "class_name": parts[0]})
    return rows


def _files(base: StoragePath) -> Iterator[tuple[str, ...]]:
    """Yield the path of each file below a class folder, as its parts relative to `base`."""
    if not isinstance(base, Path):
        yield from (tuple(name.split("/")) for name in names_below(base))
        return
    for class_folder in base.iterdir():
        if class_folder.is_dir():
            yield from (path.relative_to(base).parts for path in class_folder.rglob("*") if not path.is_dir())


def _read_boxes(root: StoragePath, path: StoragePath, known: set[str]) -> pd.DataFrame:
    """Read the boxes of a CSV file into a table that is indexed by image id.

    The lines are not read by pandas, whose errors and types do not say which line is wrong.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            header = list(reader.fieldnames or [])
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"the boxes {path} cannot be read ({error}): they must be a CSV in UTF-8") from None
    if not header:
        raise UserError(f"the boxes {path} cannot be read (no header): its header must be path,x,y,w,h")
    absent = [column for column in ("path", *SIDES) if column not in header]
    if absent:
        raise UserError(f"{path} lacks the column '{absent[0]}': its header must be path,x,y,w,h")
    boxes: dict[str, list[float]] = {}
    for line, row in rows:
        if None in row:
            raise UserError(
                f"{path}, line {line} has more cells than the header: put a path that holds commas in quotes"
            )
        name = row["path"]
        path_below(root, name, f"{path}, line {line}")
        if name not in known:
            raise UserError(f"{path}, line {line}: there is no image '{name}' below {root}: mend or remove the line")
        if name in boxes:
            raise UserError(f"{path} lists '{name}' twice (again in line {line}): remove one of the lines")
        try:
            boxes[name] = [float(row[key]) for key in SIDES]
        except ValueError:
            boxes[name] = [math.nan]
        if not all(map(math.isfinite, boxes[name])):
            raise UserError(f"{path}, line {line}: x, y, w and h must be numbers: mend or remove the line")
    index = pd.Index(list(boxes), dtype="str")
    return pd.DataFrame(list(boxes.values()), index=index, columns=[f"box_{key}" for key in SIDES], dtype="float64")
