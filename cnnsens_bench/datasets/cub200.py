"""The data set `cub200`: Caltech-UCSD Birds-200-2011 in its official layout."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsens_bench.datasets.base import dataset, file_test, path_below, require_folder
from cnnsens_bench.datasets.sample_table import BOX
from cnnsens_bench.datasets.samples import Samples, make_samples
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
    """Return the samples that images.txt lists, with the official image ids, split and boxes.

    The other lists may name more images and classes, so that a part of the data set works. An image that is listed but
    absent fails when it is decoded. Masks are used if there is a folder `segmentations/`.

    Parameters
    ----------
    root
        The folder that the archive unpacks to.

    Raises
    ------
    UserError
        If the folder or a list is absent, or a list is damaged.
    """
    folder = require_folder("cub200", root, LAYOUT)
    rows = _read(folder, "images.txt", {"path": str})
    classes = _read(folder, "classes.txt", {"class_name": str})
    lists: dict[str, dict[str, Callable[[str], Any]]] = {
        "image_class_labels.txt": {"class_id": _number},
        "train_test_split.txt": {"split": _split},
        "bounding_boxes.txt": dict.fromkeys(BOX, _finite),
    }
    for file, columns in lists.items():
        entries = _read(folder, file, columns)
        absent = rows.index.difference(entries.index)
        if len(absent):
            raise UserError(f"{folder / file} lacks image '{absent[0]}', which images.txt lists: {AGAIN}")
        rows = rows.join(entries)
    unknown = rows.loc[~rows["class_id"].isin(classes.index)]
    if len(unknown):
        wrong = f"image '{unknown.index[0]}': class {unknown['class_id'].iloc[0]}"
        raise UserError(f"{folder / 'image_class_labels.txt'}, {wrong} is not in classes.txt: {AGAIN}")
    # A part of the data set may keep the full list of classes. Only classes with images count.
    classes = classes[classes.index.isin(rows["class_id"])]
    label = rows["class_id"].map({class_id: label for label, class_id in enumerate(classes.index)})
    exists = file_test(folder, "segmentations")
    table = rows.assign(
        image_id=rows.index,
        uri=[str(path_below(folder / "images", path, str(folder / "images.txt"))) for path in rows["path"]],
        label=label,
        class_name=classes["class_name"].to_numpy()[label],
        mask_uri=[_mask_uri(folder, path, exists) for path in rows["path"]],
    )
    return make_samples("cub200", classes["class_name"].tolist(), table)


def _mask_uri(folder: StoragePath, path: str, exists: Callable[[str], bool]) -> str | None:
    mask = str(Path("segmentations", path).with_suffix(".png"))
    return str(path_below(folder, mask, str(folder / "images.txt"))) if exists(mask) else None


def _read(folder: StoragePath, file: str, columns: dict[str, Callable[[str], Any]]) -> pd.DataFrame:
    """Read a list of lines `id value …` into a table that is indexed by the id; `columns` parses the values by name."""
    path = folder / file
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}): dataset cub200 needs {LAYOUT}") from None
    rows: dict[str, list[Any]] = {}
    for number, line in enumerate(lines, 1):
        # The last column takes the rest of the line, because file names may contain spaces.
        fields = line.strip().split(maxsplit=len(columns))
        if not fields:
            continue
        try:
            values = [parse(text) for parse, text in zip(columns.values(), fields[1:], strict=True)]
            image_id = _number(fields[0])
        except ValueError:
            problem = f"expected an id and {', '.join(columns)}, found '{line[:80]}'"
            raise UserError(f"{path}, line {number}: {problem}: {AGAIN}") from None
        if image_id in rows:
            raise UserError(f"{path} lists id '{image_id}' twice (again in line {number}): {AGAIN}")
        rows[image_id] = values
    return pd.DataFrame(list(rows.values()), index=pd.Index(list(rows), dtype="str"), columns=list(columns))


def _number(text: str) -> str:
    """Return a whole number as it is written; ids stay text."""
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(text)
    return text


def _split(text: str) -> str:
    if text not in ("0", "1"):
        raise ValueError(text)
    return "train" if text == "1" else "test"


def _finite(text: str) -> float:
    """Parse a number, and refuse NaN, which would silently mean that there is no box."""
    if not math.isfinite(value := float(text)):
        raise ValueError(text)
    return value
