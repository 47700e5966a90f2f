"""The data set `webdataset`: tar shards, whose images are read in place. `shard_index.py` lists their samples."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cnnsens_bench.datasets.base import dataset
from cnnsens_bench.datasets.folder import checked_name
from cnnsens_bench.datasets.listing import LeftOut
from cnnsens_bench.datasets.sample_table import repeated_id
from cnnsens_bench.datasets.samples import Samples, cached_samples, make_samples
from cnnsens_bench.datasets.shard_index import ShardIndex, index_shards
from cnnsens_bench.datasets.shards import class_list, files_of, label_codes, splits_of, version_of
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.storage import StoragePath, storage_path

SOURCE = (
    "it is made of tar files that hold <key>.jpg and <key>.cls, in a folder, or by a pattern such as "
    "s3://bucket/shard-{000000..000146}.tar"
)


@dataset("webdataset", folder=None, source=SOURCE)
def webdataset(
    root: StoragePath | None,
    *,
    shards: Any = None,
    label: str = "cls",
    image: str | None = None,
    classes: Any = None,
    ids: str = "key",
    name: str = "webdataset",
) -> Samples:
    """Return the images of tar shards. Their ids are their keys: the members' names up to the first dot.

    A shard is listed once: what it holds is kept in the cache folder until its size, or its time of modification or
    ETag, changes. Shards are for training or testing where folders, or the beginnings of their names, are `train` and
    `test`, `val` or `validation`; else all images are tested. Samples without an image or a label are left out, and a
    note counts them.

    Parameters
    ----------
    root
        A folder with tar files, one tar file, or a pattern with braces; a path or a URI.
    shards
        A pattern with braces, or a list of patterns, below the root or absolute. The default is every `.tar` file.
    label
        The ending of the members that hold the label: `cls` or `txt`, or `json.<field>`. A label is a number or a name.
    image
        The ending of the images, such as `jpg`, where samples have several.
    classes
        The names of the classes by number: a list, or a text file with a name a line. The default is the file
        `classnames.txt` beside the shards, if there is one.
    ids
        `key`, or `shard` for shards that have the same keys: `<shard>/<key>`.
    name
        The name of the data set in the results.

    Raises
    ------
    UserError
        If a shard is absent, compressed or no tar file, a key has two images, or a label is no class.
    """
    name = checked_name("webdataset", name)
    if not isinstance(label, str) or not label or (label.partition(".")[0] == "json") != ("." in label):
        raise UserError(f"dataset 'webdataset': label is {label!r}: it must be cls, txt or json.<field>")
    if ids not in ("key", "shard"):
        raise UserError(f"dataset 'webdataset': ids is {ids!r}: it must be key or shard")
    files = files_of("webdataset", root, shards, "shards", ".tar", SOURCE)
    names, named = class_list("webdataset", classes, _folders(root, files))
    splits = splits_of(files, root)
    version = version_of(files, [name, label, image, ids, names, named, splits])
    return cached_samples(
        version,
        lambda: _Shards(files, index_shards(files, label, image), ids, *splits).samples(name, label, names, named),
    )


@dataclass(frozen=True)
class _Shards:
    """The shards of a data set with their indexes, which are read one after the other."""

    files: list[str]
    indexes: list[ShardIndex]
    ids: str
    splits: list[str]
    has_split: bool

    def samples(self, name: str, label: str, names: list[str] | None, named: tuple[str, ...]) -> Samples:
        """Return the samples that have a label."""
        left_out, damages = _notes(self.files, self.indexes)
        content = hashlib.sha256()
        for index in self.indexes:
            found = index.table().to_pandas()
            labelled = found["label"].notna()
            left_out.add_all("unlabelled", found.loc[~labelled, "key"])
            content.update(found.loc[labelled, ["size", "check"]].to_numpy("<i8").tobytes())
        labels = pd.Series([one for index in self.indexes for one in index.labels if one is not None], dtype="str")
        if labels.empty:
            rows = sum(index.rows for index in self.indexes)
            has = "no images" if not rows else f"no label .{label} with any of its {rows} images"
            reasons = "".join(f" ({note})" for note in (*left_out.sentences(), *damages))
            raise UserError(
                f"dataset 'webdataset': {self.files[0]}{' …' if self.files[1:] else ''} has {has}: expected <key>.jpg "
                f"with <key>.cls, or dataset.options.label=txt or json.<field>{reasons}"
            )
        if self.ids == "key" and (twice := repeated_id(lambda: (table["image_id"] for table, _ in self._tables()))):
            raise UserError(
                f"dataset 'webdataset': two shards have the key '{twice}': dataset.options.ids=shard puts the names of "
                "the shards before the keys"
            )
        codes = label_codes("webdataset", labels, names, self._tables)
        notes = (*named, *left_out.sentences(), *damages)
        tables = (codes.complete(table, found) for table, found in self._tables())
        digest = content.hexdigest()
        return make_samples(name, codes.classes, tables, has_split=self.has_split, notes=notes, content=digest)

    def _tables(self) -> Iterator[tuple[pd.DataFrame, pd.Series]]:
        """Yield the images of each shard that have a label, and their labels."""
        for file, index, split in zip(self.files, self.indexes, self.splits, strict=True):
            found = index.table().to_pandas()
            found = found[found["label"].notna()].reset_index(drop=True)
            uris = f"{file}#" + found["offset"].astype(str) + "+" + found["size"].astype(str)
            table = pd.DataFrame({"image_id": found["key"], "split": split, "uri": uris})
            if self.ids == "shard":
                table["image_id"] = f"{file.rpartition('/')[2].removesuffix('.tar')}/" + table["image_id"]
            yield table, found["label"]


def _folders(root: StoragePath | None, files: Sequence[str]) -> list[StoragePath]:
    """Return the folders in which a list of classes is looked for: the root, and that of the first shard."""
    beside = storage_path(files[0].rpartition("/")[0]) if "/" in files[0] else None
    is_folder = root is not None and "{" not in str(root) and not root.name.endswith(".tar")
    folders = [root if is_folder else None, beside]
    return [folder for folder in dict.fromkeys(folders) if folder is not None]


def _notes(files: Sequence[str], indexes: Sequence[ShardIndex]) -> tuple[LeftOut, tuple[str, ...]]:
    """Return what is left out of shards, and a sentence about those whose end is damaged."""
    left_out = LeftOut()
    damaged = []
    for file, index in zip(files, indexes, strict=True):
        for kind, counts in index.left_out.items():
            left_out.counts[kind].update(counts)
        shown = file.rpartition("/")[2]
        if index.damage:
            damaged.append(f"{shown}: {index.damage}")
        elif not index.rows:
            left_out.add("empty_shard", shown)
    if not damaged:
        return left_out, ()
    more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
    return left_out, (f"the ends of shards are missing ({'; '.join(damaged[:3])}{more})",)
