"""The plan of a sweep: which cells and scores of which images are still to be computed, for which networks."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cnnsens_bench.defenses import parse_defense
from cnnsens_bench.degradations import Degradation, Reach, parse_degradation
from cnnsens_bench.degradations.motion import UNLIMITED
from cnnsens_bench.engine.frost import GENERATED, degradation_with, require_photographs
from cnnsens_bench.images.stored import StoredSet
from cnnsens_bench.sensitivity.predictors import parse_predictor

NONE = "none"
"""The degradation of the undegraded cell, which has level 0 and trial 0."""


@dataclass(frozen=True)
class Condition:
    """A degradation that is swept: its canonical name, its levels, and the number of trials at each level."""

    degradation: str
    levels: tuple[float, ...]
    trials: int


@dataclass(frozen=True)
class Cell:
    """One degraded version of an image that networks predict."""

    degradation: str
    level: float
    trial: int


@dataclass(frozen=True)
class ScoreCell:
    """One sensitivity score of an image for a network: the level-free one, or a predictor's for one condition.

    Attributes
    ----------
    predictor
        The canonical name of the predictor that looks at a condition; None for the level-free score of section 4.
    degradation, level
        The condition that the predictor looks at. The level-free score has none: "none" and 0.
    """

    predictor: str | None = None
    degradation: str = NONE
    level: float = 0.0


@dataclass(frozen=True)
class Entrant:
    """A model with a defense, which is one row of the leaderboard.

    `checkpoint` is the key of its weights. Without `gradients` it is scored only by predictors that need none.
    """

    model: str
    architecture: str
    defense: str
    checkpoint: str
    gradients: bool = True


@dataclass(frozen=True)
class CalibrationImage:
    """A test image that batch-norm recalibration uses. The box is in pixels of the upright image."""

    image_id: str
    uri: str
    box_x: float
    box_y: float
    box_w: float
    box_h: float
    class_name: str = ""


@dataclass(frozen=True)
class Sweep:
    """A description of a sweep without its images and weights. It holds plain values, so it can be pickled.

    Attributes
    ----------
    run_id, dataset
        The names that every row of the result carries.
    entrants
        The networks with their defenses.
    conditions
        The degradations; the undegraded cell is always computed too.
    seed
        The seed of all draws.
    quantize
        Whether degraded images are rounded to 8 bits.
    precision
        "float32", "bfloat16" or "float16": the type that networks compute in.
    batch_size
        The number of images of a forward pass.
    mask_range
        The gray levels of a mask file that belong to the object, both ends included.
    plugins
        The modules that a worker imports first.
    calibration
        The images for batch-norm recalibration. An entrant that needs n of them uses the first n.
    sensitivity
        Whether images are scored too.
    predictors
        The canonical names of the predictors that look at the conditions which they know.
    whole_images
        Whether networks see what their library makes of the whole image, and not the image's box.
    frost
        "generated" or "photographs": the ice of `common:frost`.
    stored_quality
        The quality of the JPEG that degraded images are stored as, 1 to 100; None where they are not stored.
    stored
        The pre-made pictures that `stored:` degradations show; None where no degradation does.
    """

    run_id: str
    dataset: str
    entrants: tuple[Entrant, ...]
    conditions: tuple[Condition, ...]
    seed: int = 0
    quantize: bool = False
    precision: str = "float32"
    batch_size: int = 32
    mask_range: tuple[int, int] = (128, 255)
    plugins: tuple[str, ...] = ()
    calibration: tuple[CalibrationImage, ...] = ()
    sensitivity: bool = False
    predictors: tuple[str, ...] = ()
    whole_images: bool = False
    frost: str = GENERATED
    stored_quality: int | None = None
    stored: StoredSet | None = None

    def degradation(self, name: str) -> Degradation:
        """Return the degradation of a canonical name as this sweep applies it."""
        return degradation_with(self.frost, name)

    def require_files(self) -> None:
        """Raise `UserError` if this machine lacks files that the degradations need."""
        require_photographs(self.frost, [condition.degradation for condition in self.conditions])
        if self.stored:
            self.stored.require()

    def cells(self) -> list[Cell]:
        """Return the cells of an image: the undegraded one, then every condition's, trial by trial.

        The levels of a trial follow each other, because they share one draw.

        Examples
        --------
        >>> sweep = Sweep("run", "data", (), (Condition("pepper", (0.1, 0.2), 1),))
        >>> [(cell.degradation, cell.level, cell.trial) for cell in sweep.cells()]
        [('none', 0.0, 0), ('pepper', 0.1, 0), ('pepper', 0.2, 0)]
        """
        degraded = [
            Cell(c.degradation, level, trial)
            for c in self.conditions
            for trial in range(c.trials)
            for level in c.levels
        ]
        return [Cell(NONE, 0.0, 0), *degraded]

    def cells_by_condition(self) -> list[tuple[Condition, range]]:
        """Return each condition with the positions of its cells in `cells`.

        Examples
        --------
        >>> Sweep("run", "data", (), (Condition("pepper", (0.1, 0.2), 3),)).cells_by_condition()[0][1]
        range(1, 7)
        """
        ends = list(itertools.accumulate((c.trials * len(c.levels) for c in self.conditions), initial=1))
        return list(zip(self.conditions, map(range, ends, ends[1:]), strict=True))

    def score_cells(self) -> list[ScoreCell]:
        """Return the scores of an image: the level-free one, then `predicted_cells`; none in a sweep without scores."""
        return [ScoreCell(), *self.predicted_cells()] if self.sensitivity else []

    def predicted_cells(self) -> list[ScoreCell]:
        """Return a score for each predictor and each level of each condition that the predictor knows."""
        return [
            ScoreCell(name, condition.degradation, level)
            for name in self.predictors
            for condition in self.conditions
            if condition.degradation in parse_predictor(name).degradations
            for level in condition.levels
        ]

    def needed(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what each image needs: (entrants, cells) and (entrants, score cells) bool.

        The weights of a network whose batch norm is recalibrated depend on the cell, so there is no single gradient,
        and it is not scored. A network without gradients is scored by predictors that only run it.
        """
        scored = np.array([not parse_defense(entrant.defense).recalibration for entrant in self.entrants], bool)
        given = np.array([entrant.gradients for entrant in self.entrants], bool)
        predictors = [cell.predictor for cell in self.score_cells()]
        needed = np.array([name is None or parse_predictor(name).gradients for name in predictors], bool)
        cells = np.ones((len(self.entrants), len(self.cells())), bool)
        return cells, scored[:, None] & (given[:, None] | ~needed)

    def evaluations_per_image(self) -> int:
        """Return how many cells and scores an image needs, over all entrants."""
        return sum(int(needed.sum()) for needed in self.needed())

    def reach(self, input_size: int) -> Reach:
        """Return how far any view can leave the box, with `shift` as a share of the box's side, as `decode` takes it.

        Parameters
        ----------
        input_size
            The side of the networks' input in pixels; the smallest one where networks differ.
        """
        if self.whole_images:
            return UNLIMITED
        reaches = [parse_degradation(c.degradation).reach(level) for c in self.conditions for level in c.levels]
        shift = max([0.0, *(reach.shift for reach in reaches)]) / input_size
        return Reach(shift, max([0.0, *(reach.radius for reach in reaches)]))

    def cell_table(self) -> pd.DataFrame:
        """Return what each image needs, entrant by entrant: columns model, defense, degradation, level and trial."""
        cells = self.cells()
        rows = [(e.model, e.defense, c.degradation, c.level, c.trial) for e in self.entrants for c in cells]
        return pd.DataFrame(rows, columns=["model", "defense", "degradation", "level", "trial"])

    def score_table(self) -> pd.DataFrame:
        """Return the scores that each image needs: columns model, defense, predictor, degradation and level.

        The level-free score has the predictor "".
        """
        rows = [
            (entrant.model, entrant.defense, cell.predictor or "", cell.degradation, cell.level)
            for entrant, needed in zip(self.entrants, self.needed()[1], strict=True)
            for cell, scored in zip(self.score_cells(), needed, strict=True)
            if scored
        ]
        return pd.DataFrame(rows, columns=["model", "defense", "predictor", "degradation", "level"])


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
