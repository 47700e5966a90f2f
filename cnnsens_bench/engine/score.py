"""The scores of one chunk of images: gradients, and what predictors make of them. Pure torch, as `evaluate`.

Every pass has the same batch shape here too, so that a score does not depend on how images were grouped.
"""

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench import images
from cnnsens_bench.degradations import Streams, parse_degradation
from cnnsens_bench.engine.degrade import Failure
from cnnsens_bench.engine.oom_backoff import OomBackoff
from cnnsens_bench.engine.plan import Sweep
from cnnsens_bench.sensitivity.gradients import (
    COLUMNS,
    OUTPUTS,
    Network,
    Outputs,
    central_differences,
    differentiate,
    level_free,
)
from cnnsens_bench.sensitivity.predictors import PredictorInput, parse_predictor

PREDICTORS_TRIAL = 1 << 30
"""The trial of a predictor's first draw: draws that no sweep measures with."""


@dataclass(frozen=True)
class Scores:
    """Rows of `sensitivity` and of `sensitivity_predictions`: arrays of one length each; `image` and `entrant` are
    positions, `output` one in `OUTPUTS`, `predicted` one in `Sweep.predicted`."""

    sensitivity: dict[str, np.ndarray]
    predictions: dict[str, np.ndarray]
    failures: list[Failure]

    @property
    def cells(self) -> int:
        """How many score cells they fill."""
        return (len(self.sensitivity.get("image", ())) + len(self.predictions.get("image", ()))) // len(OUTPUTS)


@dataclass(frozen=True)
class Scored:
    """An entrant as scores need it: a differentiable function of pixels and its input size."""

    network: Network
    input_size: int


class Scorer:
    """Scores images for the entrants of a sweep; `report(n)`, `note` as in `Evaluator`. `watch(pixels, outputs)` sees
    what each chunk was differentiated to: the images first, then what fills the batch. `unfit`: as in `Evaluator`."""

    def __init__(
        self,
        sweep: Sweep,
        entrants: Sequence[Scored],
        device: torch.device,
        pool: Executor,
        report: Callable[[int], None] | None = None,
        watch: Callable[[Tensor, Outputs], None] | None = None,
        note: Callable[[str], None] | None = None,
        unfit: Collection[int] = (),
    ) -> None:
        self.unfit = unfit
        self.sweep, self.entrants, self.device, self.pool, self.report = sweep, entrants, device, pool, report
        self.watch = watch
        self.halving = OomBackoff(note)
        self.predicted = [(parse_predictor(name), noise, level) for name, noise, level in sweep.predicted()]

    def score(self, image_ids: Sequence[str], decoded: Sequence[images.Decoded], wanted: np.ndarray) -> Scores:
        """`wanted` (images, entrants, score cells) bool. A score that is no finite number becomes a failure."""
        level_free_rows: list[dict[str, np.ndarray]] = []
        predicted_rows: list[dict[str, np.ndarray]] = []
        failures: list[Failure] = []
        for size in sorted({entrant.input_size for entrant in self.entrants}):
            members = [i for i, entrant in enumerate(self.entrants) if entrant.input_size == size]
            if not wanted[:, members].any():
                continue
            whole = _ScoredBatch(self, size, image_ids, decoded, self.sweep.batch_size)
            for i in members:
                model, scored = self.sweep.entrants[i].model, self._scored(whole, i, wanted)
                results = None if i in self.unfit else self.halving.run(i, model, whole.batch, scored)
                if results is None:
                    sentence = f"the gradients of {model} do not fit into the memory with one image at a time"
                    failures += [(int(k), "score", sentence) for k in np.flatnonzero(wanted[:, i].any(axis=1))]
                for kind, rows, bad in itertools.chain(*(results or [])):
                    (predicted_rows if kind else level_free_rows).append(rows)
                    failures += [(int(image), "score", self._sentence(i)) for image in bad]
                    if self.report:
                        self.report(len(rows["image"]) // len(OUTPUTS) + len(bad))
        return Scores(_joined(level_free_rows), _joined(predicted_rows), list(dict.fromkeys(failures)))

    def _scored(
        self, whole: "_ScoredBatch", entrant: int, wanted: np.ndarray
    ) -> Callable[[slice], list[tuple[bool, dict[str, np.ndarray], np.ndarray]]]:
        """A part of the batch → its rows, as `_ScoredBatch.rows` gives them, their positions among all images."""

        def scored(part: slice) -> list[tuple[bool, dict[str, np.ndarray], np.ndarray]]:
            here = range(whole.count)[part]
            if not here:
                return []  # what only fills the batch
            chunk, first = whole, here.start
            if part.stop - part.start < whole.batch:
                ids, decoded = whole.image_ids[first : here.stop], whole.decoded[first : here.stop]
                chunk = _ScoredBatch(self, whole.size, ids, decoded, part.stop - part.start)
            found = chunk.rows(entrant, wanted[first : here.stop, entrant])
            return [(kind, {**rows, "image": rows["image"] + first}, bad + first) for kind, rows, bad in found]

        return scored

    def _sentence(self, entrant: int) -> str:
        return f"{self.sweep.entrants[entrant].model} has no finite gradient on it"


class _ScoredBatch:
    """Images at one input size, padded to a full batch."""

    def __init__(
        self, scorer: Scorer, size: int, image_ids: Sequence[str], decoded: Sequence[images.Decoded], batch: int
    ) -> None:
        self.scorer, self.size, self.image_ids, self.count = scorer, size, image_ids, len(image_ids)
        self.decoded = decoded
        self.batch = max(batch, self.count)
        self.pixels = self._padded(list(scorer.pool.map(lambda image: images.render(image, size), decoded)))
        wide = self._padded(list(scorer.pool.map(lambda image: images.render_wide(image, size), decoded)))
        self.across, self.down = central_differences(wide)

    def rows(self, entrant: int, wanted: np.ndarray) -> Iterator[tuple[bool, dict[str, np.ndarray], np.ndarray]]:
        """(of a predictor?, rows, images that have no finite ones), for the score cells that somebody wants."""
        network = self.scorer.entrants[entrant].network
        if not wanted.any():
            return
        outputs = differentiate(network, self.pixels)
        if self.scorer.watch:
            self.scorer.watch(self.pixels, outputs)
        here = np.flatnonzero(wanted[:, 0])
        if len(here):
            columns = level_free(outputs, self.pixels, self.across, self.down)
            entropy = torch.distributions.Categorical(logits=outputs.logits.double(), validate_args=False).entropy()
            columns["entropy"] = entropy.expand(len(OUTPUTS), -1)
            yield False, *self._table(columns, here, entrant, [*COLUMNS, "entropy"])
        for position, (predictor, degradation, level) in enumerate(self.scorer.predicted):
            here = np.flatnonzero(wanted[:, 1 + position])
            if len(here):
                degraded = self._degraded(degradation, level)
                scene = PredictorInput(network, self.pixels, outputs, degradation, level, degraded, self._moved)
                change = predictor.predict(scene)
                columns = {"mean_change": change.mean, "deviation": change.deviation}
                rows, bad = self._table(columns, here, entrant, list(columns))
                yield True, {**rows, "predicted": np.full(len(rows["image"]), position)}, bad

    def _table(
        self, columns: dict[str, Tensor], here: np.ndarray, entrant: int, names: list[str]
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """(3, batch) columns → rows of the images `here`, image by image, and those that are not finite."""
        values = {name: columns[name].T[: self.count].cpu().numpy()[here] for name in names}
        good = np.all([np.isfinite(value).all(axis=1) for value in values.values()], axis=0)
        kept = here[good]
        rows = {name: value[good].ravel() for name, value in values.items()}
        rows["image"] = np.repeat(kept, len(OUTPUTS))
        rows["output"] = np.tile(np.arange(len(OUTPUTS)), len(kept))
        rows["entrant"] = np.full(len(rows["image"]), entrant)
        return rows, here[~good]

    def _degraded(self, name: str, level: float) -> Callable[[int], Tensor]:
        degradation = parse_degradation(name)
        sweep = self.scorer.sweep

        def degraded(k: int) -> Tensor:
            streams = Streams(sweep.seed, sweep.dataset, self.image_ids, PREDICTORS_TRIAL + k, self.scorer.device)
            draw = degradation.draw(streams, self.size)
            result = self.pixels.clone(memory_format=torch.preserve_format)
            result[: self.count] = degradation.apply(self.pixels[: self.count], draw, level).clamp(0, 255)
            return result.round_() if sweep.quantize else result

        return degraded

    def _moved(self, dx: float, dy: float) -> Tensor:
        return self._padded(list(self.scorer.pool.map(lambda i: images.render(i, self.size, dx, dy), self.decoded)))

    def _padded(self, views: list[np.ndarray]) -> Tensor:
        pixels = torch.from_numpy(np.stack(views)).to(self.scorer.device).permute(0, 3, 1, 2).float()
        padding = pixels.new_zeros(self.batch - self.count, *pixels.shape[1:])
        return torch.cat([pixels, padding]).contiguous(memory_format=torch.channels_last)


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]} if parts else {}
