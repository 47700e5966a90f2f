"""The data set `imagenet`: ImageNet's validation images, or some of them, in one folder for each WordNet id."""

import re

from cnnsens_bench.datasets.base import Samples, dataset, require_folder
from cnnsens_bench.datasets.folder import folder_samples
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.storage import StoragePath

LAYOUT = "val/<wnid>/<image>, or <wnid>/<image>, such as val/n01440764/ILSVRC2012_val_00000293.JPEG"
SOURCE = (
    "get the validation images from https://www.image-net.org/download.php, and sort them into one folder for each wnid"
)


@dataset("imagenet", folder="imagenet", source=SOURCE)
def imagenet(root: StoragePath | None, *, name: str = "imagenet") -> Samples:
    """Return the validation images of ImageNet, all of them test images.

    A part of the classes, or of the images, is enough. Image ids are the paths below the folder of the classes.

    Parameters
    ----------
    root
        The folder with `val/`, or with the folders of the classes themselves.
    name
        The name of the data set in the results.

    Raises
    ------
    UserError
        If a class folder has no WordNet id for a name.
    """
    base = require_folder("imagenet", root, LAYOUT)
    base = base / "val" if (base / "val").is_dir() else base
    samples = folder_samples(base, name)
    for class_name in samples.classes:
        if not re.fullmatch(r"n\d{8}", class_name):
            raise UserError(f"{base} has a folder '{class_name}', which is no WordNet id: expected {LAYOUT}")
    return samples
