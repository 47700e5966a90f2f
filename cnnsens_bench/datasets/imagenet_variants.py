"""The data sets `imagenet_a`, `imagenet_r` and `imagenet_sketch`: other images of ImageNet's classes, by WordNet id."""

from cnnsens_bench.datasets.base import dataset, require_folder
from cnnsens_bench.datasets.folder import checked_name
from cnnsens_bench.datasets.imagenet import wnid_samples
from cnnsens_bench.datasets.samples import Samples
from cnnsens_bench.utils.storage import StoragePath

LAYOUT = "<wnid>/<image>, such as n01498041/0.jpg"


@dataset(
    "imagenet_a",
    folder="imagenet-a",
    source="get imagenet-a.tar from https://github.com/hendrycks/natural-adv-examples and unpack it",
)
def imagenet_a(root: StoragePath | None, *, name: str = "imagenet_a") -> Samples:
    """Return the natural adversarial examples of 200 classes, all of them test images.

    Image ids are the paths below the folder.

    Parameters
    ----------
    root
        The folder with a folder for each WordNet id.
    name
        The name of the data set in the results.

    Raises
    ------
    UserError
        If there are no class folders, or one has no WordNet id for a name.
    """
    return _samples("imagenet_a", root, name)


@dataset(
    "imagenet_r",
    folder="imagenet-r",
    source="get imagenet-r.tar from https://github.com/hendrycks/imagenet-r and unpack it",
)
def imagenet_r(root: StoragePath | None, *, name: str = "imagenet_r") -> Samples:
    """Return the renditions (paintings, toys, …) of 200 classes. Parameters and errors are those of `imagenet_a`."""
    return _samples("imagenet_r", root, name)


@dataset(
    "imagenet_sketch",
    folder="imagenet-sketch",
    source="get ImageNet-Sketch.zip from https://github.com/HaohanWang/ImageNet-Sketch and unpack it",
)
def imagenet_sketch(root: StoragePath | None, *, name: str = "imagenet_sketch") -> Samples:
    """Return the sketches of 1000 classes. Parameters and errors are those of `imagenet_a`.

    The folder may hold the folder `sketch`, which the archive unpacks to.
    """
    return _samples("imagenet_sketch", root, name, "sketch")


def _samples(registered: str, root: StoragePath | None, name: str, inner: str = "") -> Samples:
    name = checked_name(registered, name)
    top = require_folder(registered, root, LAYOUT)
    return wnid_samples(top / inner if inner and (top / inner).is_dir() else top, name, LAYOUT)
