"""Photographs through one network: their label, and how a degradation is expected to move it. Nothing is degraded,
unless a predictor does."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench import images
from cnnsens_bench.defenses import parse_defense
from cnnsens_bench.engine.degrade import first_line
from cnnsens_bench.engine.evaluate import Evaluator, LoadedEntrant
from cnnsens_bench.engine.plan import NONE, Condition, Entrant, Sweep
from cnnsens_bench.engine.score import Scored, Scorer, Scores
from cnnsens_bench.models.loading import LoadedNetwork
from cnnsens_bench.sensitivity.gradients import COLUMNS, OUTPUTS, OutputChange, Outputs, first_order
from cnnsens_bench.sensitivity.predictors import label_change, parse_predictor
from cnnsens_bench.utils.errors import ImageError, StorageError, UserError

GRADIENT = "gradient"
"""The paper's score, to first order, as the store's views name it: no registered predictor, since it has no passes of
its own."""

FILES = "files"
"""Stands for a data set in the draws of photographs that are in none."""

LOGIT, PROBABILITY, MARGIN = map(OUTPUTS.index, ("logit", "probability", "margin"))


@dataclass(frozen=True)
class PredictedEffect:
    """What `predictor` expects of one condition: mean and standard deviation of the change of the label's probability
    and logit, and the probability that the label changes."""

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
    """`pixels` (S, S, 3) uint8 as the network sees them; `stake` (S, S) float32, each pixel's Σ_c (∂margin/∂z_c)²: what
    it adds to the variance of the margin under noise of σ = 1 on every channel value."""

    pixels: np.ndarray
    stake: np.ndarray


@dataclass(frozen=True)
class PhotoPrediction:
    """`label`: the predicted class, `runner_up`: the next best; `confidence`: the label's probability; `margin`: its
    logit less the runner-up's; `entropy` of the probabilities in nats; `stake`: where asked for."""

    path: str
    label: int
    runner_up: int
    confidence: float
    margin: float
    entropy: float
    outlooks: tuple[PredictedEffect, ...]
    stake: SensitivityMap | None


@dataclass(frozen=True)
class RejectedPhoto:
    """A photograph that is not computed, and the sentence that says why, its path first."""

    path: str
    sentence: str


class LabelChangePredictor:
    """Predicts, of one network, what `conditions` (of `FIRST_ORDER`; trials do not matter) do to photographs.

    `predictor`: `GRADIENT`, or a registered one for the degradations that it knows. `box`: of every photograph, in
    pixels of the upright image; None: the whole image. Raises `UserError` for a predictor that is unknown or knows none
    of the conditions.
    """

    def __init__(
        self,
        ready: LoadedNetwork,
        conditions: Sequence[Condition],
        predictor: str = GRADIENT,
        *,
        box: images.Box | None = None,
        batch_size: int = 4,
        stakes: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.box, self.stakes = box, stakes
        predictors = () if predictor == GRADIENT else (parse_predictor(predictor).name,)
        entrant = Entrant(ready.model, ready.model.partition("/")[2], NONE, ready.model)
        self.sweep = Sweep(
            "predict",
            FILES,
            (entrant,),
            tuple(conditions),
            batch_size=batch_size,
            sensitivity=True,
            predictors=predictors,
        )
        if predictors and not self.sweep.predicted():
            knows = ", ".join(parse_predictor(predictor).degradations)
            raise UserError(f"predictor '{predictor}' knows {knows} only: leave it out, or ask for one of them")
        # It puts the network on the device as a sweep does.
        evaluator = Evaluator(self.sweep, [LoadedEntrant(ready.classifier, parse_defense(NONE))], device)
        self.scorer = Scorer(
            self.sweep,
            [Scored(evaluator.entrants[0].network(), ready.input_size)],
            evaluator.device,
            evaluator.pool,
            watch=self._watch,
        )

    def __call__(self, paths: Sequence[str]) -> Iterator[PhotoPrediction | RejectedPhoto]:
        """One for each of `paths` (or fsspec URIs), in their order; a batch is decoded while another is computed.

        What is given does not depend on which photographs share a batch. Raises `UserError` when the network fails.
        """
        size = self.sweep.batch_size
        with ThreadPoolExecutor(2) as pool:
            waiting: list = []
            for start in range(0, len(paths) + size, size):
                ahead = [(path, pool.submit(self._decoded, path)) for path in paths[start : start + size]]
                if waiting:
                    yield from self._computed([(path, future.result()) for path, future in waiting])
                waiting = ahead

    def _decoded(self, path: str) -> images.Decoded | RejectedPhoto:
        try:
            return images.decode(path, self.box, 0.0, 0.0)
        except (ImageError, StorageError) as error:
            return RejectedPhoto(path, str(error))

    def _computed(
        self, batch: Sequence[tuple[str, images.Decoded | RejectedPhoto]]
    ) -> Iterator[PhotoPrediction | RejectedPhoto]:
        good = [(path, picture) for path, picture in batch if not isinstance(picture, RejectedPhoto)]
        computed = iter(self._scored([path for path, _ in good], [picture for _, picture in good]) if good else ())
        for _, picture in batch:
            yield picture if isinstance(picture, RejectedPhoto) else next(computed)

    def _scored(self, paths: list[str], pictures: list[images.Decoded]) -> list[PhotoPrediction | RejectedPhoto]:
        wanted = np.ones((len(paths), 1, len(self.sweep.score_cells())), bool)
        try:
            scores = self.scorer.score(paths, pictures, wanted)
        except (MemoryError, RuntimeError) as error:
            raise UserError(
                f"'{self.sweep.entrants[0].model}' fails on a batch of {self.sweep.batch_size} photographs of "
                f"{self.scorer.entrants[0].input_size} px ({first_line(error)}): try a smaller batch_size"
            ) from error
        if "value" not in scores.sensitivity:
            raise UserError(f"{scores.failures[0][2]}: try a machine or device with more, or another input_size")
        found: list[PhotoPrediction | RejectedPhoto] = [
            RejectedPhoto(path, f"{path}: the network gives no finite number on it") for path in paths
        ]
        failed = {image for image, _, _ in scores.failures}
        columns = {name: _by_image(scores.sensitivity[name]) for name in (*COLUMNS, "entropy")}
        outlooks = self._outlooks(scores, columns, len(paths))
        for row, image in enumerate(scores.sensitivity["image"][:: len(OUTPUTS)]):
            if image in failed:
                continue
            own = tuple(outlook[image] for outlook in outlooks)
            if not all(np.isfinite(astuple(outlook)[3:]).all() for outlook in own):
                continue  # a level beyond what double precision holds
            value = columns["value"][:, row]
            found[image] = PhotoPrediction(
                path=paths[image],
                label=int(self.seen.label[image]),
                runner_up=int(self.seen.runner_up[image]),
                confidence=float(value[PROBABILITY]),
                margin=float(value[MARGIN]),
                entropy=float(columns["entropy"][0, row]),
                outlooks=own,
                stake=self.seen.stakes[image] if self.stakes else None,
            )
        return found

    def _outlooks(self, scores: Scores, columns: dict[str, Tensor], count: int) -> list[dict[int, PredictedEffect]]:
        """For each condition and level, image → outlook."""
        scored = scores.sensitivity["image"][:: len(OUTPUTS)]
        margin = torch.full((count,), torch.nan, dtype=torch.float64)
        margin[torch.from_numpy(scored)] = columns["value"][MARGIN]
        places = {(degradation, level): i for i, (_, degradation, level) in enumerate(self.sweep.predicted())}
        found = []
        for condition in self.sweep.conditions:
            for level in condition.levels:
                place = places.get((condition.degradation, level))
                if place is None:
                    name, here, change = GRADIENT, scored, first_order(columns, condition.degradation, level)
                else:
                    rows = scores.predictions["predicted"] == place
                    name, here = self.sweep.predictors[0], scores.predictions["image"][rows][:: len(OUTPUTS)]
                    mean, deviation = (_by_image(scores.predictions[key][rows]) for key in ("mean_change", "deviation"))
                    change = OutputChange(mean, deviation)
                numbers = torch.stack(
                    [
                        change.mean[PROBABILITY],
                        change.deviation[PROBABILITY],
                        change.mean[LOGIT],
                        change.deviation[LOGIT],
                        label_change(margin[torch.from_numpy(here)], change),
                    ]
                )
                own = zip(here.tolist(), numbers.T.tolist(), strict=True)
                found.append({image: PredictedEffect(condition.degradation, level, name, *five) for image, five in own})
        return found

    def _watch(self, pixels: Tensor, outputs: Outputs) -> None:
        self.seen = _Seen.of(pixels, outputs, self.stakes)


@dataclass(frozen=True)
class _Seen:
    """What a batch's differentiation gave beside its scores."""

    label: np.ndarray
    runner_up: np.ndarray
    stakes: list[SensitivityMap]

    @classmethod
    def of(cls, pixels: Tensor, outputs: Outputs, stakes: bool) -> "_Seen":
        label = outputs.reference
        others = outputs.logits.scatter(1, label[:, None], float("-inf"))
        drawn = []
        if stakes:
            views = pixels.round().byte().permute(0, 2, 3, 1).cpu().numpy()
            squares = (outputs.gradients[MARGIN] ** 2).sum(1).cpu().numpy()
            drawn = [SensitivityMap(view, square) for view, square in zip(views, squares, strict=True)]
        return cls(label.cpu().numpy(), others.argmax(1).cpu().numpy(), drawn)


def _by_image(values: np.ndarray) -> Tensor:
    """A column of `Scores`, image by image, → (3, images), as the formulas take it."""
    return torch.from_numpy(np.ascontiguousarray(values.reshape(-1, len(OUTPUTS)).T))
