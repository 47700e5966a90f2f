"""Any folder of class sub-folders, with an optional list of boxes."""

import hashlib
from pathlib import Path

import pandas as pd

from cnnsens_bench.datasets.base import Samples, dataset, inside, make_samples, require_folder
from cnnsens_bench.errors import UserError

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
LAYOUT = "one sub-folder of images per class, or train/ and test/ with such sub-folders"
BOX = ("x", "y", "w", "h")


@dataset("folder", folder=None, source="name your own folder with dataset.root=<folder>")
def folder(root: Path | None, *, boxes: str | None = None, test_fraction: float = 0.3) -> Samples:
    """Image ids are paths below `root`. `boxes`: a CSV with the columns path, x, y, w, h (default: `root`/boxes.csv).

    Without train/ and test/ folders, `test_fraction` of the images of each class are test images, chosen by the hash
    of their path: adding images moves none from one split to the other. Raises `UserError`.
    """
    base = require_folder("folder", root, LAYOUT)
    if not 0 < test_fraction < 1:
        raise UserError(f"dataset 'folder': test_fraction is {test_fraction}: it must be between 0 and 1")
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
    listed = Path(boxes) if boxes else base / "boxes.csv"
    if boxes or listed.is_file():
        table = table.join(_boxes(base, listed, set(table["image_id"])), on="image_id")
    return make_samples("folder", classes, table)


def _images(root: Path, base: Path) -> list[dict[str, object]]:
    """Rows of all images below `base`, whose first folder is their class."""
    rows: list[dict[str, object]] = []
    for class_folder in sorted(p for p in base.iterdir() if p.is_dir() and not p.name.startswith(".")):
        for path in sorted(class_folder.rglob("*")):
            if path.suffix.lower() in ENDINGS and not path.name.startswith("."):
                relative = path.relative_to(root).as_posix()
                inside(root, relative, str(class_folder))
                rows.append({"image_id": relative, "uri": str(path), "class_name": class_folder.name})
    return rows


def _boxes(root: Path, path: Path, known: set[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype={"path": str})
    except (OSError, ValueError) as error:
        raise UserError(f"the boxes {path} cannot be read ({str(error).splitlines()[0]})") from None
    absent = [column for column in ("path", *BOX) if column not in table]
    if absent:
        raise UserError(f"{path} lacks the column '{absent[0]}': its header must be path,x,y,w,h")
    for line, row in enumerate(table.to_dict("records"), 2):
        inside(root, str(row["path"]), f"{path}, line {line}")
        if row["path"] not in known:
            raise UserError(f"{path}, line {line}: there is no image '{row['path']}' below {root}")
        if not all(isinstance(row[key], int | float) for key in BOX):
            raise UserError(f"{path}, line {line}: x, y, w and h must be numbers")
    if table["path"].duplicated().any():
        raise UserError(f"{path} lists '{table.loc[table['path'].duplicated(), 'path'].iloc[0]}' twice")
    return table.set_index("path")[list(BOX)].add_prefix("box_")
