"""The data set `imagenet`: ImageNet's validation images, or some of them, by WordNet id.

They lie in one folder for each WordNet id, or together with a list of labels, which `imagenet_labels.py` reads.
"""

import re

import pandas as pd

from cnnsens_bench.datasets.base import dataset, require_folder
from cnnsens_bench.datasets.folder import checked_name, folder_samples
from cnnsens_bench.datasets.imagenet_labels import FILES, validation_labels
from cnnsens_bench.datasets.listing import LeftOut, is_photograph, tree_of
from cnnsens_bench.datasets.samples import Samples, make_samples
from cnnsens_bench.datasets.tar_index import TarReader
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.storage import StoragePath

VALIDATION = ("ILSVRC/Data/CLS-LOC/val", "Data/CLS-LOC/val", "val", "")
"""Where the images may lie; the first that is there is taken."""
ARCHIVE = "ILSVRC2012_img_val.tar"
WNID = re.compile(r"n\d{8}")
LAYOUT = (
    "val/<wnid>/<image>, or <wnid>/<image>, such as val/n01440764/ILSVRC2012_val_00000293.JPEG, or the images together "
    f"(in val/ or {ARCHIVE}) with {FILES}"
)
SOURCE = (
    "get the validation images from https://www.image-net.org/download.php, and sort them into one folder for each "
    "wnid, or leave them together and add the development kit"
)


@dataset("imagenet", folder="imagenet", source=SOURCE)
def imagenet(root: StoragePath | None, *, labels: str | None = None, name: str = "imagenet") -> Samples:
    """Return the validation images of ImageNet, all of them test images.

    A part of the classes, or of the images, is enough. Image ids are the paths below the folder of the classes,
    `<wnid>/<image>`, also where the images lie together.

    Parameters
    ----------
    root
        The folder with `val/` or `ILSVRC/Data/CLS-LOC/val/`, or with the folders of the classes themselves.
    labels
        Kaggle's `LOC_val_solution.csv`, or the folder `data` of the development kit, for images that lie together. The
        default is looked for in `root`.
    name
        The name of the data set in the results.

    Raises
    ------
    UserError
        If there are no class folders, or one has no WordNet id for a name, or an image has no label.
    """
    name = checked_name("imagenet", name)
    top = require_folder("imagenet", root, LAYOUT)
    base = next(folder for folder in (top / below if below else top for below in VALIDATION) if folder.is_dir())
    left_out = LeftOut()
    folders, files = tree_of(base, left_out).children("")
    if any(WNID.fullmatch(folder) for folder in folders):
        return wnid_samples(base, name, LAYOUT)
    images = {one: str(base / one) for one in files if is_photograph(one)}
    if base == top and not images and (top / ARCHIVE).is_file():
        archive = str(top / ARCHIVE)
        images = {one.name: f"{archive}#{one.offset}+{one.size}" for one in TarReader(archive).members()}
    known = validation_labels(top, labels) if images or labels else None
    if known is None:
        return wnid_samples(base, name, LAYOUT)
    left_out.add_files(one for one in files if not is_photograph(one))
    return _flat_samples(name, images, known, left_out)


def _flat_samples(name: str, images: dict[str, str], known: dict[str, str], left_out: LeftOut) -> Samples:
    """Return images that lie together as samples, given the WordNet id of each file's name without its ending."""
    rows = []
    for file, uri in sorted(images.items()):
        wnid = known.get(file.rpartition(".")[0])
        if wnid is None:
            raise UserError(
                f"dataset 'imagenet': the list of labels has no image '{file}': remove it, or get the list again"
            )
        rows.append((wnid, file, uri))
    rows.sort()
    classes = sorted({wnid for wnid, _, _ in rows})
    label = {wnid: number for number, wnid in enumerate(classes)}
    table = pd.DataFrame({
        "image_id": [f"{wnid}/{file}" for wnid, file, _ in rows],
        "split": "test",
        "uri": [uri for _, _, uri in rows],
        "label": [label[wnid] for wnid, _, _ in rows],
    })  # fmt: skip
    return make_samples(name, classes, table, notes=left_out.sentences())


def wnid_samples(base: StoragePath, name: str, layout: str) -> Samples:
    """Return the images of a folder with a folder for each WordNet id, all of them as test images.

    Parameters
    ----------
    base
        The folder, a path or a URI.
    name
        The name of the data set.
    layout
        The folders that are expected, for the error.

    Raises
    ------
    UserError
        If there are no images in class folders, or one has no WordNet id for a name.
    """
    samples = folder_samples(base, name, layout)
    for class_name in samples.classes:
        if not WNID.fullmatch(class_name):
            raise UserError(f"{base} has a folder '{class_name}', which is no WordNet id: expected {layout}")
    return samples
