"""The data sets `cifar10` and `cifar100`, as Python pickles or in their binary form; images are read in place."""

import functools
import io
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cnnsens_bench.datasets.base import dataset, require_folder
from cnnsens_bench.datasets.folder import checked_name
from cnnsens_bench.datasets.samples import Samples, make_samples
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.reading import read_patiently
from cnnsens_bench.utils.storage import StoragePath, storing

PIXELS = 3 * 32 * 32
ARRAYS_ALONE = {
    ("numpy", "ndarray"), ("numpy", "dtype"), ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"), ("numpy._core.numeric", "_frombuffer"),
}  # fmt: skip
"""What a pickle of arrays, lists and texts needs; a pickle that names anything else could run any program."""


@dataclass(frozen=True)
class _Form:
    """Where the files of one form of a data set lie, and how they are read."""

    folder: str
    splits: dict[str, tuple[str, ...]]
    names: str
    read: Callable[[StoragePath], tuple[list[int], list[int]]]
    read_names: Callable[[StoragePath], list[str]]


@dataset(
    "cifar10",
    folder="cifar-10-batches-py",
    source="get cifar-10-python.tar.gz or cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html and "
    "unpack it, or set dataset.options.download=true",
)
def cifar10(root: StoragePath | None, *, download: bool = False, name: str = "cifar10") -> Samples:
    """Return the images of CIFAR-10. Their ids are `test/00000` to `test/09999`, and `train/00000` to `train/49999`.

    Parameters
    ----------
    root
        The folder `cifar-10-batches-py` or `cifar-10-batches-bin`, or the folder above it.
    download
        Whether torchvision downloads the data set first.
    name
        The name of the data set in the results.

    Raises
    ------
    UserError
        If the folder or a file is absent or damaged, or the download fails.
    """
    return _cifar("cifar10", _CIFAR10, root, "CIFAR10" if download else None, name)


@dataset(
    "cifar100",
    folder="cifar-100-python",
    source="get cifar-100-python.tar.gz or cifar-100-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html "
    "and unpack it, or set dataset.options.download=true",
)
def cifar100(root: StoragePath | None, *, download: bool = False, name: str = "cifar100") -> Samples:
    """Return the images of CIFAR-100 with its 100 fine labels. Their ids are those of `cifar10`.

    The parameters and errors are those of `cifar10`; the folder is `cifar-100-python` or `cifar-100-binary`.
    """
    return _cifar("cifar100", _CIFAR100, root, "CIFAR100" if download else None, name)


def _cifar(
    registered: str, forms: Sequence[_Form], root: StoragePath | None, download: str | None, name: str
) -> Samples:
    name = checked_name(registered, name)
    layout = ", or ".join(f"{form.splits['test'][0]}, … and {form.names}" for form in forms)
    if root is not None and not download:
        candidates = [(root, form) for form in forms]
        candidates += [(above / form.folder, form) for above in (root, root.parent) for form in forms]
        with storing(root):
            found = next(((folder, form) for folder, form in candidates if (folder / form.names).is_file()), None)
        if found:
            return _samples(registered, name, *found)
    folder = require_folder(registered, root, layout, download)
    return _samples(registered, name, folder, forms[0])


def _samples(registered: str, name: str, folder: StoragePath, form: _Form) -> Samples:
    classes = _checked(registered, folder / form.names, form.read_names)
    tables = []
    for split, files in form.splits.items():
        uris, labels = list[str](), list[int]()
        for file in files:
            offsets, found = _checked(registered, folder / file, form.read)
            if found and not 0 <= min(found) <= max(found) < len(classes):
                raise UserError(
                    f"dataset '{registered}': {folder / file} has labels beyond the {len(classes)} classes of "
                    f"{form.names}: {_again(registered)}"
                )
            uris += [f"{folder / file}#{offset}+{PIXELS},3x32x32" for offset in offsets]
            labels += found
        ids = [f"{split}/{i:05d}" for i in range(len(uris))]
        tables.append(pd.DataFrame({"image_id": ids, "split": split, "uri": uris, "label": labels}))
    return make_samples(name, classes, pd.concat(tables, ignore_index=True))


def _checked(registered: str, path: StoragePath, read: Callable[[StoragePath], Any]) -> Any:
    """Return what a function reads of a file. Raise `UserError` where the file is absent or damaged."""
    try:
        return read(path)
    except FileNotFoundError:
        raise UserError(f"dataset '{registered}': {path} does not exist: {_again(registered)}") from None
    except (OSError, UserError):
        raise
    except Exception as error:  # a damaged pickle raises errors of many types
        reason = f"{type(error).__name__}: {error}"[:200]
        raise UserError(f"dataset '{registered}': {path} cannot be read ({reason}): unpack it again") from None


def _again(registered: str) -> str:
    return f"unpack the archive of {registered} again"


class _ArrayUnpickler(pickle.Unpickler):
    """Reads pickles of numpy arrays, lists and texts, and refuses all others before anything runs."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the few functions that arrays are made by."""
        if (module, name) not in ARRAYS_ALONE:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no pickle of arrays needs")
        return super().find_class(module, name)


def _unpickled(path: StoragePath, *keys: str) -> tuple[bytes, list[Any]]:
    """Return the bytes of a pickled dictionary, and its values for some keys."""
    content = read_patiently(str(path))
    found = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    for key in keys:
        if not isinstance(found, dict) or key not in found:
            raise ValueError(f"it has no '{key}'")
    return content, [found[key] for key in keys]


def _read_pickle(path: StoragePath, labels: str) -> tuple[list[int], list[int]]:
    """Return the byte offsets of the images in a pickle, and their labels."""
    content, (pixels, found) = _unpickled(path, "data", labels)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (len(found), PIXELS):
        raise ValueError("its data is no array of 32×32 images, one for each label")
    start = content.find(np.ascontiguousarray(pixels).tobytes())
    if start < 0:
        raise ValueError("its pixels do not lie in it as they are")
    return [start + i * PIXELS for i in range(len(found))], [int(label) for label in found]


def _read_binary(path: StoragePath, labels: int) -> tuple[list[int], list[int]]:
    """Return the byte offsets of the images in a binary file, and the last of the `labels` bytes before each."""
    content = np.frombuffer(read_patiently(str(path)), np.uint8)
    record = labels + PIXELS
    if len(content) % record:
        raise ValueError(f"{len(content)} bytes are no multiple of {record}")
    return [start + labels for start in range(0, len(content), record)], content[labels - 1 :: record].tolist()


def _names_in_pickle(path: StoragePath, key: str) -> list[str]:
    return [str(one) for one in _unpickled(path, key)[1][0]]


def _names_in_text(path: StoragePath) -> list[str]:
    return read_patiently(str(path)).decode().split()


def _batches(ending: str) -> dict[str, tuple[str, ...]]:
    """Return the files of CIFAR-10 by split."""
    return {"test": (f"test_batch{ending}",), "train": tuple(f"data_batch_{i}{ending}" for i in range(1, 6))}


_CIFAR10 = (
    _Form(
        "cifar-10-batches-py", _batches(""), "batches.meta",
        functools.partial(_read_pickle, labels="labels"), functools.partial(_names_in_pickle, key="label_names"),
    ),
    _Form(
        "cifar-10-batches-bin", _batches(".bin"), "batches.meta.txt",
        functools.partial(_read_binary, labels=1), _names_in_text,
    ),
)  # fmt: skip
_CIFAR100 = (
    _Form(
        "cifar-100-python", {"test": ("test",), "train": ("train",)}, "meta",
        functools.partial(_read_pickle, labels="fine_labels"),
        functools.partial(_names_in_pickle, key="fine_label_names"),
    ),
    _Form(
        "cifar-100-binary", {"test": ("test.bin",), "train": ("train.bin",)}, "fine_label_names.txt",
        functools.partial(_read_binary, labels=2), _names_in_text,
    ),
)  # fmt: skip
