"""The label of single photographs, and how degradations are expected to change it.

No photograph is degraded, unless a predictor does so.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench import images
from cnnsens_bench.defenses import parse_defense
from cnnsens_bench.degradations import Reach
from cnnsens_bench.degradations.motion import UNLIMITED
from cnnsens_bench.engine.degrade import LONGEST
from cnnsens_bench.engine.evaluate import Evaluator
from cnnsens_bench.engine.networks import LoadedEntrant
from cnnsens_bench.engine.score import Scorer, Scores
from cnnsens_bench.engine.sweep import NONE, Condition, Entrant, Sweep
from cnnsens_bench.models.base import architecture_of
from cnnsens_bench.models.loading import LoadedNetwork
from cnnsens_bench.sensitivity.gradients import COLUMNS, OUTPUTS, OutputChange, Outputs, first_order
from cnnsens_bench.sensitivity.predictors import label_change, parse_predictor
from cnnsens_bench.utils.errors import ImageError, StorageError, UserError, first_line

GRADIENT = "gradient"
"""The name of the paper's first-order score in the store's views. It needs no further passes, so it is no predictor."""

FILES = "files"
"""The name that stands for a data set in the draws of photographs that are in none."""

LOGIT, PROBABILITY, MARGIN = map(OUTPUTS.index, ("logit", "probability", "margin"))


@dataclass(frozen=True)
class PredictedEffect:
    """What a predictor expects of one condition.

    Attributes
    ----------
    degradation, level
        The condition.
    predictor
        The predictor's name.
    probability_mean_change, probability_std
        The mean and the standard deviation of the change of the label's probability.
    logit_mean_change, logit_std
        The same of the label's logit.
    label_change
        The probability that the label changes.
    """

    degradation: str
    level: float
    predictor: str
    probability_mean_change: float
    probability_std: float
    logit_mean_change: float
    logit_std: float
    label_change: float


@dataclass(frozen=True)
class SensitivityMap:
    """Where a photograph is sensitive.

    Attributes
    ----------
    pixels
        (S, S, 3) uint8: what the network sees.
    variance
        (S, S) float32: Σ_c (∂margin/∂z_c)² of each pixel, which is what it adds to the variance of the margin under
        noise of σ = 1 on every channel value.
    """

    pixels: np.ndarray
    variance: np.ndarray


@dataclass(frozen=True)
class PhotoPrediction:
    """What is known of one photograph.

    Attributes
    ----------
    path
        Its path or URI.
    label, runner_up
        The predicted class and the next best, counted from 0.
    confidence
        The label's probability.
    margin
        The label's logit less the runner-up's.
    entropy
        The entropy of the probabilities in nats.
    effects
        What each condition is expected to do.
    sensitivity_map
        The map, where it was asked for.
    """

    path: str
    label: int
    runner_up: int
    confidence: float
    margin: float
    entropy: float
    effects: tuple[PredictedEffect, ...]
    sensitivity_map: SensitivityMap | None


@dataclass(frozen=True)
class RejectedPhoto:
    """A photograph that is not computed, and the sentence that says why, which begins with its path."""

    path: str
    sentence: str


NamedImage = tuple[str, images.Decoded]
"""An image in memory, and its name."""

Result = PhotoPrediction | RejectedPhoto
"""What becomes of a photograph."""


class LabelChangePredictor:
    """Predicts for one network what conditions do to photographs.

    Parameters
    ----------
    ready
        The network.
    conditions
        Conditions of the degradations in `FIRST_ORDER`; trials do not matter.
    predictor
        `GRADIENT`, or a registered predictor, which is used for the degradations that it knows.
    box
        The box of every photograph, in pixels of the upright image; None for the whole image.
    batch_size
        The number of photographs of a forward pass.
    maps
        Whether sensitivity maps are computed too.
    device
        Where the network runs.

    Raises
    ------
    UserError
        If the predictor is unknown or knows none of the conditions, or the network gives no gradients.
    """

    def __init__(
        self,
        ready: LoadedNetwork,
        conditions: Sequence[Condition],
        predictor: str = GRADIENT,
        *,
        box: images.Box | None = None,
        batch_size: int = 4,
        maps: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        if not ready.classifier.gives_gradients():
            raise UserError(
                f"'{ready.model}' gives no gradients, which predictions for single photographs are made of: measure it "
                "with python -m cnnsens_bench.run"
            )
        self.box, self.maps = box, maps
        self.labels: list[int] = []
        self.runners_up: list[int] = []
        self.drawn: list[SensitivityMap] = []
        names = () if predictor == GRADIENT else (parse_predictor(predictor).name,)
        entrant = Entrant(ready.model, architecture_of(ready.model), NONE, ready.model)
        self.sweep = Sweep(
            "predict", FILES, (entrant,), tuple(conditions), batch_size=batch_size, sensitivity=True, predictors=names
        )
        if names and not self.sweep.predicted_cells():
            knows = ", ".join(parse_predictor(predictor).degradations)
            raise UserError(f"predictor '{predictor}' knows {knows} only: leave it out, or ask for one of them")
        self.reach = UNLIMITED if ready.classifier.preprocessing.view else Reach()
        # The evaluator puts the network on the device as in a sweep.
        evaluator = Evaluator(self.sweep, [LoadedEntrant(ready.classifier, parse_defense(NONE))], device)
        self.scorer = Scorer(self.sweep, evaluator.entrants, evaluator.device, evaluator.pool, observe=self._observe)

    def __call__(self, photographs: Sequence[str | NamedImage]) -> Iterator[Result]:
        """Yield a result for each photograph, in their order. It does not depend on which photographs share a batch.

        A batch is decoded while another is computed.

        Parameters
        ----------
        photographs
            Paths or fsspec URIs, or images in memory with a name for each.

        Raises
        ------
        UserError
            If the network fails.
        """
        size = self.sweep.batch_size
        with ThreadPoolExecutor(2) as pool:
            waiting: list = []
            for start in range(0, len(photographs) + size, size):
                named = [(p, None) if isinstance(p, str) else p for p in photographs[start : start + size]]
                ahead = [(name, pool.submit(self._decoded, name, picture)) for name, picture in named]
                if waiting:
                    yield from self._computed([(path, future.result()) for path, future in waiting])
                waiting = ahead

    def _decoded(self, path: str, picture: images.Decoded | None = None) -> images.Decoded | RejectedPhoto:
        if picture is not None:
            return picture
        try:
            image = images.decode(path, self.box, *self.reach)
        except (ImageError, StorageError) as error:
            return RejectedPhoto(path, str(error))
        view = self.scorer.entrants[0].view
        refusal = view.refusal(image.width, image.height) if view else None
        return RejectedPhoto(path, f"{path}: {refusal}") if refusal else image

    def _computed(self, batch: Sequence[tuple[str, images.Decoded | RejectedPhoto]]) -> Iterator[Result]:
        good = [(path, picture) for path, picture in batch if not isinstance(picture, RejectedPhoto)]
        computed = iter(self._scored([path for path, _ in good], [picture for _, picture in good]) if good else ())
        for _, picture in batch:
            yield picture if isinstance(picture, RejectedPhoto) else next(computed)

    def _scored(self, paths: list[str], pictures: list[images.Decoded]) -> list[Result]:
        wanted = np.ones((len(paths), 1, len(self.sweep.score_cells())), bool)
        try:
            scores = self.scorer.score(paths, pictures, wanted)
        except (MemoryError, RuntimeError) as error:
            raise UserError(
                f"'{self.sweep.entrants[0].model}' fails on a batch of {self.sweep.batch_size} photographs of "
                f"{self.scorer.entrants[0].input_size} px ({first_line(error, LONGEST)}): try a smaller batch_size"
            ) from error
        if "value" not in scores.sensitivity:
            raise UserError(f"{scores.failures[0][2]}: try a machine or device with more, or another input_size")
        found: list[Result] = [RejectedPhoto(p, f"{p}: the network gives no finite number on it") for p in paths]
        failed = {image for image, _, _ in scores.failures}
        columns = {name: _by_image(scores.sensitivity[name]) for name in (*COLUMNS, "entropy")}
        effects = self._effects(scores, columns, len(paths))
        for row, image in enumerate(scores.sensitivity["image"][:: len(OUTPUTS)]):
            if image in failed:
                continue
            own = tuple(effect[image] for effect in effects)
            if not all(np.isfinite(astuple(effect)[3:]).all() for effect in own):
                continue  # a level beyond what double precision holds
            value = columns["value"][:, row]
            found[image] = PhotoPrediction(
                path=paths[image],
                label=self.labels[image],
                runner_up=self.runners_up[image],
                confidence=float(value[PROBABILITY]),
                margin=float(value[MARGIN]),
                entropy=float(columns["entropy"][0, row]),
                effects=own,
                sensitivity_map=self.drawn[image] if self.maps else None,
            )
        return found

    def _effects(self, scores: Scores, columns: dict[str, Tensor], count: int) -> list[dict[int, PredictedEffect]]:
        """Return for each condition and level image → effect."""
        scored = scores.sensitivity["image"][:: len(OUTPUTS)]
        margin = torch.full((count,), torch.nan, dtype=torch.float64)
        margin[torch.from_numpy(scored)] = columns["value"][MARGIN]
        positions = {(cell.degradation, cell.level): i for i, cell in enumerate(self.sweep.predicted_cells())}
        found = []
        for condition in self.sweep.conditions:
            for level in condition.levels:
                position = positions.get((condition.degradation, level))
                if position is None:
                    name, here, change = GRADIENT, scored, first_order(columns, condition.degradation, level)
                else:
                    rows = scores.predictions["predicted"] == position
                    name, here = self.sweep.predictors[0], scores.predictions["image"][rows][:: len(OUTPUTS)]
                    mean, deviation = (_by_image(scores.predictions[key][rows]) for key in ("mean_change", "deviation"))
                    change = OutputChange(mean, deviation)
                numbers = [row[f] for f in (PROBABILITY, LOGIT) for row in (change.mean, change.deviation)]
                numbers.append(label_change(margin[torch.from_numpy(here)], change))
                own = zip(here.tolist(), torch.stack(numbers).T.tolist(), strict=True)
                found.append({image: PredictedEffect(condition.degradation, level, name, *five) for image, five in own})
        return found

    def _observe(self, first: int, pixels: Tensor, outputs: Outputs) -> None:
        """Keep what the differentiation of a batch, or of a part of it, gives besides its scores."""
        here = slice(first, first + len(pixels))
        others = outputs.logits.scatter(1, outputs.reference[:, None], float("-inf"))
        self.labels[here], self.runners_up[here] = outputs.reference.tolist(), others.argmax(1).tolist()
        if self.maps:
            views = pixels.round().byte().permute(0, 2, 3, 1).cpu().numpy()
            squares = (outputs.gradients[MARGIN] ** 2).sum(1).cpu().numpy()
            self.drawn[here] = [SensitivityMap(view, square) for view, square in zip(views, squares, strict=True)]


def _by_image(values: np.ndarray) -> Tensor:
    """Return a column of `Scores`, which goes image by image, as (3, images), the form that the formulas take."""
    return torch.from_numpy(np.ascontiguousarray(values.reshape(-1, len(OUTPUTS)).T))
