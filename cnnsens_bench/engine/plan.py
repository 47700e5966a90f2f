"""The plan of a sweep: which cells and scores of which images are still to be computed, for which networks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cnnsens_bench.engine.sweep import Sweep


@dataclass(frozen=True)
class ImageBatch:
    """Images that are planned together.

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
    def evaluations(self) -> int:
        """The number of cells and scores that are wanted."""
        return int(np.count_nonzero(self.wanted)) + int(np.count_nonzero(self.wanted_scores))

    def take(self, images: slice) -> "ImageBatch":
        """Return the batch of some of the images."""
        return ImageBatch(self.rows.iloc[images], self.wanted[images], self.wanted_scores[images])


Missing = Callable[[Sequence[str], pd.DataFrame], pd.DataFrame]
"""(image ids, table of what each needs) → the rows of their product that the store lacks, image_id as a column too."""

MAX_ROWS_PER_QUERY = 1_000_000
"""The most evaluations that one query asks the store for (at least those of one image). It bounds the memory."""


def plan(sweep: Sweep, images: pd.DataFrame, missing: Missing | None = None) -> Iterator[ImageBatch]:
    """Yield batches of `sweep.batch_size` images that lack something; the last batch may be smaller.

    Parameters
    ----------
    sweep
        The sweep to plan.
    images
        A sample table.
    missing
        Answers which rows of `sweep.cell_table()` and of `sweep.score_table()` the store lacks; None where the store
        is empty.
    """
    held: list[ImageBatch] = []
    for some in _lacking(sweep, images, missing):
        held.append(some)
        # They are collected until they fill a batch, so that batches are full on a resume too.
        if sum(len(batch.rows) for batch in held) < sweep.batch_size:
            continue
        together = _concatenate(held)
        full = len(together.rows) // sweep.batch_size * sweep.batch_size
        for first in range(0, full, sweep.batch_size):
            yield together.take(slice(first, first + sweep.batch_size))
        held = [together.take(slice(full, None))] if full < len(together.rows) else []
    if held:
        yield _concatenate(held)


def _lacking(sweep: Sweep, images: pd.DataFrame, missing: Missing | None) -> Iterator[ImageBatch]:
    """Yield the images that lack something, some at a time."""
    cells, scores = sweep.needed()
    if missing is None:
        for start in range(0, len(images) if sweep.entrants else 0, sweep.batch_size):
            rows = images.iloc[start : start + sweep.batch_size]
            wanted, wanted_scores = (np.broadcast_to(needed, (len(rows), *needed.shape)) for needed in (cells, scores))
            yield ImageBatch(rows, wanted, wanted_scores)
        return
    cell_question = _Question(missing, sweep.cell_table(), cells)
    score_question = _Question(missing, sweep.score_table(), scores)
    # A query asks about many images, because each scans the whole table where ids are in no order.
    step = max(1, MAX_ROWS_PER_QUERY // max(1, sweep.evaluations_per_image()))
    for start in range(0, len(images), step):
        rows = images.iloc[start : start + step]
        ids = rows["image_id"].tolist()
        wanted, wanted_scores = cell_question.ask(ids), score_question.ask(ids)
        some = wanted.any(axis=(1, 2)) | wanted_scores.any(axis=(1, 2))
        if some.any():
            yield ImageBatch(rows[some], wanted[some], wanted_scores[some])


class _Question:
    """Asks the store which rows of `table` are missing for each image.

    The table has a row for each true value of `needed`, in its order.
    """

    def __init__(self, missing: Missing, table: pd.DataFrame, needed: np.ndarray) -> None:
        self.missing, self.table, self.shape = missing, table, needed.shape
        self.index = pd.MultiIndex.from_frame(table)
        self.positions = np.flatnonzero(needed)

    def ask(self, image_ids: list[str]) -> np.ndarray:
        """Return what the images lack, as (images, *shape of `needed`) bool."""
        flat = np.zeros((len(image_ids), int(np.prod(self.shape))), bool)
        if len(self.table):
            lacking = self.missing(image_ids, self.table)
            if not lacking.empty:
                image = pd.Index(image_ids).get_indexer(pd.Index(lacking["image_id"]))
                row = self.index.get_indexer(pd.MultiIndex.from_frame(lacking[list(self.table)]))
                flat[image, self.positions[row]] = True
        return flat.reshape(len(image_ids), *self.shape)


def _concatenate(batches: list[ImageBatch]) -> ImageBatch:
    if len(batches) == 1:
        return batches[0]
    return ImageBatch(
        pd.concat([batch.rows for batch in batches]),
        np.concatenate([batch.wanted for batch in batches]),
        np.concatenate([batch.wanted_scores for batch in batches]),
    )
