"""Pre-made degraded pictures in the layouts of ImageNet-C and CIFAR-10-C: finds, lists and reads them.

ImageNet-C has `<corruption>/<severity>/<wnid>/<file>`, perhaps below folders of groups (`weather/fog/1/…`). CIFAR-10-C
has `<corruption>.npy`, whose rows are the images at severity 1, then the same images at severity 2, and so on.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cnnsens_bench.images import Decoded, decode
from cnnsens_bench.utils.array_files import array_header
from cnnsens_bench.utils.errors import ImageError, UserError
from cnnsens_bench.utils.storage import StoragePath, is_local, storage_path, storing

SEVERITIES = (1, 2, 3, 4, 5)
ENDINGS = (".JPEG", ".jpg", ".jpeg", ".png")
"""The endings that a stored picture may have where its image has another."""
LABELS = "labels"
"""The file of CIFAR-10-C that holds no pictures."""
LAYOUT = "<corruption>/<severity 1 to 5>/<class>/<file> as in ImageNet-C, or <corruption>.npy as in CIFAR-10-C"


@dataclass(frozen=True)
class StoredCorruption:
    """One corruption of a pre-made set.

    Attributes
    ----------
    name
        The name of its folder or array.
    path
        The folder or array, relative to the set, with slashes.
    severities
        The severities that are there, rising.
    rows
        The number of images at each severity of an array; 0 for a folder.
    """

    name: str
    path: str
    severities: tuple[int, ...]
    rows: int = 0


@dataclass(frozen=True)
class StoredSet:
    """A pre-made set: its folder or URI as text, and its corruptions by rising name. It can be pickled and hashed."""

    root: str
    corruptions: tuple[StoredCorruption, ...]

    def __getitem__(self, name: str) -> StoredCorruption:
        return next(one for one in self.corruptions if one.name == name)

    @property
    def names(self) -> list[str]:
        """The names of the corruptions."""
        return [one.name for one in self.corruptions]

    def describe(self) -> str:
        """Say in one line what the set has.

        Examples
        --------
        >>> fog, snow = StoredCorruption("fog", "fog", (1, 3)), StoredCorruption("snow", "snow", (1, 2, 3, 4, 5))
        >>> StoredSet("/data/imagenet-c", (fog, snow)).describe()
        '2 corruptions in /data/imagenet-c: fog (severities 1, 3), snow'
        """
        texts = []
        for one in self.corruptions:
            some = "" if one.severities == SEVERITIES else f" (severities {', '.join(map(str, one.severities))})"
            texts.append(one.name + some)
        count = len(self.corruptions)
        return f"{count} corruption{'' if count == 1 else 's'} in {self.root}: {', '.join(texts)}"

    def require(self) -> None:
        """Raise `UserError` where this machine does not see the folder of the set."""
        root = storage_path(self.root)
        if is_local(root) and not root.is_dir():
            raise UserError(
                f"the pre-made pictures {root} are not seen by this machine: they must lie on storage that all "
                "machines of a run see, a shared folder or a URI (stored_root=…)"
            )


def find_stored(root: StoragePath) -> StoredSet | None:
    """Return what a folder has of a pre-made set; None where it is absent or has nothing of the kind.

    Parameters
    ----------
    root
        The folder, a path or a URI.

    Raises
    ------
    UserError
        If an array is damaged, or is no array of images at five severities.
    StorageError
        If the storage does not answer.
    """
    folders, files = _children(root)
    found = {}
    for name in files:
        stem, ending = os.path.splitext(name)
        if ending == ".npy" and stem != LABELS and stem.isidentifier():
            found[stem] = StoredCorruption(stem, name, SEVERITIES, _rows(root / name))
    for name in folders:
        below = _children(root / name)[0]
        groups = [(name, name, below)]
        if not _severities(below):  # perhaps a folder of a group
            groups = [(inner, f"{name}/{inner}", _children(root / name / inner)[0]) for inner in below]
        for corruption, path, numbers in groups:
            if corruption.isidentifier() and (severities := _severities(numbers)):
                found.setdefault(corruption, StoredCorruption(corruption, path, severities))
    corruptions = tuple(found[name] for name in sorted(found))
    return StoredSet(str(root), corruptions) if corruptions else None


def _children(folder: StoragePath) -> tuple[list[str], list[str]]:
    """Return the names of the visible folders and files of a folder, sorted; none where it is absent."""
    folders: list[str] = []
    files: list[str] = []
    with storing(folder):
        try:
            children: list[StoragePath] = list(folder.iterdir())
            for child in sorted(children, key=lambda child: child.name):
                if not child.name.startswith("."):
                    (folders if child.is_dir() else files).append(child.name)
        except (FileNotFoundError, NotADirectoryError):
            return [], []
    return folders, files


def _severities(names: list[str]) -> tuple[int, ...]:
    return tuple(severity for severity in SEVERITIES if str(severity) in names)


def _rows(path: StoragePath) -> int:
    """Return the number of images at each severity of an array. Raise `UserError` or `StorageError`."""
    try:
        shape, _ = array_header(str(path))
    except ValueError as error:
        raise UserError(f"{error}: remove it, or get it again") from None
    if not shape[0] or shape[0] % len(SEVERITIES):
        raise UserError(
            f"{path} has {shape[0]} rows: expected are the images at severities 1 to 5, one severity after the other"
        )
    return shape[0] // len(SEVERITIES)


class StoredReader:
    """Reads the pre-made pictures of images.

    A picture in a folder lies where its image does: in the folder of the image's class under the image's file name,
    or else at the image's id. Its ending may be another. The row of an array is the number at the end of the image's
    id, or else of its URI.

    Parameters
    ----------
    stored
        The set.
    """

    def __init__(self, stored: StoredSet) -> None:
        self.stored = stored
        self.corruptions = {one.name: one for one in stored.corruptions}
        self.root = storage_path(stored.root)
        self._last = 0  # which of an image's names led to a picture last: it is tried first

    def uris(self, row: Mapping[str, Any], corruption: str, severity: int) -> list[str]:
        """Return where the picture of an image may lie, the likeliest first; nothing where the image has no row.

        Parameters
        ----------
        row
            The image's `image_id`, `uri` and, where it is known, `class_name`.
        corruption, severity
            Which picture.

        Examples
        --------
        >>> reader = StoredReader(StoredSet("/c", (StoredCorruption("fog", "weather/fog", (1, 2)),)))
        >>> reader.uris({"image_id": "n01440764/1.png", "uri": "", "class_name": "n01440764"}, "fog", 2)[:2]
        ['/c/weather/fog/2/n01440764/1.png', '/c/weather/fog/2/n01440764/1.JPEG']
        >>> reader = StoredReader(StoredSet("/c", (StoredCorruption("fog", "fog.npy", (1, 2, 3, 4, 5), 10_000),)))
        >>> reader.uris({"image_id": "17", "uri": "test.npy#17"}, "fog", 2)
        ['/c/fog.npy#10017']
        """
        one = self.corruptions[corruption]
        if one.rows:
            number = _row_number(row)
            if number is None or number >= one.rows:
                return []
            return [f"{self.root / one.path}#{(severity - 1) * one.rows + number}"]
        top = str(self.root / one.path / str(severity))
        return [f"{top}/{name}" for name in dict.fromkeys(_names(row))]

    def read(self, row: Mapping[str, Any], corruption: str, severity: int) -> Decoded | None:
        """Return the picture of an image, whole; None where there is none. The arguments are those of `uris`.

        Raises
        ------
        ImageError
            If the picture is damaged.
        StorageError
            If the storage does not answer.
        """
        uris = self.uris(row, corruption, severity)
        first = min(self._last, max(0, len(uris) - 1))
        for position in sorted(range(len(uris)), key=lambda position: position != first):
            try:
                picture = decode(uris[position])
            except ImageError:
                if self.corruptions[corruption].rows or _exists(uris[position]):
                    raise
                continue
            self._last = position
            return picture
        return None


def _names(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names that the picture of an image may have below the folder of a severity."""
    image_id = str(row["image_id"])
    stem, ending = os.path.splitext(image_id)
    class_name = row.get("class_name")
    stems = [f"{class_name}/{os.path.basename(stem)}", stem] if class_name else [stem]
    for one in stems:
        yield from (one + ending, *(one + other for other in ENDINGS))


def _row_number(row: Mapping[str, Any]) -> int | None:
    """Return the number of an image in the arrays, which its id or its URI ends with."""
    stem = os.path.splitext(str(row["image_id"]))[0]
    found = re.search(r"(\d+)$", stem) or re.search(r"#(\d+)$", str(row.get("uri", "")))
    return int(found[1]) if found else None


def _exists(uri: str) -> bool:
    path = storage_path(uri)
    with storing(path):
        return os.path.exists(path) if is_local(path) else path.exists()
