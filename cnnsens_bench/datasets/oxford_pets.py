"""Oxford-IIIT Pet in its official layout, as torchvision lays it out."""

from pathlib import Path
from xml.etree import ElementTree

import pandas as pd

from cnnsens_bench.datasets.base import Samples, dataset, download_with, inside, make_samples, require_folder
from cnnsens_bench.errors import UserError

LAYOUT = "images/ and annotations/ with trainval.txt, test.txt, trimaps/ and xmls/"


@dataset(
    "oxford_pets",
    folder="oxford-iiit-pet",
    source="get images.tar.gz and annotations.tar.gz from https://www.robots.ox.ac.uk/~vgg/data/pets/, or set "
    "dataset.options.download=true",
)
def oxford_pets(root: Path | None, *, download: bool = False) -> Samples:
    """Image ids are file names without ending. Boxes are of the head, and there are some for training images only.

    Masks are the trimaps (1 is pet). `download`: let torchvision fetch it. Raises `UserError` for an absent folder or
    a damaged list.
    """
    if download:
        download_with("oxford_pets", "OxfordIIITPet", root)
    folder = require_folder("oxford_pets", root, LAYOUT)
    rows = []
    for split, file in (("train", "trainval.txt"), ("test", "test.txt")):
        path = folder / "annotations" / file
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read ({type(error).__name__}): oxford_pets needs {LAYOUT}") from None
        for number, line in enumerate(lines, 1):
            words = line.split()
            if not words or line.startswith("#"):
                continue
            if len(words) < 2 or not words[1].isdigit():
                raise UserError(f"{path}, line {number}: expected an image and a class number, found '{line[:80]}'")
            rows.append(_row(folder, split, words[0], int(words[1]), path))
    table = pd.DataFrame(rows)
    if table.empty:
        raise UserError(f"{folder / 'annotations'} lists no images: unpack annotations.tar.gz again")
    # A part of the data set keeps its official class numbers: labels count only those that occur.
    numbers = sorted(table["class_id"].unique())
    table["label"] = table["class_id"].map({number: label for label, number in enumerate(numbers)})
    names = [table.loc[table["class_id"] == number, "class_name"].iloc[0] for number in numbers]
    return make_samples("oxford_pets", names, table, mask_range=(1, 1))


def _row(folder: Path, split: str, name: str, class_id: int, listed_in: Path) -> dict[str, object]:
    uri = inside(folder / "images", f"{name}.jpg", str(listed_in))
    trimap = folder / "annotations" / "trimaps" / f"{name}.png"
    return {
        "image_id": name,
        "split": split,
        "uri": str(uri),
        "class_id": class_id,
        "class_name": name.rpartition("_")[0],
        "mask_uri": str(trimap) if trimap.is_file() else None,
        **_box(folder / "annotations" / "xmls" / f"{name}.xml"),
    }


def _box(path: Path) -> dict[str, float]:
    """The box of an annotation, whose corners are counted from 1 and lie inside it; nothing where there is no file."""
    if not path.is_file():
        return {}
    text = path.read_text(errors="replace")
    if "<!" in text:
        raise UserError(f"{path} declares entities, which annotations do not need: it is not read")
    try:
        box = ElementTree.fromstring(text).find("object/bndbox")
        corners = {key: float(box.findtext(key, "")) for key in ("xmin", "ymin", "xmax", "ymax")}  # type: ignore[union-attr]
    except (ElementTree.ParseError, AttributeError, ValueError):
        raise UserError(f"{path} has no readable bndbox: remove the file, or get it again") from None
    return {
        "box_x": corners["xmin"] - 1,
        "box_y": corners["ymin"] - 1,
        "box_w": corners["xmax"] - corners["xmin"] + 1,
        "box_h": corners["ymax"] - corners["ymin"] + 1,
    }
