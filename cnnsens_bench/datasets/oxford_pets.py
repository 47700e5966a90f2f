"""The data set `oxford_pets`: Oxford-IIIT Pet in its official layout, which torchvision keeps."""

import math
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import pandas as pd

from cnnsens_bench.datasets.base import dataset, file_test, path_below, require_folder
from cnnsens_bench.datasets.sample_table import BOX
from cnnsens_bench.datasets.samples import Samples, make_samples
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
    """Return the samples of trainval.txt (split `train`) and test.txt (split `test`).

    Image ids are the file names without endings. Boxes enclose the head (the first, where an image has two), and only
    training images have them, though not all. Masks are the trimaps, in which 1 is the pet, 2 the background and 3 the
    border between them. Labels count the classes that occur. An image that is listed but absent fails when it is
    decoded.

    Parameters
    ----------
    root
        The folder that holds `images/` and `annotations/`.
    download
        Whether torchvision downloads the data set first.

    Raises
    ------
    UserError
        If the folder or a list is absent, a list or a box is damaged, or the download fails.
    """
    folder = require_folder("oxford_pets", root, LAYOUT, "OxfordIIITPet" if download else None)
    annotations = folder / "annotations"
    lists = {"train": annotations / "trainval.txt", "test": annotations / "test.txt"}
    entries = [(split, *entry, path) for split, path in lists.items() for entry in _read(path)]
    exists = file_test(folder, "annotations/trimaps", "annotations/xmls")
    with ThreadPoolExecutor(16) as pool:  # there are thousands of small files
        rows = list(pool.map(lambda entry: _row(folder, exists, *entry), entries))
    table = pd.DataFrame(rows)
    if table.empty:
        raise UserError(f"{annotations} lists no images: unpack annotations.tar.gz again")
    pairs = table[["class_id", "class_name"]].drop_duplicates().sort_values("class_id", kind="stable")
    for column in pairs:
        if pairs[column].duplicated().any():
            twice = pairs.loc[pairs[column].duplicated(keep=False)].iloc[:2].to_numpy().tolist()
            one, two = (f"{number} '{name}'" for number, name in twice)
            raise UserError(f"{annotations} lists class {one} and class {two}: unpack annotations.tar.gz again")
    # A part of the data set keeps its official class numbers. Labels count only those that occur.
    table["label"] = table["class_id"].map({number: label for label, number in enumerate(pairs["class_id"])})
    return make_samples("oxford_pets", pairs["class_name"].tolist(), table, mask_range=(1, 1))


def _read(path: StoragePath) -> list[tuple[str, int]]:
    """Read the image names and class numbers (from 1) of a list of lines `name class species breed`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}): oxford_pets needs {LAYOUT}") from None
    found = []
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields or line.startswith("#"):
            continue
        if len(fields) < 2 or not re.fullmatch("[0-9]{1,9}", fields[1]):
            problem = f"expected an image and a class number, found '{line[:80]}'"
            raise UserError(f"{path}, line {number}: {problem}: unpack annotations.tar.gz again")
        found.append((fields[0], int(fields[1])))
    return found


def _row(
    folder: StoragePath, exists: Callable[[str], bool], split: str, name: str, class_id: int, listed_in: StoragePath
) -> dict[str, object]:
    """Return the row of one listed image for `make_samples`."""
    trimap, xml = (
        path_below(folder, relative, str(listed_in)) if exists(relative) else None
        for relative in (f"annotations/trimaps/{name}.png", f"annotations/xmls/{name}.xml")
    )
    image = path_below(folder / "images", f"{name}.jpg", str(listed_in))
    names = {"image_id": name, "class_id": class_id, "class_name": re.sub(r"_[0-9]+$", "", name)}
    files = {"uri": str(image), "mask_uri": str(trimap) if trimap else None}
    return {"split": split, **names, **files, **(_box(xml) if xml else {})}


def _box(path: StoragePath) -> dict[str, float]:
    """Read the box of an annotation, whose corners are pixels of the box that are counted from 1."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        if "<!DOCTYPE" in text:
            raise UserError(
                f"{path} declares entities, which annotations do not need: remove the file, or get it again"
            )
        box = ElementTree.fromstring(text).find("object/bndbox")
        corners = [float(box.findtext(key, "")) for key in ("xmin", "ymin", "xmax", "ymax")]  # type: ignore[union-attr]
        if not all(map(math.isfinite, corners)):
            raise ValueError("a corner is not finite")
    except (OSError, ElementTree.ParseError, AttributeError, ValueError):
        raise UserError(f"{path} has no readable bndbox: remove the file, or get it again") from None
    left, top, right, bottom = corners
    return dict(zip(BOX, (left - 1, top - 1, right - left + 1, bottom - top + 1), strict=True))
