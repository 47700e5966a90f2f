"""The data set `npy`: an array of images and one of labels, as numpy.save writes them."""

import hashlib
import math

import pandas as pd

from cnnsens_bench.datasets.base import dataset, require_folder
from cnnsens_bench.datasets.folder import checked_name
from cnnsens_bench.datasets.samples import Samples, make_samples
from cnnsens_bench.datasets.shards import class_list, label_codes, read_array
from cnnsens_bench.utils.array_files import array_header
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.reading import read_range
from cnnsens_bench.utils.storage import StoragePath

LAYOUT = "images.npy, uint8 (N, H, W, 3), and labels.npy, N numbers or names"
SAMPLED = 64 * 1024


@dataset("npy", folder=None, source=f"save your own with numpy.save: {LAYOUT}")
def npy(
    root: StoragePath | None,
    *,
    images: str = "images.npy",
    labels: str = "labels.npy",
    classes: list[str] | str | None = None,
    name: str = "npy",
) -> Samples:
    """Return the images of an array, all of them as test images. Their ids are the numbers of their rows, from 0.

    Parameters
    ----------
    root
        The folder of the files, a path or a URI.
    images, labels
        The names of the two files.
    classes
        The names of the classes by number: a list, or a text file with a name a line. The default is the file
        `classnames.txt` in the folder, if there is one.
    name
        The name of the data set in the results.

    Raises
    ------
    UserError
        If a file is absent or of another type or shape, or a label is no class.
    """
    name = checked_name("npy", name)
    folder = require_folder("npy", root, LAYOUT)
    file = str(folder / images)
    found = read_array("npy", folder / labels)
    count = image_count("npy", file)
    if found.shape != (count,) or found.dtype.kind not in "iuUS":
        raise UserError(
            f"dataset 'npy': {folder / labels} holds {found.dtype} of the shape {found.shape}: it must be {count} "
            f"whole numbers or names, one for each image of {images}"
        )
    texts = pd.Series(found.astype(str) if found.dtype.kind == "S" else found)
    numbers = [str(i) for i in range(count)]
    table = pd.DataFrame({"image_id": numbers, "split": "test", "uri": [f"{file}#{i}" for i in numbers]})
    names, notes = class_list("npy", classes, [folder])
    codes = label_codes("npy", texts, names, lambda: [(table, texts)])
    return make_samples(name, codes.classes, codes.complete(table, texts), notes=notes, content=_digest(file))


def _digest(file: str) -> str:
    """Return a SHA-256 of the first and the last bytes of an array of images, which tells it from most others."""
    shape, start = array_header(file)
    end = start + math.prod(shape)
    ends = read_range(file, 0, min(end, SAMPLED)) + read_range(file, max(0, end - SAMPLED), end)
    return hashlib.sha256(ends).hexdigest()


def image_count(name: str, file: str) -> int:
    """Return the number of images in a `.npy` file. Raise `UserError` where it is absent or holds no images."""
    try:
        return array_header(file)[0][0]
    except FileNotFoundError:
        raise UserError(f"dataset '{name}': {file} does not exist") from None
    except (ValueError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"dataset '{name}': {error}") from None
