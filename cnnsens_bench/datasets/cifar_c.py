"""The data sets `cifar10_c` and `cifar100_c`: arrays of corrupted test images, of which one severity is chosen."""

import numpy as np
import pandas as pd

from cnnsens_bench.datasets.base import dataset, require_folder
from cnnsens_bench.datasets.folder import checked_name
from cnnsens_bench.datasets.npy import image_count
from cnnsens_bench.datasets.samples import Samples, make_samples
from cnnsens_bench.datasets.shards import read_array
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import near
from cnnsens_bench.utils.storage import StoragePath, names_below

LAYOUT = "<corruption>.npy with 5 severities × 10,000 images, and labels.npy"
SEVERITIES = 5
TEN = "airplane automobile bird cat deer dog frog horse ship truck"
HUNDRED = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle "
    "caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant "
    "flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man "
    "maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree "
    "plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper "
    "snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train "
    "trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)


@dataset(
    "cifar10_c", folder="CIFAR-10-C", source="get CIFAR-10-C.tar from https://zenodo.org/records/2535967 and unpack it"
)
def cifar10_c(
    root: StoragePath | None, *, corruption: str | None = None, severity: int | None = None, name: str | None = None
) -> Samples:
    """Return the test images of CIFAR-10 under one corruption. Their ids, `test/00000` and on, are those of `cifar10`.

    Parameters
    ----------
    root
        The folder with the arrays.
    corruption
        The name of an array, such as `gaussian_noise`.
    severity
        1 to 5.
    name
        The name of the data set in the results. The default is `cifar10_c-<corruption>-<severity>`.

    Raises
    ------
    UserError
        If the folder or an array is absent or of another shape, or the corruption or severity is not named.
    """
    return _corrupted("cifar10_c", TEN.split(), root, corruption, severity, name)


@dataset(
    "cifar100_c",
    folder="CIFAR-100-C",
    source="get CIFAR-100-C.tar from https://zenodo.org/records/3555552 and unpack it",
)
def cifar100_c(
    root: StoragePath | None, *, corruption: str | None = None, severity: int | None = None, name: str | None = None
) -> Samples:
    """Return the test images of CIFAR-100 under one corruption. Their ids are those of `cifar100`.

    The parameters and errors are those of `cifar10_c`.
    """
    return _corrupted("cifar100_c", HUNDRED.split(), root, corruption, severity, name)


def _corrupted(
    registered: str,
    classes: list[str],
    root: StoragePath | None,
    corruption: str | None,
    severity: int | None,
    name: str | None,
) -> Samples:
    folder = require_folder(registered, root, LAYOUT)
    known = [one.removesuffix(".npy") for one in names_below(folder) if one.endswith(".npy") and one != "labels.npy"]
    corruption, severity = chosen(registered, corruption, severity, known, str(folder))
    name = checked_name(registered, name if name is not None else f"{registered}-{corruption}-{severity}")
    labels = read_array(registered, folder / "labels.npy")
    file = str(folder / f"{corruption}.npy")
    count = image_count(registered, file)
    each = count // SEVERITIES
    if count % SEVERITIES or labels.shape not in ((count,), (each,)) or labels.dtype.kind not in "iu":
        raise UserError(
            f"dataset '{registered}': {file} has {count} images and labels.npy {labels.dtype} of the shape "
            f"{labels.shape}: expected {LAYOUT}"
        )
    first = (severity - 1) * each
    found = labels[first : first + each] if len(labels) == count else labels
    present = sorted({int(label) for label in found})
    if present[0] < 0 or present[-1] >= len(classes):
        raise UserError(f"dataset '{registered}': labels.npy has labels beyond 0 to {len(classes) - 1}: get it again")
    table = pd.DataFrame({
        "image_id": [f"test/{i:05d}" for i in range(each)],
        "split": "test",
        "uri": [f"{file}#{first + i}" for i in range(each)],
        "label": np.searchsorted(present, found),
    })  # fmt: skip
    return make_samples(name, [classes[label] for label in present], table)


def chosen(
    registered: str, corruption: str | None, severity: int | None, known: list[str], folder: str, layout: str = LAYOUT
) -> tuple[str, int]:
    """Return the corruption and severity that a user has chosen of those that a folder holds.

    Raises
    ------
    UserError
        If one is not named, or is not there.
    """
    if not known:
        raise UserError(f"dataset '{registered}': {folder} holds no corruptions: expected in it: {layout}")
    if not isinstance(corruption, str) or corruption not in known:
        given = "is not named" if corruption is None else f"is '{corruption}'"
        raise UserError(
            f"dataset '{registered}': dataset.options.corruption {given}{near(str(corruption or ''), known, limit=20)}"
        )
    if severity not in range(1, SEVERITIES + 1) or not isinstance(severity, int):
        raise UserError(f"dataset '{registered}': dataset.options.severity is {severity}: it must be 1 to {SEVERITIES}")
    return corruption, severity
