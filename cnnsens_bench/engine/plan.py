"""The plan: which (image, model, defense, degradation, level, trial) are still to be computed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cnnsens_bench.defenses import parse_defense
from cnnsens_bench.degradations import Reach, parse_degradation
from cnnsens_bench.sensitivity.predictors import parse_predictor

NONE = "none"
"""The name of the undegraded condition: level 0, trial 0."""
SENSITIVITY = "sensitivity"
"""The name of the cell that asks for the level-free scores of section 4."""


@dataclass(frozen=True)
class Condition:
    """A degradation as `parse_degradation` reads it, its levels, and how many trials of each."""

    degradation: str
    levels: tuple[float, ...]
    trials: int


@dataclass(frozen=True)
class Cell:
    """One column of the plan: what happens to an image before a network sees it.

    Cells of scores have names of their own: `SENSITIVITY`, and `<predictor> of <degradation>` (`prediction_cell`).
    """

    degradation: str
    level: float
    trial: int


def prediction_cell(predictor: str, degradation: str, level: float) -> Cell:
    """What asks for a predictor's view of a condition; the store's question for what is missing spells it so too."""
    return Cell(f"{predictor} of {degradation}", level, 0)


@dataclass(frozen=True)
class Entrant:
    """One row of the leaderboard to be: a model with a defense. `checkpoint` keys the worker's weights."""

    model: str
    architecture: str
    defense: str
    checkpoint: str


@dataclass(frozen=True)
class CalibrationImage:
    """A test image that batch-norm recalibration sees; the box in pixels of the upright image."""

    image_id: str
    uri: str
    box_x: float
    box_y: float
    box_w: float
    box_h: float


@dataclass(frozen=True)
class Sweep:
    """All that a worker must know of a run, but for the images and the weights; plain values, so it travels.

    `calibration`: what the entrants that recalibrate see, a smaller set first in a larger one; else empty.
    `sensitivity`: whether images are scored too; `predictors`: canonical names of those that then look at each
    condition they know.
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

    def cells(self) -> list[Cell]:
        """The undegraded cell, then every condition's, trial by trial (a trial's levels share one draw), then those
        of scores."""
        swept = [
            Cell(c.degradation, level, trial)
            for c in self.conditions
            for trial in range(c.trials)
            for level in c.levels
        ]
        return [Cell(NONE, 0.0, 0), *swept, *self.score_cells()]

    def score_cells(self) -> list[Cell]:
        """The cells of scores, `SENSITIVITY` first; none in a sweep without."""
        if not self.sensitivity:
            return []
        predicted = [prediction_cell(*key) for key in self.predicted()]
        return [Cell(SENSITIVITY, 0.0, 0), *predicted]

    def predicted(self) -> list[tuple[str, str, float]]:
        """(predictor, degradation, level) of each of `score_cells` but the first."""
        return [
            (name, condition.degradation, level)
            for name in self.predictors
            for condition in self.conditions
            if condition.degradation in parse_predictor(name).degradations
            for level in condition.levels
        ]

    def asked(self) -> np.ndarray:
        """(entrants, cells) bool: all, but that networks which batch norm is recalibrated in have no one gradient."""
        asked = np.ones((len(self.entrants), len(self.cells())), bool)
        scores = len(self.score_cells())
        for row, entrant in zip(asked, self.entrants, strict=True):
            if scores and parse_defense(entrant.defense).recalibration:
                row[-scores:] = False
        return asked

    def reach(self, input_size: int) -> Reach:
        """How far any view can leave the box; its `shift` as a share of the box's side, as `images.decode` takes it."""
        reaches = [parse_degradation(c.degradation).reach(level) for c in self.conditions for level in c.levels]
        shift = max([0.0, *(reach.shift for reach in reaches)]) / input_size
        return Reach(shift, max([0.0, *(reach.radius for reach in reaches)]))

    def wanted_table(self) -> pd.DataFrame:
        """Columns model, defense, degradation, level, trial: what each image needs, entrant by entrant."""
        cells, asked = self.cells(), self.asked()
        rows = [
            (entrant.model, entrant.defense, cell.degradation, cell.level, cell.trial)
            for entrant, own in zip(self.entrants, asked, strict=True)
            for cell, wanted in zip(cells, own, strict=True)
            if wanted
        ]
        return pd.DataFrame(rows, columns=["model", "defense", "degradation", "level", "trial"])


@dataclass(frozen=True)
class ImageBatch:
    """Images that are planned together. `wanted`: (images, entrants, cells) bool."""

    rows: pd.DataFrame
    wanted: np.ndarray

    @property
    def evaluations(self) -> int:
        """Cells that are to come of it."""
        return int(np.count_nonzero(self.wanted))


Missing = Callable[[Sequence[str], pd.DataFrame], pd.DataFrame]
"""(image ids, wanted table) → the rows of their product that the store lacks (image_id beside the wanted columns)."""

ASKED_AT_ONCE = 1_000_000
"""Evaluations that the store is asked about in one question, or those of one image: what the answer costs in memory."""


def plan(sweep: Sweep, images: pd.DataFrame, missing: Missing | None) -> Iterator[ImageBatch]:
    """Chunks of `sweep.batch_size` images (the last may have fewer) that lack something, one after the other.

    `images`: a sample table; `missing` None: the store has nothing yet, so all is wanted.
    """
    held: list[ImageBatch] = []
    for piece in _pieces(sweep, images, missing):
        held.append(piece)
        # Gathered until they fill a batch, so that chunks are full on a resume too.
        if sum(len(chunk.rows) for chunk in held) < sweep.batch_size:
            continue
        rows, wanted = _together(held)
        full = len(rows) // sweep.batch_size * sweep.batch_size
        for first in range(0, full, sweep.batch_size):
            part = slice(first, first + sweep.batch_size)
            yield ImageBatch(rows.iloc[part], wanted[part])
        held = [ImageBatch(rows.iloc[full:], wanted[full:])] if full < len(rows) else []
    if held:
        yield ImageBatch(*_together(held))


def _pieces(sweep: Sweep, images: pd.DataFrame, missing: Missing | None) -> Iterator[ImageBatch]:
    """Few images at a time, those alone that lack something."""
    asked = sweep.asked()
    if missing is None:
        for start in range(0, len(images) if asked.any() else 0, sweep.batch_size):
            rows = images.iloc[start : start + sweep.batch_size]
            yield ImageBatch(rows, np.broadcast_to(asked, (len(rows), *asked.shape)))
        return
    wanted_table = sweep.wanted_table()
    places_asked = np.flatnonzero(asked)
    position = pd.MultiIndex.from_frame(wanted_table)
    # As many as may be: where ids are in no order, each question is a scan of the table.
    step = max(1, ASKED_AT_ONCE // max(1, len(wanted_table)))
    for start in range(0, len(images), step):
        rows = images.iloc[start : start + step]
        flat = np.zeros((len(rows), asked.size), bool)
        lacking = missing(rows["image_id"].tolist(), wanted_table)
        if lacking.empty:
            continue
        image = pd.Index(rows["image_id"]).get_indexer(pd.Index(lacking["image_id"]))
        cell = position.get_indexer(pd.MultiIndex.from_frame(lacking[list(wanted_table)]))
        flat[image, places_asked[cell]] = True
        some = flat.any(axis=1)
        yield ImageBatch(rows[some], flat[some].reshape(-1, *asked.shape))


def _together(chunks: list[ImageBatch]) -> tuple[pd.DataFrame, np.ndarray]:
    if len(chunks) == 1:
        return chunks[0].rows, chunks[0].wanted
    return pd.concat([chunk.rows for chunk in chunks]), np.concatenate([chunk.wanted for chunk in chunks])
