"""What a sweep evaluates, as plain values: networks with defenses, conditions with their cells, and scores."""

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cnnsens_bench.defenses import parse_defense
from cnnsens_bench.degradations import Degradation, Reach, parse_degradation
from cnnsens_bench.degradations.motion import UNLIMITED
from cnnsens_bench.engine.frost import GENERATED, degradation_with, require_photographs
from cnnsens_bench.sensitivity.predictors import parse_predictor

if TYPE_CHECKING:
    from cnnsens_bench.images.stored import StoredSet

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
    """A model with a defense; `checkpoint` is the key of its weights. Without `gradients` some predictors score it."""

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
    compile
        Whether networks are compiled, but for those whose batch norm is recalibrated. Scores never are.
    budget
        The share of its degraded cells that each image takes, above 0 and at most 1 (see `engine/budget.py`). Scores
        are computed for every image.
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
    stored: "StoredSet | None" = None
    compile: bool = False
    budget: float = 1.0

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
        """Return what each image needs with the whole budget: (entrants, cells) and (entrants, score cells) bool.

        The weights of a network whose batch norm is recalibrated depend on the cell, so there is no single gradient,
        and it is not scored. A network without gradients is scored by predictors that only run it.
        """
        scored = np.array([not parse_defense(entrant.defense).recalibration for entrant in self.entrants], bool)
        given = np.array([entrant.gradients for entrant in self.entrants], bool)
        predictors = [parse_predictor(cell.predictor) if cell.predictor else None for cell in self.score_cells()]
        needed = np.array([predictor is None or predictor.gradients for predictor in predictors], bool)
        cells = np.ones((len(self.entrants), len(self.cells())), bool)
        return cells, scored[:, None] & (given[:, None] | ~needed)

    def evaluations_per_image(self) -> int:
        """Return how many cells and scores an image needs with the whole budget, over all entrants."""
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
        """Return the cells that an image can need: columns model, defense, degradation, level and trial."""
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
