"""Oxford-IIIT Pet in its official layout, as torchvision lays it out."""

import math
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import pandas as pd

from cnnsens_bench.datasets.base import Samples, dataset, download_with, inside, listed, make_samples, require_folder
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.storage import StoragePath

LAYOUT = "images/ and annotations/ with trainval.txt, test.txt, trimaps/ and xmls/"


@dataset(
    "oxford_pets",
    folder="oxford-iiit-pet",
    source="get images.tar.gz and annotations.tar.gz from https://www.robots.ox.ac.uk/~vgg/data/pets/, or set "
    "dataset.options.download=true",
)
def oxford_pets(root: StoragePath | None, *, download: bool = False) -> Samples:
    """Image ids are file names without ending; trainval.txt is the split "train", test.txt is "test".

    Boxes are of the head (the first, where there are two), and only most of the training images have one. Masks are the
    trimaps: 1 is pet, 2 is background, 3 is the border between them. Labels count the classes that occur, from 0.
    A listed image that is absent fails when it is decoded. `download`: let torchvision fetch it. Raises `UserError` for
    an absent folder or a damaged list.
    """
    if download:
        download_with("oxford_pets", "OxfordIIITPet", root, LAYOUT)
    folder = require_folder("oxford_pets", root, LAYOUT)
    entries = [
        (split, name, class_id, path)
        for split, path in (
            ("train", folder / "annotations" / "trainval.txt"),
            ("test", folder / "annotations" / "test.txt"),
        )
        for name, class_id in _read(path)
    ]
    there = listed(folder, "annotations/trimaps", "annotations/xmls")
    with ThreadPoolExecutor(16) as pool:  # thousands of small files
        rows = list(pool.map(lambda entry: _row(folder, there, *entry), entries))
    table = pd.DataFrame(rows)
    if table.empty:
        raise UserError(f"{folder / 'annotations'} lists no images: unpack annotations.tar.gz again")
    pairs = table[["class_id", "class_name"]].drop_duplicates().sort_values("class_id", kind="stable")
    for column in pairs:
        if pairs[column].duplicated().any():
            twice = pairs.loc[pairs[column].duplicated(keep=False)].iloc[:2].to_numpy().tolist()
            one, two = (f"{number} '{name}'" for number, name in twice)
            raise UserError(
                f"{folder / 'annotations'} lists class {one} and class {two}: unpack annotations.tar.gz again"
            )
    # A part of the data set keeps its official class numbers: labels count only those that occur.
    table["label"] = table["class_id"].map({number: label for label, number in enumerate(pairs["class_id"])})
    return make_samples("oxford_pets", pairs["class_name"].tolist(), table, mask_range=(1, 1))


def _read(path: StoragePath) -> list[tuple[str, int]]:
    """The names and class numbers (from 1) of a list of `name class species breed` lines."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}): oxford_pets needs {LAYOUT}") from None
    found = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if len(words) < 2 or not re.fullmatch("[0-9]{1,9}", words[1]):
            wanted = f"expected an image and a class number, found '{line[:80]}'"
            raise UserError(f"{path}, line {number}: {wanted}: unpack annotations.tar.gz again")
        found.append((words[0], int(words[1])))
    return found


def _row(
    folder: StoragePath, there: Callable[[str], bool], split: str, name: str, class_id: int, listed_in: StoragePath
) -> dict[str, object]:
    trimap, xml = (
        inside(folder, relative, str(listed_in)) if there(relative) else None
        for relative in (f"annotations/trimaps/{name}.png", f"annotations/xmls/{name}.xml")
    )
    return {
        "image_id": name,
        "split": split,
        "uri": str(inside(folder / "images", f"{name}.jpg", str(listed_in))),
        "class_id": class_id,
        "class_name": re.sub(r"_[0-9]+$", "", name),
        "mask_uri": str(trimap) if trimap else None,
        **(_box(xml) if xml else {}),
    }


def _box(path: StoragePath) -> dict[str, float]:
    """The box of an annotation. Its corners are pixels counted from 1 and lie inside the box; ours count from 0."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        if "<!DOCTYPE" in text:
            raise UserError(
                f"{path} declares entities, which annotations do not need: remove the file, or get it again"
            )
        box = ElementTree.fromstring(text).find("object/bndbox")
        corners = {key: float(box.findtext(key, "")) for key in ("xmin", "ymin", "xmax", "ymax")}  # type: ignore[union-attr]
        if not all(map(math.isfinite, corners.values())):
            raise ValueError("a corner is not finite")
    except (OSError, ElementTree.ParseError, AttributeError, ValueError):
        raise UserError(f"{path} has no readable bndbox: remove the file, or get it again") from None
    return {
        "box_x": corners["xmin"] - 1,
        "box_y": corners["ymin"] - 1,
        "box_w": corners["xmax"] - corners["xmin"] + 1,
        "box_h": corners["ymax"] - corners["ymin"] + 1,
    }
