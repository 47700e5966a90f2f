"""Oxford 102 Flowers, as torchvision lays it out."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from cnnsens_bench.datasets.base import Samples, dataset, download_with, make_samples, require_folder
from cnnsens_bench.errors import UserError

LAYOUT = "jpg/, imagelabels.mat and setid.mat"
SPLITS = {"trnid": "train", "valid": "val", "tstid": "test"}


@dataset(
    "flowers102",
    folder="flowers-102",
    source="get 102flowers.tgz, imagelabels.mat and setid.mat from "
    "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/, or set dataset.options.download=true",
)
def flowers102(root: Path | None, *, download: bool = False) -> Samples:
    """Image ids are file names without ending; there are no boxes. The official split: train, val and test.

    `download`: let torchvision fetch it. Raises `UserError` for an absent folder or a damaged list.
    """
    if download:
        download_with("flowers102", "Flowers102", root)
    folder = require_folder("flowers102", root, LAYOUT)
    try:
        numbers = loadmat(folder / "imagelabels.mat", squeeze_me=True)["labels"]
        sets = loadmat(folder / "setid.mat", squeeze_me=True)
        rows = [(split, int(number)) for key, split in SPLITS.items() for number in np.atleast_1d(sets[key])]
    except (OSError, KeyError, ValueError, NotImplementedError, TypeError, MatReadError) as error:
        raise UserError(f"{folder}: imagelabels.mat or setid.mat cannot be read ({error}): get them again") from None
    table = pd.DataFrame(rows, columns=["split", "number"]).sort_values("number")
    if table["number"].min() < 1 or table["number"].max() > np.size(numbers):
        raise UserError(f"{folder / 'setid.mat'} names images beyond those of imagelabels.mat: get both again")
    class_ids = np.atleast_1d(numbers)[table["number"] - 1].astype(int)
    present = sorted(set(class_ids.tolist()))
    label_of = {class_id: label for label, class_id in enumerate(present)}
    names = [f"class_{class_id:03d}" for class_id in present]
    ids = [f"image_{number:05d}" for number in table["number"]]
    table = table.assign(
        image_id=ids,
        uri=[str(folder / "jpg" / f"{image_id}.jpg") for image_id in ids],
        label=[label_of[class_id] for class_id in class_ids],
    )
    return make_samples("flowers102", names, table)
