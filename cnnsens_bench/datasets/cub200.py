"""Caltech-UCSD Birds-200-2011 in its official layout."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsens_bench.datasets.base import Samples, dataset, inside, listed, make_samples, require_folder
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.storage import StoragePath

LAYOUT = "images.txt, image_class_labels.txt, classes.txt, train_test_split.txt, bounding_boxes.txt and images/"
AGAIN = "unpack the archive again"


@dataset(
    "cub200",
    folder="CUB_200_2011",
    source="get CUB_200_2011.tgz from https://www.vision.caltech.edu/datasets/cub_200_2011/ and unpack it",
)
def cub200(root: StoragePath | None) -> Samples:
    """Image ids are the official ones as text; boxes are the official ones, in pixels counted from 0.

    The other lists may name more images and classes than images.txt: only what it lists counts, so that a part of the
    data set works. A listed image that is absent fails when it is decoded. Masks are used where `segmentations/` is
    there. Raises `UserError` for an absent folder or a damaged list.
    """
    folder = require_folder("cub200", root, LAYOUT)
    paths = _read(folder, "images.txt", {"path": str})
    classes = _read(folder, "classes.txt", {"class_name": str})
    rows = paths
    lists: dict[str, dict[str, Callable[[str], Any]]] = {
        "image_class_labels.txt": {"class_id": _whole},
        "train_test_split.txt": {"split": _split},
        "bounding_boxes.txt": dict.fromkeys(("box_x", "box_y", "box_w", "box_h"), _finite),
    }
    for file, columns in lists.items():
        entries = _read(folder, file, columns)
        absent = paths.index.difference(entries.index)
        if len(absent):
            raise UserError(f"{folder / file} lacks image '{absent[0]}', which images.txt lists: {AGAIN}")
        rows = rows.join(entries)
    unknown = rows.loc[~rows["class_id"].isin(classes.index)]
    if len(unknown):
        wrong = f"image '{unknown.index[0]}': class {unknown['class_id'].iloc[0]}"
        raise UserError(f"{folder / 'image_class_labels.txt'}, {wrong} is not in classes.txt: {AGAIN}")
    # A part of the data set keeps the full lists of labels and classes: only classes with images count.
    classes = classes[classes.index.isin(rows["class_id"])]
    label = rows["class_id"].map({class_id: label for label, class_id in enumerate(classes.index)})
    there = listed(folder, "segmentations")
    table = rows.assign(
        image_id=rows.index,
        uri=[str(inside(folder / "images", path, str(folder / "images.txt"))) for path in rows["path"]],
        label=label,
        class_name=classes["class_name"].to_numpy()[label],
        mask_uri=[_mask(folder, path, there) for path in rows["path"]],
    )
    return make_samples("cub200", classes["class_name"].tolist(), table)


def _mask(folder: StoragePath, path: str, there: Callable[[str], bool]) -> str | None:
    mask = str(Path("segmentations", path).with_suffix(".png"))
    return str(inside(folder, mask, str(folder / "images.txt"))) if there(mask) else None


def _read(folder: StoragePath, file: str, columns: dict[str, Callable[[str], Any]]) -> pd.DataFrame:
    """A list of `id value …` lines, indexed by the id as text; `columns` names and parses the values."""
    path = folder / file
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}): dataset cub200 needs {LAYOUT}") from None
    rows: dict[str, list[Any]] = {}
    for number, line in enumerate(lines, 1):
        # The last column takes the rest of the line: file names may hold spaces.
        words = line.strip().split(maxsplit=len(columns))
        if not words:
            continue
        try:
            values = [parse(word) for parse, word in zip(columns.values(), words[1:], strict=True)]
            image_id = _whole(words[0])
        except ValueError:
            wanted = f"expected an id and {', '.join(columns)}, found '{line[:80]}'"
            raise UserError(f"{path}, line {number}: {wanted}: {AGAIN}") from None
        if image_id in rows:
            raise UserError(f"{path} lists id '{image_id}' twice (again in line {number}): {AGAIN}")
        rows[image_id] = values
    return pd.DataFrame(list(rows.values()), index=pd.Index(list(rows), dtype="str"), columns=list(columns))


def _whole(word: str) -> str:
    """Ids are numbers, but stay text."""
    if not (word.isascii() and word.isdecimal()):
        raise ValueError(word)
    return word


def _split(word: str) -> str:
    if word not in ("0", "1"):
        raise ValueError(word)
    return "train" if word == "1" else "test"


def _finite(word: str) -> float:
    """A NaN would silently mean: no box."""
    if not math.isfinite(value := float(word)):
        raise ValueError(word)
    return value
