"""Caltech-UCSD Birds-200-2011 in its official layout."""

from pathlib import Path

import pandas as pd

from cnnsens_bench.datasets.base import Samples, dataset, inside, make_samples, require_folder
from cnnsens_bench.errors import UserError

LAYOUT = "images.txt, image_class_labels.txt, classes.txt, train_test_split.txt, bounding_boxes.txt and images/"


@dataset(
    "cub200",
    folder="CUB_200_2011",
    source="get CUB_200_2011.tgz from https://www.vision.caltech.edu/datasets/cub_200_2011/ and unpack it",
)
def cub200(root: Path | None) -> Samples:
    """Image ids are the official ones as text; boxes are the official ones.

    Masks are used where `segmentations/` is there. Raises `UserError` for an absent folder or a damaged list.
    """
    folder = require_folder("cub200", root, LAYOUT)
    paths = _read(folder, "images.txt", {"path": str})
    classes = _read(folder, "classes.txt", {"class_name": str})
    rows = paths
    lists: dict[str, dict[str, type]] = {
        "image_class_labels.txt": {"class_id": int},
        "train_test_split.txt": {"is_training": int},
        "bounding_boxes.txt": dict.fromkeys(("box_x", "box_y", "box_w", "box_h"), float),
    }
    for file, columns in lists.items():
        listed = _read(folder, file, columns)
        absent = paths.index.difference(listed.index)
        if len(absent):
            raise UserError(
                f"{folder / file} lacks image '{absent[0]}', which images.txt lists: unpack the archive again"
            )
        rows = rows.join(listed)
    unknown = rows.loc[~rows["class_id"].astype(str).isin(classes.index)]
    if len(unknown):
        raise UserError(
            f"{folder / 'image_class_labels.txt'}: class {unknown['class_id'].iloc[0]} is not in classes.txt"
        )
    # A part of the data set keeps the full lists of labels and classes: only classes with images count.
    classes = classes[classes.index.isin(rows["class_id"].astype(str))]
    label_of = {class_id: label for label, class_id in enumerate(classes.index)}
    label = rows["class_id"].astype(str).map(label_of)
    uris = [inside(folder / "images", path, str(folder / "images.txt")) for path in rows["path"]]
    masks = [folder / "segmentations" / Path(path).with_suffix(".png") for path in rows["path"]]
    table = rows.assign(
        image_id=rows.index,
        uri=[str(uri) for uri in uris],
        label=label,
        class_name=classes["class_name"].to_numpy()[label],
        split=rows["is_training"].map({1: "train", 0: "test"}),
        mask_uri=[str(mask) if mask.is_file() else None for mask in masks],
    )
    return make_samples("cub200", classes["class_name"].tolist(), table)


def _read(folder: Path, file: str, columns: dict[str, type]) -> pd.DataFrame:
    """A list of `id value …` lines, indexed by the id as text."""
    path = folder / file
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}): dataset cub200 needs {LAYOUT}") from None
    values = []
    for number, line in enumerate(lines, 1):
        words = line.split(maxsplit=len(columns)) if line.strip() else []
        if not words:
            continue
        try:
            values.append([words[0], *(kind(word) for kind, word in zip(columns.values(), words[1:], strict=True))])
        except ValueError:
            raise UserError(
                f"{path}, line {number}: expected an id and {', '.join(columns)}, found '{line[:80]}'"
            ) from None
    frame = pd.DataFrame(values, columns=["id", *columns]).set_index("id")
    if frame.index.duplicated().any():
        raise UserError(f"{path} lists id '{frame.index[frame.index.duplicated()][0]}' twice")
    return frame
