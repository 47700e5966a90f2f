"""The rows of a data set's samples, in memory or in a file of the cache folder; thousands are read at a time."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

COLUMNS = ("image_id", "split", "uri", "label", "class_name", "box_x", "box_y", "box_w", "box_h", "mask_uri")
"""The columns of a table of samples, which `Samples` explains."""
BOX = ("box_x", "box_y", "box_w", "box_h")
SPLITS = ("train", "val", "test")
FRAME_ROWS = 65_536
"""The rows of a frame at most."""


class SampleTable(Protocol):
    """The rows of all samples of a data set, in its order.

    Attributes
    ----------
    counts
        The number of images of each (split, label) that occurs, as a series with these two as its index.
    has_boxes
        Whether an image has a box.
    """

    @property
    def counts(self) -> pd.Series: ...

    @property
    def has_boxes(self) -> bool: ...

    def __len__(self) -> int: ...

    def frames(self, columns: Sequence[str] = COLUMNS) -> Iterator[pd.DataFrame]:
        """Yield the rows in order as frames of at most `FRAME_ROWS` rows, each with an index from 0."""
        ...

    def digest(self, suffix: bytes) -> str:
        """Return the SHA-256 of the rows without their paths, followed by the suffix."""
        ...

    def all_test(self) -> "SampleTable":
        """Return the table with every image in the split `test`."""
        ...


@dataclass(frozen=True, eq=False)
class MemoryTable:
    """A sample table in memory."""

    frame: pd.DataFrame

    @functools.cached_property
    def counts(self) -> pd.Series:
        return count_labels(self.frame)

    @functools.cached_property
    def has_boxes(self) -> bool:
        return bool(self.frame["box_w"].notna().any())

    def __len__(self) -> int:
        return len(self.frame)

    def frames(self, columns: Sequence[str] = COLUMNS) -> Iterator[pd.DataFrame]:
        for start in range(0, max(1, len(self.frame)), FRAME_ROWS):
            yield self.frame[list(columns)].iloc[start : start + FRAME_ROWS].reset_index(drop=True)

    def digest(self, suffix: bytes) -> str:
        return digest_of(self.frames(), suffix)

    def all_test(self) -> SampleTable:
        return MemoryTable(self.frame.assign(split="test"))


@dataclass(frozen=True, eq=False)
class FileTable:
    """A sample table in a Parquet file, which `sample_file.py` writes.

    Attributes
    ----------
    path
        The file.
    rows
        The number of its rows.
    label_counts, has_boxes
        What `SampleTable` has as `counts` and `has_boxes`, as the file has it.
    digests
        The digests that were taken when the file was written, by `digest_key`.
    as_test
        Whether every image counts as a test image, whatever the file says.
    """

    path: Path
    rows: int
    label_counts: pd.Series
    has_boxes: bool
    digests: dict[str, str] = field(default_factory=dict)
    as_test: bool = False

    @functools.cached_property
    def counts(self) -> pd.Series:
        if not self.as_test:
            return self.label_counts
        by_label = self.label_counts.groupby(level="label").sum()
        return pd.concat({"test": by_label}, names=["split"])

    def __len__(self) -> int:
        return self.rows

    def frames(self, columns: Sequence[str] = COLUMNS) -> Iterator[pd.DataFrame]:
        # Only the batch at hand is in memory, since the file is not mapped.
        with pq.ParquetFile(self.path, pre_buffer=False) as file:
            for batch in file.iter_batches(FRAME_ROWS, columns=list(columns)):
                frame = batch.to_pandas()[list(columns)]
                if "mask_uri" in columns:
                    frame["mask_uri"] = texts_or_none(frame["mask_uri"])
                yield frame.assign(split="test") if self.as_test and "split" in columns else frame

    def digest(self, suffix: bytes) -> str:
        return self.digests.get(digest_key(suffix, self.as_test)) or digest_of(self.frames(), suffix)

    def all_test(self) -> SampleTable:
        return dataclasses.replace(self, as_test=True)


@dataclass(frozen=True, eq=False)
class ImageSelection:
    """Some images of a sample table, in its order.

    Attributes
    ----------
    table
        The table.
    splits
        The splits that the images are from.
    chosen
        Their positions among the images of these splits, in ascending order; None for all of them.
    """

    table: SampleTable
    splits: tuple[str, ...]
    chosen: np.ndarray | None = None

    def __len__(self) -> int:
        if self.chosen is not None:
            return len(self.chosen)
        counts = self.table.counts
        return int(counts[counts.index.get_level_values("split").isin(self.splits)].sum())

    def frames(self, columns: Sequence[str] = COLUMNS) -> Iterator[pd.DataFrame]:
        """Yield the rows in order as frames of one row or more, each with an index from 0."""
        start = 0
        for frame in self.table.frames(tuple(dict.fromkeys((*columns, "split")))):
            rows = frame[frame["split"].isin(self.splits)][list(columns)]
            if self.chosen is not None:
                first, last = np.searchsorted(self.chosen, [start, start + len(rows)])
                start += len(rows)
                rows = rows.iloc[self.chosen[first:last] - (start - len(rows))] if last > first else rows.iloc[:0]
            if len(rows):
                yield rows.reset_index(drop=True)

    def load(self) -> pd.DataFrame:
        """Return all rows at once, which is for selections that are known to be small, and for training."""
        frames = list(self.frames())
        return pd.concat(frames, ignore_index=True) if frames else next(self.table.frames()).iloc[:0]

    def at(self, positions: Sequence[int] | np.ndarray) -> pd.DataFrame:
        """Return the rows at some positions in the selection, which are sorted first."""
        wanted = np.unique(np.asarray(positions, np.int64))
        chosen = wanted if self.chosen is None else self.chosen[wanted]
        return ImageSelection(self.table, self.splits, chosen).load()

    def limited(self, limit: int | None) -> "ImageSelection":
        """Return the selection of `limit` images that are chosen by the hash of their ids; None takes all.

        The images of a smaller limit are among those of a larger one.
        """
        if limit is None or limit >= len(self):
            return self
        return ImageSelection(self.table, self.splits, np.sort(self.first_by_hash(limit)))

    def first_by_hash(self, count: int) -> np.ndarray:
        """Return the positions of the images whose ids have the smallest hashes, smallest first.

        They are positions among the images of the splits, like `chosen`, of all images. No more than two frames and
        `count` positions are held at a time.
        """
        ranks, positions = np.empty(0, np.uint64), np.empty(0, np.int64)
        start = 0
        for frame in ImageSelection(self.table, self.splits).frames(("image_id",)):
            ranks = np.concatenate([ranks, hash_rank(frame["image_id"])])
            positions = np.concatenate([positions, np.arange(start, start + len(frame))])
            start += len(frame)
            if len(ranks) > count:
                least = np.argpartition(ranks, count - 1)[:count]
                ranks, positions = ranks[least], positions[least]
        return positions[np.argsort(ranks, kind="stable")]


def texts_or_none(texts: pd.Series) -> pd.Series:
    """Return texts with None where there is none; pandas turns that into NaN in a column that also holds text."""
    return texts.astype(object).where(texts.notna(), None)


def digest_key(suffix: bytes, as_test: bool) -> str:
    """Return the key of `FileTable.digests` for a suffix, and for rows as they are or all in the split `test`."""
    return f"{'test' if as_test else 'splits'}-{hashlib.sha256(suffix).hexdigest()}"


def count_labels(frame: pd.DataFrame) -> pd.Series:
    """Return the number of rows of each (split, label)."""
    return frame.groupby(["split", "label"], observed=True).size()


def digest_of(frames: Iterator[pd.DataFrame], suffix: bytes) -> str:
    """Return the SHA-256 of rows without their paths, followed by a suffix, as `SampleTable.digest` does."""
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(hash_rows(frame))
    digest.update(suffix)
    return digest.hexdigest()


def hash_rows(frame: pd.DataFrame) -> bytes:
    """Return a hash of 8 bytes for each row without its paths."""
    without_paths = frame.drop(columns=["uri", "mask_uri"])
    # The hash of a category is that of its value, and there are few values.
    few = {column: without_paths[column].astype("category") for column in ("split", "class_name")}
    return pd.util.hash_pandas_object(without_paths.assign(**few), index=False, categorize=False).to_numpy().tobytes()


def repeated_id(ids: Callable[[], Iterator[pd.Series]]) -> str | None:
    """Return an id that occurs twice, or None.

    Parameters
    ----------
    ids
        Yields all ids, some at a time. It is called again where two hashes are equal, which only equal ids have, but
        for chance.
    """
    hashes = np.concatenate([np.empty(0, np.uint64), *map(hash_ids, ids())])
    hashes.sort()
    repeated = hashes[1:][hashes[1:] == hashes[:-1]]
    if not len(repeated):
        return None
    few = pd.concat([some[np.isin(hash_ids(some), repeated)] for some in ids()])
    twice = few[few.duplicated()]
    return str(twice.iloc[0]) if len(twice) else None


def hash_ids(image_ids: pd.Series) -> np.ndarray:
    """Return 64-bit hashes of ids. Equal ids have equal hashes, and different ones hardly ever."""
    return pd.util.hash_array(image_ids.to_numpy(object), categorize=False)


def hash_rank(image_ids: Sequence[str] | pd.Series) -> np.ndarray:
    """Return numbers to sort images by: a pseudo-random order that depends on nothing but their ids.

    Examples
    --------
    >>> hash_rank(["a.jpg", "b.jpg"]).argsort().tolist()
    [1, 0]
    """
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in image_ids)
    return np.frombuffer(digests, ">u8").astype(np.uint64)
