"""The plan of a sweep on the shared storage. It is written once, file by file, and workers read it task by task.

So neither the driver nor a worker holds more of the plan than one file of it.
"""

import contextlib
import functools
import io
import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cnnsens_bench.engine.plan import ImageBatch
from cnnsens_bench.engine.sweep import Sweep
from cnnsens_bench.runtime.partition import NetworkGroup
from cnnsens_bench.utils import storage
from cnnsens_bench.utils.errors import StorageError
from cnnsens_bench.utils.storage import StoragePath

BATCHES_PER_GROUP = 32
"""The image batches of a row group, which is read at once."""
GROUPS_PER_FILE = 64
GROUPS_KEPT = 4
"""The row groups that a process keeps, since most tasks follow each other."""


@dataclass(frozen=True)
class Task:
    """A unit of work: some images of a batch for the networks of a group.

    Attributes
    ----------
    group
        The group's number.
    rows
        The images' rows of the sample table.
    wanted
        (images, entrants of the group, cells) bool: what is to be predicted.
    wanted_scores
        (images, entrants of the group, score cells) bool: what is to be scored.
    first
        (images,) bool: whether no group before this one computes the image, so that this task describes it too.
    """

    group: int
    rows: list[dict[str, Any]]
    wanted: np.ndarray
    wanted_scores: np.ndarray
    first: np.ndarray

    @property
    def ids(self) -> list[str]:
        """The ids of the images."""
        return [str(row["image_id"]) for row in self.rows]

    def take(self, positions: Sequence[int]) -> "Task":
        """Return the task of the images at some positions."""
        index = np.asarray(positions, int)
        rows = [self.rows[i] for i in positions]
        return Task(self.group, rows, self.wanted[index], self.wanted_scores[index], self.first[index])


@dataclass(frozen=True)
class StoredPlan:
    """A plan in files.

    Attributes
    ----------
    folder
        Where the files lie.
    batches, images, evaluations
        How many image batches, images and evaluations the plan asks for.
    batch_size
        The number of images of each batch but the last.
    entrants, cells, score_cells
        The sizes of the sweep, which are the shapes of the arrays.
    """

    folder: StoragePath
    batches: int
    images: int
    evaluations: int
    batch_size: int
    entrants: int
    cells: int
    score_cells: int

    def batch(self, number: int) -> ImageBatch:
        """Return an image batch by its number, counted from 0 through all files. Raises `StorageError`."""
        group, position = divmod(number, BATCHES_PER_GROUP)
        table = _row_group(self.folder, *divmod(group, GROUPS_PER_FILE)).slice(
            position * self.batch_size, self.batch_size
        )
        wanted = unpack_bits(table["wanted"].to_pylist(), self.entrants, self.cells)
        wanted_scores = unpack_bits(table["wanted_scores"].to_pylist(), self.entrants, self.score_cells)
        return ImageBatch(table.drop_columns(["wanted", "wanted_scores"]).to_pandas(), wanted, wanted_scores)

    def read(self) -> Iterator[ImageBatch]:
        """Yield all image batches in order. Raises `StorageError`."""
        return map(self.batch, range(self.batches))


@functools.lru_cache(GROUPS_KEPT)
def _row_group(folder: StoragePath, file: int, group: int) -> pa.Table:
    """Return a row group of a plan. The folder of a plan is its own, so what is kept is never out of date."""
    with storage.storing(folder), _file(folder, file).open("rb") as opened:
        return pq.ParquetFile(opened).read_row_group(group)


@contextlib.contextmanager
def stored_plan(sweep: Sweep, batches: Iterable[ImageBatch], parts: StoragePath) -> Iterator[StoredPlan]:
    """Store a plan in `<output>/plan/<attempt>` while the body runs, and remove it at the end.

    What earlier runs that were killed left in `<output>/plan` is removed too.

    Parameters
    ----------
    sweep
        The sweep.
    batches
        Its plan. Batches of a size that is no multiple of the sweep's come last.
    parts
        The attempt's folder of part files, `<output>/parts/<attempt>`.

    Raises
    ------
    StorageError
        If the disk is full or a server cannot be reached.
    """
    above = parts.parent.parent / "plan"
    _remove(above)
    folder = above / parts.name
    storage.make_folder(folder)
    try:
        yield _write(sweep, batches, folder)
    finally:
        _remove(folder)  # nothing else: a run that has taken over may have its own plan beside it
        storage.remove_empty_folder(above)


def _write(sweep: Sweep, batches: Iterable[ImageBatch], folder: StoragePath) -> StoredPlan:
    images = evaluations = files = 0
    rows_per_group = BATCHES_PER_GROUP * sweep.batch_size
    held: list[pa.Table] = []

    def write(least: int) -> None:
        """Write what is held in files of `GROUPS_PER_FILE` row groups; leave fewer than `least` rows."""
        nonlocal held, files
        together = pa.concat_tables(held)
        start, size = 0, GROUPS_PER_FILE * rows_per_group
        while together.num_rows - start >= least:
            storage.write_whole(_file(folder, files), _parquet(together.slice(start, size), rows_per_group))
            start, files = start + size, files + 1
        held = [together.slice(start)]

    for batch in batches:
        held.append(_table(batch).cast(held[0].schema) if held else _table(batch))
        images += len(batch.rows)
        evaluations += batch.evaluations
        if sum(table.num_rows for table in held) >= GROUPS_PER_FILE * rows_per_group:
            write(GROUPS_PER_FILE * rows_per_group)
    if held:
        write(1)
    shape = len(sweep.entrants), len(sweep.cells()), len(sweep.score_cells())
    return StoredPlan(folder, -(-images // sweep.batch_size), images, evaluations, sweep.batch_size, *shape)


def _parquet(table: pa.Table, rows_per_group: int) -> bytes:
    content = io.BytesIO()
    pq.write_table(table, content, row_group_size=rows_per_group, compression="zstd")
    return content.getvalue()


def tasks_of(batch: ImageBatch, groups: Sequence[NetworkGroup], number: int, tasks_per_batch: int) -> Iterator[Task]:
    """Return the tasks that a group has with an image batch. Every wanted evaluation is in one task of one group.

    Parameters
    ----------
    batch
        The image batch.
    groups
        All groups of networks.
    number
        The number of the group.
    tasks_per_batch
        How many tasks the images are divided into; those in which the group wants nothing are left out.
    """
    tasks = (task_at(batch, groups, number, tasks_per_batch, position) for position in range(tasks_per_batch))
    return (task for task in tasks if task)


def task_at(
    batch: ImageBatch, groups: Sequence[NetworkGroup], number: int, tasks_per_batch: int, position: int
) -> Task | None:
    """Return one task of `tasks_of` by its position, or None where the group wants nothing of its images."""
    images = np.array_split(np.arange(len(batch.rows)), tasks_per_batch)[position]
    wanted, wanted_scores = batch.wanted[images], batch.wanted_scores[images]
    wants = np.logical_or(wanted.any(axis=2), wanted_scores.any(axis=2))
    members = list(groups[number].entrants)
    some = wants[:, members].any(axis=1)
    if not some.any():
        return None
    before = [i for group in groups[:number] for i in group.entrants]
    return Task(
        number,
        batch.rows.iloc[images[some]].to_dict("records"),
        wanted[some][:, members],
        wanted_scores[some][:, members],
        np.logical_not(wants[some][:, before].any(axis=1)),
    )


def pack_bits(flags: np.ndarray) -> list[bytes]:
    """Return (images, …) bool as bytes for each image, 8 values a byte."""
    return [row.tobytes() for row in np.packbits(flags.reshape(len(flags), -1), axis=1)]


def unpack_bits(packed: Sequence[bytes], *shape: int) -> np.ndarray:
    """Return the inverse of `pack_bits`, given the shape of an image's values."""
    bits = np.frombuffer(b"".join(packed), np.uint8).reshape(len(packed), (math.prod(shape) + 7) // 8)
    return np.unpackbits(bits, axis=1, count=math.prod(shape)).view(bool).reshape(len(packed), *shape)


def _table(batch: ImageBatch) -> pa.Table:
    table = pa.Table.from_pandas(batch.rows.reset_index(drop=True), preserve_index=False)
    # A column that is empty in this batch need not be empty in the next one.
    table = table.cast(pa.schema([f.with_type(pa.string()) if pa.types.is_null(f.type) else f for f in table.schema]))
    for name, flags in (("wanted", batch.wanted), ("wanted_scores", batch.wanted_scores)):
        if batch.alike:  # stored once, however many images there are
            bits = pa.DictionaryArray.from_arrays(np.zeros(len(flags), np.int32), pa.array(pack_bits(flags[:1])))
        else:
            bits = pa.array(pack_bits(flags), pa.binary()).dictionary_encode()
        table = table.append_column(name, bits)
    return table


def _file(folder: StoragePath, number: int) -> StoragePath:
    return folder / f"{number:06d}.parquet"


def _remove(folder: StoragePath) -> None:
    """Remove a folder and its files, if it is there. What cannot be removed is removed by the next run."""
    if storage.is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with contextlib.suppress(StorageError):
        storage.remove_files(folder, storage.names_below(folder))
