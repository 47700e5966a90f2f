"""The data set `folder`: the user's own folder of class folders, with an optional list of boxes."""

import csv
import hashlib
import math
import os
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from cnnsens_bench.datasets.base import dataset, path_below, require_folder
from cnnsens_bench.datasets.listing import LeftOut, images_of, tree_of
from cnnsens_bench.datasets.samples import Samples, make_samples
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.storage import StoragePath, is_local, storage_path

SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
BOXES = "boxes.csv"
LAYOUT = "one sub-folder of images per class, or train/ and test/ with such sub-folders"
SIDES = ("x", "y", "w", "h")


@dataset("folder", folder=None, source="name your own folder of photographs")
def folder(
    root: StoragePath | None, *, boxes: str | None = None, test_fraction: float = 0.3, name: str = "folder"
) -> Samples:
    """Return the images of a folder. Their ids are their paths below it, and their classes the names of their folders.

    The folder has a folder for each class, or the folders `train` and `test` (or `val`, `valid`) with a folder for each
    class. A class may have images in one split only. Where there is one such folder alone, or none, the data set has no
    split of its own: test images are then proposed by the hash of their paths. Links are followed. Hidden files, files
    that are no images, and class folders without images are left out, and a note counts them.

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
    name
        The name of the data set in the results.

    Raises
    ------
    UserError
        If there are no images, or the list of boxes is damaged.
    """
    base = require_folder("folder", root, LAYOUT)
    if not isinstance(test_fraction, int | float) or not 0 < test_fraction < 1:
        raise UserError(f"dataset 'folder': test_fraction is {test_fraction}: it must be a number between 0 and 1")
    if boxes is not None and not isinstance(boxes, str):
        raise UserError(f"dataset 'folder': boxes is {boxes!r}: it must be the path of a CSV")
    name = checked_name("folder", name)
    left_out = LeftOut()
    rows, has_split = _split_images(base, {BOXES, os.path.basename(boxes or BOXES)}, left_out)
    for row in rows if not has_split else ():
        digest = hashlib.blake2b(str(row["image_id"]).encode(), digest_size=8).digest()
        row["split"] = "test" if int.from_bytes(digest) < test_fraction * 2**64 else "train"
    table, classes = _labelled(base, rows, LAYOUT, left_out)
    box_file = storage_path(boxes) if boxes else base / BOXES
    if boxes or box_file.is_file():
        table = table.join(_read_boxes(base, box_file, set(table["image_id"])), on="image_id")
    return make_samples(name, classes, table, has_split=has_split, notes=left_out.sentences())


def folder_samples(base: StoragePath, name: str, layout: str) -> Samples:
    """Return the images of a folder of class folders as a data set of that name, all of them as test images.

    Parameters
    ----------
    base
        The folder, a path or a URI.
    name
        The name of the data set.
    layout
        The folders that are expected, for the error.

    Raises
    ------
    UserError
        If there are no images in class folders.
    """
    left_out = LeftOut()
    tree = tree_of(base, left_out)
    folders, files = tree.children("")
    left_out.add_files(files)
    table, classes = _labelled(base, _rows(base, images_of(tree, folders, left_out)), layout, left_out)
    return make_samples(name, classes, table.assign(split="test"), notes=left_out.sentences())


def checked_name(dataset: str, name: Any) -> str:
    """Return the name that a user has given a data set. Raise `UserError` where no table or file could have it."""
    text = str(name).strip()
    if not isinstance(name, str | int) or not text or not text.isprintable() or "/" in text or len(text) > 64:
        raise UserError(
            f"dataset '{dataset}': name is {str(name)[:80]!r}: it must be a text of at most 64 characters, without /"
        )
    return text


def _split_images(base: StoragePath, lists: set[str], left_out: LeftOut) -> tuple[list[dict[str, object]], bool]:
    """Return a row for each image, and whether the folder says which are for training; only then rows have a split."""
    tree = tree_of(base, left_out)
    folders, files = tree.children("")
    left_out.add_files(name for name in files if name not in lists)
    splits = {name: split for name, split in SPLIT_FOLDERS.items() if name in folders}
    others = [name for name in folders if name not in splits]
    kinds = set(splits.values())
    if "train" in kinds and len(kinds) > 1:
        for name in others:
            left_out.add("beside", name)
    else:
        images = images_of(tree, others, left_out)
        if images or not splits:  # what could be a split is a class among others
            return _rows(base, sorted(images + images_of(tree, splits, left_out))), False
    # Without a test folder, the images of the validation folder are the test images.
    as_test = "test" if "test" in kinds else "val"
    rows = []
    for name, split in splits.items():
        class_folders, files = tree.children(name)
        left_out.add_files(files)
        found = _rows(base, images_of(tree, class_folders, left_out), depth=1)
        rows += [{**row, "split": "test" if split == as_test else split} for row in found]
    return rows, len(kinds) > 1


def _rows(base: StoragePath, images: list[tuple[str, ...]], depth: int = 0) -> list[dict[str, object]]:
    """Return a row for each image, given the parts of its path; the part at `depth` is its class."""
    if is_local(base):
        top = str(base / "x")[:-1]
        uris = [top + "/".join(parts) for parts in images]
    else:
        uris = [str(base.joinpath(*parts)) for parts in images]
    return [
        {"image_id": "/".join(parts), "uri": uri, "class_name": parts[depth]}
        for parts, uri in zip(images, uris, strict=True)
    ]


def _labelled(
    base: StoragePath, rows: list[dict[str, object]], layout: str, left_out: LeftOut
) -> tuple[pd.DataFrame, list[str]]:
    """Return rows as a table with labels, and the names of the classes by label."""
    if not rows:
        found = "".join(f" ({sentence})" for sentence in left_out.sentences())
        raise UserError(f"{base} has no class folders with images: expected {layout}{found}")
    table = pd.DataFrame(rows)
    names = table["class_name"].unique()
    classes = sorted(names, key=_class_order(names))
    return table.assign(label=table["class_name"].map({name: label for label, name in enumerate(classes)})), classes


def _class_order(names: Iterable[str]) -> Callable[[str], Any]:
    """Return the key that classes are sorted by: their numbers, where all names are numbers, else their names."""
    return int if all(name.isascii() and name.isdigit() for name in names) else str


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
        if name not in known:
            path_below(root, name, f"{path}, line {line}")
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
