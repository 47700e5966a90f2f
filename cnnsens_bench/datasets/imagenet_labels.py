"""The official lists of labels of ImageNet's validation images: those of the development kit, and Kaggle's."""

import csv
import functools
import io
import re
import tarfile
from collections.abc import Callable

from scipy.io import loadmat

from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.reading import read_patiently
from cnnsens_bench.utils.storage import StoragePath, storage_path, storing

KAGGLE = "LOC_val_solution.csv"
GROUND_TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
KIT = "ILSVRC2012_devkit_t12"
FILES = f"{KAGGLE}, or {GROUND_TRUTH} and {META} of the development kit"
FOLDERS = ("", "data", f"{KIT}/data", "devkit/data", "ILSVRC")
"""Where the lists may lie, seen from the data set's folder."""
NUMBERED = "ILSVRC2012_val_{:08d}"
WNID = re.compile(r"n\d{8}")


def validation_labels(top: StoragePath, given: str | None) -> dict[str, str] | None:
    """Return the WordNet id of each validation image by its file name without ending, or None where no list is found.

    Parameters
    ----------
    top
        The folder of the data set.
    given
        A list, or the folder of lists, that the user named.

    Raises
    ------
    UserError
        If a list is damaged, or the one that the user named does not exist.
    """
    if given is not None:
        named = storage_path(str(given))
        if named.name == KAGGLE:
            return _kaggle(named)
        folders = [named.parent if named.name in (GROUND_TRUTH, META) else named]
    else:
        folders = [top / below if below else top for below in FOLDERS]
    with storing(top):
        for folder in folders:
            if (folder / KAGGLE).is_file():
                return _kaggle(folder / KAGGLE)
            if (folder / GROUND_TRUTH).is_file():
                return _official(folder / GROUND_TRUTH, functools.partial(_file_in, folder))
            if (folder / f"{KIT}.tar.gz").is_file():
                return _in_archive(folder / f"{KIT}.tar.gz")
    if given is not None:
        raise UserError(f"dataset 'imagenet': {given} is not there, or has no {FILES}")
    return None


def _file_in(folder: StoragePath, name: str) -> bytes:
    return _bytes(folder / name)


def _bytes(path: StoragePath) -> bytes:
    try:
        return read_patiently(str(path))
    except FileNotFoundError:
        raise UserError(f"dataset 'imagenet': {path} does not exist: the labels need {FILES}") from None
    except ValueError as error:
        raise UserError(f"dataset 'imagenet': {path} cannot be read ({error}): get it again") from None


def _kaggle(path: StoragePath) -> dict[str, str]:
    """Read Kaggle's list, whose lines are an image and `<wnid> x y x y` for each object; the first names the class."""
    try:
        rows = list(csv.DictReader(io.StringIO(_bytes(path).decode("utf-8-sig"))))
        found = {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
    except (KeyError, IndexError, AttributeError, TypeError, ValueError, csv.Error):
        found = {}
    if not found or not all(WNID.fullmatch(wnid) for wnid in found.values()):
        raise UserError(
            f"{path} is no list of Kaggle's: its columns must be ImageId and PredictionString; get it again"
        )
    return found


def _in_archive(path: StoragePath) -> dict[str, str]:
    """Read the two lists from the archive of the development kit."""
    try:
        with tarfile.open(fileobj=io.BytesIO(_bytes(path))) as archive:
            members = {name: archive.extractfile(f"{KIT}/data/{name}") for name in (GROUND_TRUTH, META)}
            contents = {name: member.read() if member else b"" for name, member in members.items()}
    except (tarfile.TarError, KeyError, OSError, EOFError) as error:
        raise UserError(f"{path} is no development kit ({error}): get it again") from None
    return _official(path, contents.__getitem__)


def _official(path: StoragePath, read: Callable[[str], bytes]) -> dict[str, str]:
    """Return the labels of the development kit: line i of the ground truth is the ILSVRC2012_ID of image i."""
    try:
        ids = [int(line) for line in read(GROUND_TRUTH).split()]
        synsets = loadmat(io.BytesIO(read(META)), squeeze_me=True)["synsets"]
        wnids = {int(one["ILSVRC2012_ID"]): str(one["WNID"]) for one in synsets if int(one["num_children"]) == 0}
        found = {NUMBERED.format(number): wnids[one] for number, one in enumerate(ids, 1)}
    except UserError:
        raise
    except Exception as error:  # scipy raises errors of many types for a damaged file
        raise UserError(f"{path} and {META} cannot be read ({type(error).__name__}: {error}): get both again") from None
    if not found or not all(WNID.fullmatch(wnid) for wnid in found.values()):
        raise UserError(f"{path} lists no images with WordNet ids: get it and {META} again")
    return found
