"""The data set `flowers102`: Oxford 102 Flowers in the layout that torchvision downloads it to."""

import io

import numpy as np
import pandas as pd
from scipy.io import loadmat

from cnnsens_bench.datasets.base import dataset, require_folder
from cnnsens_bench.datasets.samples import Samples, make_samples
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.storage import StoragePath

LAYOUT = "jpg/, imagelabels.mat and setid.mat"
SPLITS = {"trnid": "train", "valid": "val", "tstid": "test"}


@dataset(
    "flowers102",
    folder="flowers-102",
    source="get 102flowers.tgz, imagelabels.mat and setid.mat from "
    "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/, or set dataset.options.download=true",
)
def flowers102(root: StoragePath | None, *, download: bool = False) -> Samples:
    """Return the samples of the official splits train, val and test. Their ids are the file names without endings.

    There are no boxes. Labels count the classes that occur. An image that is listed but absent fails when decoded.

    Parameters
    ----------
    root
        The folder with the official lists.
    download
        Whether torchvision downloads the data set first.

    Raises
    ------
    UserError
        If the folder or a list is absent, a list is damaged, or the download fails.
    """
    folder = require_folder("flowers102", root, LAYOUT, "Flowers102" if download else None)
    class_ids = _read(folder / "imagelabels.mat", "labels")["labels"]
    sets = _read(folder / "setid.mat", *SPLITS)
    rows = [(split, number) for key, split in SPLITS.items() for number in sets[key]]
    table = pd.DataFrame(rows, columns=["split", "number"]).astype({"number": int}).sort_values("number", kind="stable")
    if not table["number"].between(1, len(class_ids)).all():
        raise UserError(f"{folder / 'setid.mat'} names images beyond those of imagelabels.mat: get both again")
    table["class_id"] = [class_ids[number - 1] for number in table["number"]]
    if not table["class_id"].between(1, len(NAMES)).all():
        raise UserError(f"{folder / 'imagelabels.mat'} has classes beyond 1 to {len(NAMES)}: get it again")
    present = sorted(table["class_id"].unique())
    ids = [f"image_{number:05d}" for number in table["number"]]
    table = table.assign(
        image_id=ids,
        uri=[str(folder / "jpg" / f"{image_id}.jpg") for image_id in ids],
        label=table["class_id"].map({class_id: label for label, class_id in enumerate(present)}),
    )
    return make_samples("flowers102", [NAMES[class_id - 1] for class_id in present], table)


def _read(path: StoragePath, *keys: str) -> dict[str, list[int]]:
    """Read lists of whole numbers, by name, from a MATLAB file."""
    try:
        content = loadmat(io.BytesIO(path.read_bytes()))
        arrays = {key: np.asarray(content[key]).reshape(-1) for key in keys}
    except Exception as error:  # scipy raises errors of many types for a damaged file
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {error}): get it again") from None
    for key, array in arrays.items():
        if array.dtype.kind not in "iuf" or not (np.isfinite(array) & (array == np.floor(array))).all():
            raise UserError(f"{path} cannot be read ({key} is no list of whole numbers): get it again")
    return {key: [int(value) for value in array] for key, array in arrays.items()}


# Only some versions of torchvision have these names, and the fingerprint of the data set depends on them.
NAMES = (
    "pink primrose", "hard-leaved pocket orchid", "canterbury bells", "sweet pea", "english marigold", "tiger lily",
    "moon orchid", "bird of paradise", "monkshood", "globe thistle", "snapdragon", "colt's foot", "king protea",
    "spear thistle", "yellow iris", "globe-flower", "purple coneflower", "peruvian lily", "balloon flower",
    "giant white arum lily", "fire lily", "pincushion flower", "fritillary", "red ginger", "grape hyacinth",
    "corn poppy", "prince of wales feathers", "stemless gentian", "artichoke", "sweet william", "carnation",
    "garden phlox", "love in the mist", "mexican aster", "alpine sea holly", "ruby-lipped cattleya", "cape flower",
    "great masterwort", "siam tulip", "lenten rose", "barbeton daisy", "daffodil", "sword lily", "poinsettia",
    "bolero deep blue", "wallflower", "marigold", "buttercup", "oxeye daisy", "common dandelion", "petunia",
    "wild pansy", "primula", "sunflower", "pelargonium", "bishop of llandaff", "gaura", "geranium", "orange dahlia",
    "pink-yellow dahlia?", "cautleya spicata", "japanese anemone", "black-eyed susan", "silverbush",
    "californian poppy", "osteospermum", "spring crocus", "bearded iris", "windflower", "tree poppy", "gazania",
    "azalea", "water lily", "rose", "thorn apple", "morning glory", "passion flower", "lotus", "toad lily",
    "anthurium", "frangipani", "clematis", "hibiscus", "columbine", "desert-rose", "tree mallow", "magnolia",
    "cyclamen", "watercress", "canna lily", "hippeastrum", "bee balm", "ball moss", "foxglove", "bougainvillea",
    "camellia", "mallow", "mexican petunia", "bromelia", "blanket flower", "trumpet creeper", "blackberry lily",
)  # fmt: skip
