"""Lists the image files of a folder of class folders, and counts what is left out of it. `folder.py` makes samples."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.image_formats import HEIC_ENDINGS, photograph_endings
from cnnsens_bench.utils.storage import StoragePath, names_below

KINDS = {
    "other": ("file that is not read as an image", "files that are not read as images"),
    "heic": ("image that needs the package pillow-heif", "images that need the package pillow-heif"),
    "loose": ("image in no class folder", "images in no class folder"),
    "empty": ("class folder without images", "class folders without images"),
    "hidden": ("hidden file or folder", "hidden files or folders"),
    "broken": ("link that leads nowhere", "links that lead nowhere"),
    "repeated": ("link to a folder that is listed already", "links to folders that are listed already"),
    "unreadable": ("folder that cannot be read", "folders that cannot be read"),
    "empty_shard": ("shard without images", "shards without images"),
    "no_image": ("sample without an image", "samples without an image"),
    "unlabelled": ("image without a label", "images without a label"),
    "beside": ("folder beside the splits", "folders beside the splits"),
}
"""What can be left out of a data set, as a person reads it: one, and several."""
MOST_NAMED = 3


class LeftOut:
    """Counts what is left out of a folder, by its kind and by a name or ending."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}

    def add(self, kind: str, name: str) -> None:
        """Count something of a kind of `KINDS` by its name or ending."""
        self.counts[kind][name] += 1

    def add_all(self, kind: str, names: Iterable[str]) -> None:
        """Count several of a kind of `KINDS` by their names."""
        self.counts[kind].update(names)

    def add_files(self, names: Iterable[str]) -> None:
        """Count files that are no images of a class, by their endings."""
        for name in names:
            ending = os.path.splitext(name)[1].lower()
            if ending in photograph_endings():
                self.add("loose", name)
            elif ending in HEIC_ENDINGS:
                self.add("heic", ending)
            else:
                self.add("other", ending if re.fullmatch(r"\.\w{1,9}", ending) else "without ending")

    def names(self, name: str) -> bool:
        """Return whether something of this name is counted."""
        return any(name in names for names in self.counts.values())

    def sentences(self) -> tuple[str, ...]:
        """Return one line that counts everything, and nothing where nothing is left out.

        Examples
        --------
        >>> left_out = LeftOut()
        >>> for kind, name in [("other", ".txt"), ("other", ".txt"), ("other", ".json"), ("empty", "emu")]:
        ...     left_out.add(kind, name)
        >>> left_out.sentences()
        ('left out: 3 files that are not read as images (.txt 2, .json 1), 1 class folder without images (emu)',)
        """
        texts = []
        for kind, names in self.counts.items():
            if count := names.total():
                one, several = KINDS[kind]
                shown = [
                    _shortened(name) + (f" {n}" if count > len(names) > 1 else "")
                    for name, n in sorted(names.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_NAMED]
                ]
                more = ", …" if len(names) > MOST_NAMED else ""
                texts.append(f"{count} {one if count == 1 else several} ({', '.join(shown)}{more})")
        return ("left out: " + ", ".join(texts),) if texts else ()


class Tree(Protocol):
    """The visible files and folders below a folder; names are relative to it, with slashes."""

    def children(self, name: str) -> tuple[list[str], list[str]]:
        """Return the folders and the files directly in a folder; an empty name stands for the top."""

    def files(self, name: str) -> Iterable[str]:
        """Return all files below a class folder, in no order."""


class DiskTree:
    """The files below a folder on the disk. Links are followed, also to outside. A class reads no folder twice."""

    def __init__(self, top: Path, left_out: LeftOut) -> None:
        self.top, self.left_out = str(top), left_out
        self._children: dict[str, tuple[list[str], list[str]]] = {}

    def children(self, name: str) -> tuple[list[str], list[str]]:
        """Return the folders and the files directly in a folder; an empty name stands for the top."""
        if name not in self._children:
            folders, links, files = self._read(name)
            self._children[name] = folders + links, files
        return self._children[name]

    def files(self, name: str) -> Iterator[str]:
        """Yield all files below a class folder, in no order."""
        # A link to a folder above would make all classes one.
        seen = {self._identity(""), self._identity(name.rpartition("/")[0])}
        waiting, links = [name], list[str]()
        while waiting or links:
            # Links come last, in the order of their names, so that a folder is found on the same way each time.
            linked = not waiting
            current = waiting.pop() if waiting else links.pop(links.index(min(links)))
            identity = self._identity(current)
            if identity in seen:
                if linked or current == name:
                    self.left_out.add("repeated", current)
                continue
            seen.add(identity)
            folders, more_links, files = self._read(current)
            waiting += folders
            links += more_links
            yield from files

    def _identity(self, name: str) -> tuple[int, int] | str:
        """Return what tells a folder from all others, whatever links lead to it."""
        try:
            status = os.stat(f"{self.top}/{name}")
        except OSError:
            return name
        return status.st_dev, status.st_ino

    def _read(self, name: str) -> tuple[list[str], list[str], list[str]]:
        """Return the folders, the links to folders and the files directly in a folder."""
        folders, links, files = list[str](), list[str](), list[str]()
        prefix = f"{name}/" if name else ""
        try:
            with os.scandir(f"{self.top}/{name}") as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        self.left_out.add("hidden", entry.name)
                    elif entry.is_symlink():
                        path = f"{self.top}/{prefix}{entry.name}"
                        if os.path.isdir(path):
                            links.append(prefix + entry.name)
                        elif is_photograph(entry.name) or os.path.exists(path):
                            files.append(prefix + entry.name)  # an image that is absent becomes a row of failures
                        else:
                            self.left_out.add("broken", prefix + entry.name)
                    elif entry.is_dir():
                        folders.append(prefix + entry.name)
                    else:
                        files.append(prefix + entry.name)
        except OSError:
            self.left_out.add("unreadable", name or self.top)
        return folders, links, files


class UriTree:
    """The files below a URI, which has neither links nor empty folders. All are listed at once."""

    def __init__(self, top: StoragePath, left_out: LeftOut) -> None:
        self._folders, self._direct, self._below = (defaultdict[str, dict[str, None]](dict) for _ in range(3))
        hidden = set()
        for name in names_below(top):
            parts = name.split("/")
            first_hidden = next((i for i, part in enumerate(parts) if part.startswith(".")), None)
            if first_hidden is not None:
                hidden.add("/".join(parts[: first_hidden + 1]))
                continue
            for depth in range(min(3, len(parts))):
                folder = "/".join(parts[:depth])
                self._below[folder][name] = None
                if depth == len(parts) - 1:
                    self._direct[folder][name] = None
                else:
                    self._folders[folder]["/".join(parts[: depth + 1])] = None
        for name in hidden:
            left_out.add("hidden", name.rpartition("/")[2])

    def children(self, name: str) -> tuple[list[str], list[str]]:
        """Return the folders and the files directly in a folder; an empty name stands for the top."""
        return list(self._folders[name]), list(self._direct[name])

    def files(self, name: str) -> list[str]:
        """Return all files below a folder that is at most two levels deep."""
        return list(self._below[name])


def tree_of(top: StoragePath, left_out: LeftOut) -> Tree:
    """Return the files below a folder or URI, and count in `left_out` what is hidden or cannot be reached."""
    return DiskTree(top, left_out) if isinstance(top, Path) else UriTree(top, left_out)


def is_photograph(name: str) -> bool:
    """Return whether a file has the ending of a photograph that can be read."""
    return os.path.splitext(name)[1].lower() in photograph_endings()


def images_of(tree: Tree, class_folders: Iterable[str], left_out: LeftOut) -> list[tuple[str, ...]]:
    """Return the path of each image below class folders, as its parts, in their order.

    Parameters
    ----------
    tree
        The files.
    class_folders
        Folders of the tree.
    left_out
        Counts the other files, and the class folders without images.

    Raises
    ------
    UserError
        If a name cannot be stored with the results.
    """
    endings = photograph_endings()
    images: list[tuple[str, ...]] = []
    for folder in class_folders:
        before = len(images)
        for name in tree.files(folder):
            if os.path.splitext(name)[1].lower() in endings:
                images.append(tuple(name.split("/")))
            else:
                left_out.add_files([name])
        if len(images) == before and not left_out.names(folder):
            left_out.add("empty", folder)
    for parts in images:
        try:
            "/".join(parts).encode()
        except UnicodeEncodeError:
            raise UserError(f"an image's name is not UTF-8 ({'/'.join(parts)!r}): rename it") from None
    return sorted(images)


def _shortened(name: str) -> str:
    """Return a name as a sentence shows it: without line breaks, and cut where it is long."""
    shown = name if name.isprintable() else ascii(name)[1:-1]
    return shown if len(shown) <= 40 else f"{shown[:39]}…"
