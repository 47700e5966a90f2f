"""The plan on the shared storage: written once, step by step, and read piece by piece by whoever computes.

So neither the driver nor a worker holds more of it than a file, and what is to be done is counted on the way.
"""

import contextlib
import io
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cnnsens_bench.engine.plan import ImageBatch, Sweep
from cnnsens_bench.runtime.partition import NetworkGroup
from cnnsens_bench.utils.errors import StorageError
from cnnsens_bench.utils.storage import StoragePath, names_below, storing, write_whole

BATCHES_PER_FILE = 32
"""Each a row group."""


@dataclass(frozen=True)
class Task:
    """A piece of work: some images of a chunk for the networks of a group (its number).

    `rows`: of the sample table; `wanted`: (images, entrants of the group, cells) bool; `first` (images,) bool: whether
    no group before it computes the image, so that this one describes it too.
    """

    group: int
    rows: list[dict[str, Any]]
    wanted: np.ndarray
    first: np.ndarray

    @property
    def ids(self) -> list[str]:
        """Of its images."""
        return [str(row["image_id"]) for row in self.rows]

    def part(self, places: Sequence[int]) -> "Task":
        """Of the images at `places`."""
        index = np.asarray(places, int)
        return Task(self.group, [self.rows[i] for i in places], self.wanted[index], self.first[index])


@dataclass(frozen=True)
class StoredPlan:
    """Files in `folder`; how many chunks, images and evaluations they ask for; entrants × cells of the sweep."""

    folder: StoragePath
    chunks: int
    images: int
    evaluations: int
    shape: tuple[int, int]

    def chunk(self, number: int) -> ImageBatch:
        """The one of that number, counted from 0 through all files. Raises `StorageError`."""
        with storing(self.folder), _file(self.folder, number // BATCHES_PER_FILE).open("rb") as file:
            return self._chunk(pq.ParquetFile(file), number)

    def read(self) -> Iterator[ImageBatch]:
        """All, one after the other. Raises `StorageError`."""
        for start in range(0, self.chunks, BATCHES_PER_FILE):
            with storing(self.folder), _file(self.folder, start // BATCHES_PER_FILE).open("rb") as file:
                parquet = pq.ParquetFile(file)
                for number in range(start, min(start + BATCHES_PER_FILE, self.chunks)):
                    yield self._chunk(parquet, number)

    def _chunk(self, parquet: pq.ParquetFile, number: int) -> ImageBatch:
        table = parquet.read_row_group(number % BATCHES_PER_FILE)
        bits = [np.frombuffer(row, np.uint8) for row in table["wanted"].to_pylist()]
        count = self.shape[0] * self.shape[1]
        wanted = np.unpackbits(np.stack(bits), axis=1, count=count).view(bool).reshape(-1, *self.shape)
        return ImageBatch(table.drop_columns("wanted").to_pandas(), wanted)


@contextmanager
def stored_plan(sweep: Sweep, chunks: Iterable[ImageBatch], parts: StoragePath) -> Iterator[StoredPlan]:
    """The plan in a folder `<output>/plan/<attempt>` beside the parts, `<output>/parts/<attempt>`, removed at the end.

    What earlier runs that were killed left there is removed too. Raises `StorageError` on a full disk, or
    where a server is gone.
    """
    place = parts.parent.parent / "plan"
    _remove(place)
    folder = place / parts.name
    if isinstance(folder, Path):  # a URI has no folders
        with storing(folder):
            folder.mkdir(parents=True)
    try:
        yield _write(sweep, chunks, folder)
    finally:
        _remove(folder)  # no more: a run that has taken over may have its own beside it
        if isinstance(place, Path):
            with contextlib.suppress(OSError):  # it has
                place.rmdir()


def _write(sweep: Sweep, chunks: Iterable[ImageBatch], folder: StoragePath) -> StoredPlan:
    count = images = evaluations = 0
    file = _File()
    for chunk in chunks:
        file.add(_table(chunk))
        count += 1
        images += len(chunk.rows)
        evaluations += chunk.evaluations
        if count % BATCHES_PER_FILE == 0:
            write_whole(_file(folder, count // BATCHES_PER_FILE - 1), file.content())
            file = _File()
    if count % BATCHES_PER_FILE:
        write_whole(_file(folder, count // BATCHES_PER_FILE), file.content())
    return StoredPlan(folder, count, images, evaluations, (len(sweep.entrants), len(sweep.cells())))


class _File:
    """Of the plan, in memory until it is full; a chunk is a row group, for it has few rows."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        self._writer: pq.ParquetWriter | None = None

    def add(self, table: pa.Table) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._bytes, table.schema, compression="zstd")
        self._writer.write_table(table.cast(self._writer.schema))

    def content(self) -> bytes:
        assert self._writer
        self._writer.close()
        return self._bytes.getvalue()


def tasks_of(chunk: ImageBatch, groups: Sequence[NetworkGroup], number: int, pieces: int) -> Iterator[Task]:
    """What the group of that number has to do with a chunk, in at most so many `pieces`; nothing where nobody in the
    group wants anything. Every (image, entrant, cell) that is wanted is in one item of one group."""
    for place in range(pieces):
        item = task_at(chunk, groups, number, pieces, place)
        if item:
            yield item


def task_at(chunk: ImageBatch, groups: Sequence[NetworkGroup], number: int, pieces: int, place: int) -> Task | None:
    """The item at `place` among `pieces`."""
    some = np.array_split(np.arange(len(chunk.rows)), pieces)[place]
    wanted = chunk.wanted[some][:, groups[number].entrants]
    wants = wanted.any(axis=(1, 2))
    if not wants.any():
        return None
    some = some[wants]
    before = [i for group in groups[:number] for i in group.entrants]
    first = np.logical_not(chunk.wanted[some][:, before].any(axis=(1, 2)))
    return Task(number, chunk.rows.iloc[some].to_dict("records"), wanted[wants], first)


def _table(chunk: ImageBatch) -> pa.Table:
    packed = np.packbits(chunk.wanted.reshape(len(chunk.rows), -1), axis=1)
    table = pa.Table.from_pandas(chunk.rows.reset_index(drop=True), preserve_index=False)
    # A column that is empty here need not be so in the next chunk.
    table = table.cast(pa.schema([f.with_type(pa.string()) if pa.types.is_null(f.type) else f for f in table.schema]))
    return table.append_column("wanted", pa.array([row.tobytes() for row in packed], pa.binary()))


def _file(folder: StoragePath, number: int) -> StoragePath:
    return folder / f"{number:06d}.parquet"


def _remove(folder: StoragePath) -> None:
    """A folder and its files, if it is there; what cannot be removed now is removed the next time."""
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with contextlib.suppress(FileNotFoundError, StorageError):
        for name in names_below(folder):
            with storing(folder):
                (folder / name).unlink()
