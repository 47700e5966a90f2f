"""The data set `imagenet_c`: corrupted validation images of ImageNet, one corruption and severity at a time."""

from cnnsens_bench.datasets.base import dataset, require_folder
from cnnsens_bench.datasets.cifar_c import chosen
from cnnsens_bench.datasets.folder import checked_name
from cnnsens_bench.datasets.imagenet import wnid_samples
from cnnsens_bench.datasets.listing import LeftOut, tree_of
from cnnsens_bench.datasets.samples import Samples
from cnnsens_bench.utils.storage import StoragePath

LAYOUT = "<corruption>/<severity>/<wnid>/<image>, such as gaussian_noise/3/n01440764/ILSVRC2012_val_00000293.JPEG"


@dataset(
    "imagenet_c",
    folder="imagenet-c",
    source="get blur.tar, digital.tar, noise.tar and weather.tar from https://zenodo.org/records/2235448, unpacked",
)
def imagenet_c(
    root: StoragePath | None, *, corruption: str | None = None, severity: int | None = None, name: str | None = None
) -> Samples:
    """Return the images of one corruption and severity, all of them test images. Their ids are those of `imagenet`.

    Parameters
    ----------
    root
        The folder with a folder for each corruption.
    corruption
        The name of one of them, such as `gaussian_noise`.
    severity
        1 to 5.
    name
        The name of the data set in the results. The default is `imagenet_c-<corruption>-<severity>`.

    Raises
    ------
    UserError
        If there are no such images, or the corruption or severity is not named.
    """
    folder = require_folder("imagenet_c", root, LAYOUT)
    known = sorted(tree_of(folder, LeftOut()).children("")[0])
    corruption, severity = chosen("imagenet_c", corruption, severity, known, str(folder), LAYOUT)
    name = checked_name("imagenet_c", name if name is not None else f"imagenet_c-{corruption}-{severity}")
    return wnid_samples(require_folder("imagenet_c", folder / corruption / str(severity), LAYOUT), name, LAYOUT)
