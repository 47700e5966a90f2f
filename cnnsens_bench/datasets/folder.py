"""Any folder of class sub-folders, with an optional list of boxes."""

import csv
import hashlib
import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from cnnsens_bench.datasets.base import Samples, dataset, inside, make_samples, require_folder
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.storage import StoragePath, names_below, storage_path

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
LAYOUT = "one sub-folder of images per class, or train/ and test/ with such sub-folders"
BOX = ("x", "y", "w", "h")


@dataset("folder", folder=None, source="name your own folder with dataset.root=<folder>")
def folder(root: StoragePath | None, *, boxes: str | None = None, test_fraction: float = 0.3) -> Samples:
    """Image ids are paths below `root`; classes are sorted by name, and may have images in one split only.

    `boxes`: a CSV with the columns path (below `root`), x, y, w, h (pixels, from 0); default: `root`/boxes.csv, if any.
    Without train/ and test/ (or val/, valid/) folders, about `test_fraction` of the images are test images, chosen by
    the hash of their path: adding images moves none from one split to the other. Hidden files and class folders
    without images are left out. Raises `UserError`.
    """
    base = require_folder("folder", root, LAYOUT)
    if not isinstance(test_fraction, int | float) or not 0 < test_fraction < 1:
        raise UserError(f"dataset 'folder': test_fraction is {test_fraction}: it must be a number between 0 and 1")
    if boxes is not None and not isinstance(boxes, str):
        raise UserError(f"dataset 'folder': boxes is {boxes!r}: it must be the path of a CSV")
    splits = {name: split for name, split in SPLIT_FOLDERS.items() if (base / name).is_dir()}
    if {"train", "test"} <= set(splits.values()) or {"train", "val"} <= set(splits.values()):
        # Where there is no test folder, the validation folder is what is tested on.
        as_test = "test" if "test" in splits.values() else "val"
        rows = [
            {**row, "split": "test" if split == as_test else split}
            for name, split in splits.items()
            for row in _images(base, base / name)
        ]
    else:
        rows = _images(base, base)
        for row in rows:
            digest = hashlib.blake2b(str(row["image_id"]).encode(), digest_size=8).digest()
            row["split"] = "test" if int.from_bytes(digest) < test_fraction * 2**64 else "train"
    if not rows:
        raise UserError(f"{base} has no class folders with images: expected {LAYOUT}")
    table = pd.DataFrame(rows)
    classes = sorted(table["class_name"].unique())
    table["label"] = table["class_name"].map({name: label for label, name in enumerate(classes)})
    listed = storage_path(boxes) if boxes else base / "boxes.csv"
    if boxes or listed.is_file():
        table = table.join(_boxes(base, listed, set(table["image_id"])), on="image_id")
    return make_samples("folder", classes, table)


def _images(root: StoragePath, base: StoragePath) -> list[dict[str, object]]:
    """Rows of all images below `base`, whose first folder is their class."""
    rows: list[dict[str, object]] = []
    for parts in sorted(_files(base)):
        hidden = any(part.startswith(".") for part in parts)
        if len(parts) < 2 or Path(parts[-1]).suffix.lower() not in ENDINGS or hidden:
            continue
        path = base.joinpath(*parts)
        relative = "/".join(parts if base == root else (base.name, *parts))
        # Such a name cannot be stored with the results.
        if not _is_unicode(relative):
            raise UserError(f"{root} has an image whose name is not UTF-8 ({relative!r}): rename it")
        inside(root, relative, str(root))
        rows.append({"image_id": relative, "uri": str(path), "class_name": parts[0]})
    return rows


def _files(base: StoragePath) -> Iterator[tuple[str, ...]]:
    """Of all that is no folder, however deep below the class folders: the parts of the path below `base`."""
    if not isinstance(base, Path):
        yield from (tuple(name.split("/")) for name in names_below(base))
        return
    for class_folder in base.iterdir():
        if class_folder.is_dir():
            yield from (path.relative_to(base).parts for path in class_folder.rglob("*") if not path.is_dir())


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _boxes(root: StoragePath, path: StoragePath, known: set[str]) -> pd.DataFrame:
    """Boxes by image id. Read as CSV lines, not by pandas: its errors and types do not tell the line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            header = list(reader.fieldnames or [])
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"the boxes {path} cannot be read ({error}): they must be a CSV in UTF-8") from None
    if not header:
        raise UserError(f"the boxes {path} cannot be read (no header): its header must be path,x,y,w,h")
    absent = [column for column in ("path", *BOX) if column not in header]
    if absent:
        raise UserError(f"{path} lacks the column '{absent[0]}': its header must be path,x,y,w,h")
    boxes: dict[str, list[float]] = {}
    for line, row in rows:
        if None in row:
            raise UserError(
                f"{path}, line {line} has more cells than the header: put a path that holds commas in quotes"
            )
        name = row["path"]
        inside(root, name, f"{path}, line {line}")
        if name not in known:
            raise UserError(f"{path}, line {line}: there is no image '{name}' below {root}: mend or remove the line")
        if name in boxes:
            raise UserError(f"{path} lists '{name}' twice (again in line {line}): remove one of the lines")
        try:
            boxes[name] = [float(row[key]) for key in BOX]
        except ValueError:
            boxes[name] = [math.nan]
        if not all(map(math.isfinite, boxes[name])):
            raise UserError(f"{path}, line {line}: x, y, w and h must be numbers: mend or remove the line")
    index = pd.Index(list(boxes), dtype="str")
    return pd.DataFrame(list(boxes.values()), index=index, columns=[f"box_{key}" for key in BOX], dtype="float64")
