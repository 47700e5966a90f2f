"""The data set `imagenet`: ImageNet's validation images, or some of them, in one folder for each WordNet id."""

import re

from cnnsens_bench.datasets.base import Samples, dataset, require_folder
from cnnsens_bench.datasets.folder import checked_name, folder_samples
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.storage import StoragePath

VALIDATION = ("ILSVRC/Data/CLS-LOC/val", "Data/CLS-LOC/val", "val", "")
"""Where the class folders may lie; the first that is there is taken."""
WNID = re.compile(r"n\d{8}")
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
        The folder with `val/` or `ILSVRC/Data/CLS-LOC/val/`, or with the folders of the classes themselves.
    name
        The name of the data set in the results.

    Raises
    ------
    UserError
        If there are no class folders, or one has no WordNet id for a name.
    """
    name = checked_name("imagenet", name)
    top = require_folder("imagenet", root, LAYOUT)
    base = next(folder for folder in (top / below if below else top for below in VALIDATION) if folder.is_dir())
    samples = folder_samples(base, name, LAYOUT)
    for class_name in samples.classes:
        if not WNID.fullmatch(class_name):
            raise UserError(f"{base} has a folder '{class_name}', which is no WordNet id: expected {LAYOUT}")
    return samples
