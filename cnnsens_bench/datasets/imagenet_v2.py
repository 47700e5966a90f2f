"""The data set `imagenet_v2`: other images for ImageNet's classes, whose folders are numbered."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from cnnsens_bench.datasets.base import dataset, require_folder
from cnnsens_bench.datasets.folder import checked_name, folder_samples
from cnnsens_bench.datasets.samples import Samples, make_samples
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.storage import StoragePath, storing

VARIANTS = ("matched-frequency", "threshold0.7", "top-images")
FOLDER = "imagenetv2-{}-format-val"
LAYOUT = "a folder for each class, 0 to 999, in the order of the sorted WordNet ids"
CLASSES = 1000


@dataset(
    "imagenet_v2",
    folder=FOLDER.format(VARIANTS[0]),
    source="get imagenetv2-matched-frequency.tar.gz, or another variant, from "
    "https://huggingface.co/datasets/vaishaal/ImageNetV2 and unpack it",
)
def imagenet_v2(root: StoragePath | None, *, variant: str = VARIANTS[0], name: str | None = None) -> Samples:
    """Return the images of a variant of ImageNet-V2, all of them test images. Their classes are WordNet ids.

    A part of the classes, or of the images, is enough. Image ids are the paths below the folder, such as `7/a.jpeg`.

    Parameters
    ----------
    root
        The folder of the variant, or one above it.
    variant
        `matched-frequency`, `threshold0.7` or `top-images`.
    name
        The name of the data set in the results. The default is `imagenet_v2`, with `-<variant>` for the other two.

    Raises
    ------
    UserError
        If there are no such folders, or the variant is unknown.
    """
    if variant not in VARIANTS:
        raise UserError(f"dataset 'imagenet_v2': variant is {variant!r}: it must be {', '.join(VARIANTS)}")
    default = "imagenet_v2" if variant == VARIANTS[0] else f"imagenet_v2-{variant}"
    name = checked_name("imagenet_v2", default if name is None else name)
    own = FOLDER.format(variant)
    if root is not None:
        # With `data_root`, the folder is that of the first variant, and the others lie beside it.
        beside = root.parent if root.name in map(FOLDER.format, VARIANTS) else root
        with storing(root):
            root = beside / own if (beside / own).is_dir() or beside is not root else root
    folder = require_folder("imagenet_v2", root, LAYOUT)
    samples = folder_samples(folder, name, LAYOUT)
    for found in samples.classes:
        if not (found.isascii() and found.isdigit() and int(found) < CLASSES):
            raise UserError(f"{folder} has a folder '{found}': expected {LAYOUT}")
    wnids = imagenet_wnids()
    classes = [wnids[int(found)] for found in samples.classes]
    table = samples.table.assign(class_name=np.asarray(classes, object)[samples.table["label"]])
    return make_samples(name, classes, table, notes=samples.notes)


def imagenet_wnids() -> list[str]:
    """Return the WordNet ids of ImageNet's 1000 classes by label, which is their sorted order."""
    spec = find_spec("timm")  # finding it does not import it, which takes a second
    [folder] = (spec.submodule_search_locations if spec else None) or [""]
    return Path(folder, "data", "_info", "imagenet_synsets.txt").read_text().split()
