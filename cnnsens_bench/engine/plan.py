"""The plan: which (image, model, defense, degradation, level, trial) are still to be computed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cnnsens_bench.degradations import Reach, parse_degradation

NONE = "none"
"""The name of the undegraded condition: level 0, trial 0."""


@dataclass(frozen=True)
class Condition:
    """A degradation as `parse_degradation` reads it, its levels, and how many trials of each."""

    degradation: str
    levels: tuple[float, ...]
    trials: int


@dataclass(frozen=True)
class Cell:
    """One column of the plan: what happens to an image before a network sees it."""

    degradation: str
    level: float
    trial: int


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

    def cells(self) -> list[Cell]:
        """The undegraded cell, then every condition's, trial by trial (a trial's levels share one draw)."""
        return [Cell(NONE, 0.0, 0)] + [
            Cell(c.degradation, level, trial)
            for c in self.conditions
            for trial in range(c.trials)
            for level in c.levels
        ]

    def reach(self, input_size: int) -> Reach:
        """How far any view can leave the box; its `shift` as a share of the box's side, as `images.decode` takes it."""
        reaches = [parse_degradation(c.degradation).reach(level) for c in self.conditions for level in c.levels]
        shift = max([0.0, *(reach.shift for reach in reaches)]) / input_size
        return Reach(shift, max([0.0, *(reach.radius for reach in reaches)]))

    def wanted_table(self) -> pd.DataFrame:
        """Columns model, defense, degradation, level, trial: what each image needs, entrant by entrant."""
        rows = [(e.model, e.defense, c.degradation, c.level, c.trial) for e in self.entrants for c in self.cells()]
        return pd.DataFrame(rows, columns=["model", "defense", "degradation", "level", "trial"])


@dataclass(frozen=True)
class Chunk:
    """Images that are computed together. `wanted`: (images, entrants, cells) bool."""

    rows: pd.DataFrame
    wanted: np.ndarray

    @property
    def evaluations(self) -> int:
        """Rows of `predictions` that are to come of it."""
        return int(self.wanted.sum())


Missing = Callable[[Sequence[str], pd.DataFrame], pd.DataFrame]
"""(image ids, wanted table) → the rows of their product that the store lacks (image_id beside the wanted columns)."""


def plan(sweep: Sweep, images: pd.DataFrame, missing: Missing | None) -> Iterator[Chunk]:
    """Chunks of at most `sweep.batch_size` images that lack something, one after the other.

    `images`: a sample table; `missing` None: the store has nothing yet, so all is wanted.
    """
    shape = (len(sweep.entrants), len(sweep.cells()))
    wanted_table = sweep.wanted_table()
    position = {tuple(row): i for i, row in enumerate(wanted_table.itertuples(index=False))}
    # Planned in larger steps than computed, so that chunks are full on a resume too.
    step = 32 * sweep.batch_size
    for start in range(0, len(images), step):
        rows = images.iloc[start : start + step]
        if missing is None:
            wanted = np.ones((len(rows), *shape), bool)
        else:
            flat = np.zeros((len(rows), shape[0] * shape[1]), bool)
            lacking = missing(rows["image_id"].tolist(), wanted_table)
            row_of = {image_id: i for i, image_id in enumerate(rows["image_id"])}
            places = [position[key] for key in lacking[list(wanted_table)].itertuples(index=False, name=None)]
            flat[[row_of[image_id] for image_id in lacking["image_id"]], places] = True
            wanted = flat.reshape(len(rows), *shape)
        some = wanted.any(axis=(1, 2))
        rows, wanted = rows[some], wanted[some]
        for first in range(0, len(rows), sweep.batch_size):
            part = slice(first, first + sweep.batch_size)
            yield Chunk(rows.iloc[part], wanted[part])
