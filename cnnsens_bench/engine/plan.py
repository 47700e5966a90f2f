"""The plan of a sweep: which cells and scores of which images are still to be computed, for which networks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from cnnsens_bench.engine.budget import CellChoice
from cnnsens_bench.engine.sweep import Sweep


@dataclass(frozen=True)
class ImageBatch:
    """Images that are planned together: some batches of a forward pass, or one.

    Attributes
    ----------
    rows
        The images' rows of the sample table.
    wanted
        (images, entrants, cells) bool: what is to be predicted.
    wanted_scores
        (images, entrants, score cells) bool: what is to be scored.
    """

    rows: pd.DataFrame
    wanted: np.ndarray
    wanted_scores: np.ndarray

    @property
    def alike(self) -> bool:
        """Whether the arrays say once for all images what each wants, as those of `numpy.broadcast_to` do."""
        return self.wanted.strides[0] == self.wanted_scores.strides[0] == 0

    @property
    def evaluations(self) -> int:
        """The number of cells and scores that are wanted."""
        rows, times = (slice(0, 1), len(self.rows)) if self.alike else (slice(None), 1)
        counts = np.count_nonzero(self.wanted[rows]), np.count_nonzero(self.wanted_scores[rows])
        return times * int(sum(counts))

    def take(self, images: slice) -> "ImageBatch":
        """Return the batch of some of the images."""
        return ImageBatch(self.rows.iloc[images], self.wanted[images], self.wanted_scores[images])


class StoredRows(Protocol):
    """What a store has of the images of a data set under a protocol."""

    def missing(self, image_ids: list[str], wanted: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of `image_ids` × `wanted` that the store lacks, with the column image_id."""
        ...

    def begun(self, image_ids: list[str]) -> set[str]:
        """Return those of the images that the store has any row of."""
        ...


MAX_ROWS_PER_QUERY = 1_000_000
"""The most evaluations that one query asks the store for (at least those of one image). It bounds the memory."""


def plan(
    sweep: Sweep, images: pd.DataFrame | Iterable[pd.DataFrame], stored: StoredRows | None = None
) -> Iterator[ImageBatch]:
    """Yield the images that lack something, in batches whose sizes are multiples of `sweep.batch_size` but the last's.

    Parameters
    ----------
    sweep
        The sweep to plan.
    images
        A sample table, whole or as frames of its rows, of which one is held at a time.
    stored
        Answers which rows of `sweep.cell_table()` and of `sweep.score_table()` the store lacks; None where the store
        is empty.
    """
    size = sweep.batch_size
    held: ImageBatch | None = None
    for some in _lacking(sweep, [images] if isinstance(images, pd.DataFrame) else images, stored):
        start = 0
        if held:  # what is left is filled up to a batch, so that batches are full on a resume too
            start = size - len(held.rows)
            held = _joined(held, some.take(slice(0, start)))
            if len(held.rows) < size:
                continue
            yield held
        full = start + max(0, len(some.rows) - start) // size * size
        if start < full:
            yield some.take(slice(start, full))
        held = some.take(slice(full, None)) if full < len(some.rows) else None
    if held:
        yield held


def whole_evaluations(sweep: Sweep, count: int, images: Iterable[pd.DataFrame]) -> int:
    """Return how many evaluations a sweep asks for where nothing is stored.

    Parameters
    ----------
    sweep
        The sweep.
    count
        The number of images.
    images
        The sample table as frames of its rows, which is read only where images take unlike numbers of cells.
    """
    if sweep.budget == 1:
        return count * sweep.evaluations_per_image()
    choice, (_, scores) = CellChoice(sweep), sweep.needed()
    cells = sum(int(choice.counts(frame["image_id"].tolist()).sum()) for frame in images)
    return len(sweep.entrants) * cells + count * int(scores.sum())


def _lacking(sweep: Sweep, frames: Iterable[pd.DataFrame], stored: StoredRows | None) -> Iterator[ImageBatch]:
    """Yield the images that lack something, some at a time."""
    if not sweep.entrants:
        return
    everything = _Everything(sweep)
    # A query asks about many images, because each scans the whole table where ids are in no order.
    step = max(1, MAX_ROWS_PER_QUERY // max(1, sweep.evaluations_per_image()))
    if stored is None:
        for frame in frames:
            yield from map(everything.of, [frame] if everything.alike else _cut(frame, step))
        return
    cell_question = _Question(stored, sweep.cell_table(), everything.cells)
    score_question = _Question(stored, sweep.score_table(), everything.scores)
    for frame in frames:
        begun = frame["image_id"].isin(stored.begun(frame["image_id"].tolist())).to_numpy()
        # Images that the store knows nothing of need no further question.
        if everything.alike and not begun.any():
            yield everything.of(frame)
            continue
        for start, rows in zip(range(0, len(frame), step), _cut(frame, step), strict=True):
            known = begun[start : start + step]
            batch = everything.of(rows)
            if known.any():
                ids = rows["image_id"][known].tolist()
                wanted, wanted_scores = batch.wanted.copy(), batch.wanted_scores.copy()
                wanted[known] &= cell_question.ask(ids)
                wanted_scores[known] &= score_question.ask(ids)
                some = wanted.any(axis=(1, 2)) | wanted_scores.any(axis=(1, 2))
                batch = ImageBatch(rows[some], wanted[some], wanted_scores[some])
            if len(batch.rows):
                yield batch


def _cut(frame: pd.DataFrame, step: int) -> Iterator[pd.DataFrame]:
    return (frame.iloc[start : start + step] for start in range(0, len(frame), step))


class _Everything:
    """What a sweep asks of images of which nothing is stored."""

    def __init__(self, sweep: Sweep) -> None:
        self.cells, self.scores = sweep.needed()
        self.choice = CellChoice(sweep) if sweep.budget < 1 else None

    @property
    def alike(self) -> bool:
        """Whether all images need the same, so that the batch of any number of them takes no memory."""
        return self.choice is None

    def of(self, rows: pd.DataFrame) -> ImageBatch:
        """Return the batch of images that lack everything."""
        cells, scores = (np.broadcast_to(needed, (len(rows), *needed.shape)) for needed in (self.cells, self.scores))
        if self.choice is not None:
            cells = cells & self.choice.of(rows["image_id"].tolist())[:, None]
        return ImageBatch(rows, cells, scores)


class _Question:
    """Asks the store which rows of `table` are missing for each image.

    The table has a row for each true value of `needed`, in its order.
    """

    def __init__(self, stored: StoredRows, table: pd.DataFrame, needed: np.ndarray) -> None:
        self.stored, self.table, self.shape = stored, table, needed.shape
        self.index = pd.MultiIndex.from_frame(table)
        self.positions = np.flatnonzero(needed)

    def ask(self, image_ids: list[str]) -> np.ndarray:
        """Return what the images lack, as (images, *shape of `needed`) bool."""
        flat = np.zeros((len(image_ids), int(np.prod(self.shape))), bool)
        if len(self.table):
            lacking = self.stored.missing(image_ids, self.table)
            if not lacking.empty:
                image = pd.Index(image_ids).get_indexer(pd.Index(lacking["image_id"]))
                row = self.index.get_indexer(pd.MultiIndex.from_frame(lacking[list(self.table)]))
                flat[image, self.positions[row]] = True
        return flat.reshape(len(image_ids), *self.shape)


def _joined(one: ImageBatch, other: ImageBatch) -> ImageBatch:
    return ImageBatch(
        pd.concat([one.rows, other.rows]),
        np.concatenate([one.wanted, other.wanted]),
        np.concatenate([one.wanted_scores, other.wanted_scores]),
    )
