"""The scores of one batch of images: gradients, and what predictors make of them.

Every pass has the same batch shape here too, so a score does not depend on how images were grouped.
"""

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench import images
from cnnsens_bench.degradations import Streams
from cnnsens_bench.engine.degrade import Failure, Images, digitize, to_pixels
from cnnsens_bench.engine.networks import LoadedEntrant, NetworkInput, inputs_of
from cnnsens_bench.engine.oom_backoff import OomBackoff, fewer_images
from cnnsens_bench.engine.predictions import Columns, concatenated
from cnnsens_bench.engine.sweep import ScoreCell, Sweep
from cnnsens_bench.sensitivity.gradients import (
    OUTPUTS,
    Outputs,
    central_differences,
    differentiate,
    evaluate,
    level_free,
)
from cnnsens_bench.sensitivity.predictors import PredictorInput, parse_predictor
from cnnsens_bench.utils.reporter import SILENT, Reporter

PREDICTORS_TRIAL = 1 << 30
"""The trial of a predictor's first draw. No sweep measures with these draws."""

Part = tuple[bool, Columns, np.ndarray]
"""A flag that is true for a predictor's rows, the rows, and the positions of images that have no finite ones."""


@dataclass(frozen=True)
class Scores:
    """The scores of a batch of images.

    Attributes
    ----------
    sensitivity, predictions
        Columns of the tables `sensitivity` and `sensitivity_predictions`. `image` and `entrant` are positions, `output`
        is a position in `OUTPUTS`, `predicted` one in `Sweep.predicted_cells`.
    failures
        What could not be scored.
    """

    sensitivity: Columns
    predictions: Columns
    failures: list[Failure]

    @property
    def cells(self) -> int:
        """The number of score cells that the rows fill."""
        return (len(self.sensitivity.get("image", ())) + len(self.predictions.get("image", ()))) // len(OUTPUTS)


@dataclass
class Scorer:
    """Scores images for the entrants of a sweep.

    Parameters
    ----------
    sweep
        The sweep.
    entrants
        The sweep's networks, in its order.
    device
        Where the networks lie.
    pool
        The threads that render views.
    reporter
        Hears of scores as they are done, and of memory that runs out.
    unfit
        The positions of networks that have no room on the device. Their images become failures.
    observe
        Takes (first, pixels, outputs) of what was differentiated: the position of its first image among those that are
        scored, and pixels and outputs of its images, then of what fills the batch. Where memory is short, a batch comes
        in several parts, and a part may come again.
    """

    sweep: Sweep
    entrants: Sequence[LoadedEntrant]
    device: torch.device
    pool: Executor
    reporter: Reporter = SILENT
    unfit: Collection[int] = ()
    observe: Callable[[int, Tensor, Outputs], None] | None = None

    def __post_init__(self) -> None:
        self.backoff = OomBackoff(self.reporter)
        self.predictors = [(parse_predictor(cell.predictor or ""), cell) for cell in self.sweep.predicted_cells()]

    def score(self, image_ids: Sequence[str], decoded: Images, wanted: np.ndarray) -> Scores:
        """Score a batch of images. A score that is no finite number becomes a failure.

        Parameters
        ----------
        image_ids, decoded
            The images.
        wanted
            (images, entrants, score cells) bool.
        """
        found: dict[bool, list[Columns]] = {False: [], True: []}
        failures: list[Failure] = []
        for seen in inputs_of(self.entrants):
            members = [i for i, entrant in enumerate(self.entrants) if entrant.input == seen]
            if not wanted[:, members].any():
                continue
            whole = _ScoredBatch(self, seen, image_ids, decoded, self.sweep.batch_size)
            for i in members:
                model, gradients = self.sweep.entrants[i].model, self.sweep.entrants[i].gradients
                results = None if i in self.unfit else self._score_in_parts(whole, i, wanted)
                if results is None:
                    what = f"the gradients of {model} do" if gradients else f"{model} does"
                    sentence = f"{what} not fit into the memory with one image at a time"
                    failures += [(int(k), "score", sentence) for k in np.flatnonzero(wanted[:, i].any(axis=1))]
                for by_predictor, rows, bad in itertools.chain(*(results or [])):
                    found[by_predictor].append(rows)
                    sentence = f"{model} has no finite {'gradient' if gradients else 'output'} on it"
                    failures += [(int(image), "score", sentence) for image in bad]
                    self.reporter.evaluations(len(rows["image"]) // len(OUTPUTS) + len(bad))
        return Scores(concatenated(found[False]), concatenated(found[True]), list(dict.fromkeys(failures)))

    def _score_in_parts(self, whole: "_ScoredBatch", entrant: int, wanted: np.ndarray) -> list[list[Part]] | None:
        """Score a batch for an entrant, fewer images at a time where memory is short; None where one does not fit."""

        def score(part: slice) -> list[Part]:
            here = range(whole.count)[part]
            if not here:
                return []  # nothing but padding
            batch, first = whole, here.start
            if part.stop - part.start < whole.batch:
                ids, decoded = whole.image_ids[first : here.stop], whole.decoded[first : here.stop]
                batch = _ScoredBatch(self, whole.seen, ids, decoded, part.stop - part.start, first)
            found = batch.rows(entrant, wanted[first : here.stop, entrant])
            return [(kind, {**rows, "image": rows["image"] + first}, bad + first) for kind, rows, bad in found]

        return self.backoff.run(entrant, whole.batch, score, fewer_images(self.sweep.entrants[entrant].model))


class _ScoredBatch:
    """Images as the networks of one input see them, padded to a full batch."""

    def __init__(
        self, scorer: Scorer, seen: NetworkInput, image_ids: Sequence[str], decoded: Images, batch: int, first: int = 0
    ) -> None:
        self.scorer, self.seen, self.image_ids, self.decoded, self.first = scorer, seen, image_ids, decoded, first
        size, view = seen
        self.count, self.batch = len(image_ids), max(batch, len(image_ids))
        self.pixels = self._padded(scorer.pool.map(lambda image: images.render(image, size, view=view), decoded))
        wide = self._padded(scorer.pool.map(lambda image: images.render_wide(image, size, view), decoded))
        self.across, self.down = central_differences(wide)

    def rows(self, entrant: int, wanted: np.ndarray) -> Iterator[Part]:
        """Yield the rows of an entrant; `wanted` is (images, score cells) bool, the level-free score first."""
        network = self.scorer.entrants[entrant].network()
        if not wanted.any():
            return
        gradients = self.scorer.sweep.entrants[entrant].gradients
        outputs = differentiate(network, self.pixels) if gradients else evaluate(network, self.pixels)
        if self.scorer.observe:
            self.scorer.observe(self.first, self.pixels, outputs)
        here = np.flatnonzero(wanted[:, 0])
        if len(here):
            columns = level_free(outputs, self.pixels, self.across, self.down)
            entropy = torch.distributions.Categorical(logits=outputs.logits.double(), validate_args=False).entropy()
            columns["entropy"] = entropy.expand(len(OUTPUTS), -1)
            yield False, *self._table(columns, here, entrant)
        for position, (predictor, cell) in enumerate(self.scorer.predictors):
            here = np.flatnonzero(wanted[:, 1 + position])
            if len(here):
                condition = cell.degradation, cell.level
                seen = PredictorInput(network, self.pixels, outputs, *condition, self._degraded(cell), self._moved)
                change = predictor.predict(seen)
                rows, bad = self._table({"mean_change": change.mean, "deviation": change.deviation}, here, entrant)
                yield True, {**rows, "predicted": np.full(len(rows["image"]), position)}, bad

    def _table(self, columns: dict[str, Tensor], here: np.ndarray, entrant: int) -> tuple[Columns, np.ndarray]:
        """Return rows of the images `here` from (3, batch) columns, and the images whose rows are not finite."""
        values = {name: column.T[: self.count].cpu().numpy()[here] for name, column in columns.items()}
        good = np.all([np.isfinite(value).all(axis=1) for value in values.values()], axis=0)
        kept = here[good]
        rows = {name: value[good].ravel() for name, value in values.items()}
        rows["image"] = np.repeat(kept, len(OUTPUTS))
        rows["output"] = np.tile(np.arange(len(OUTPUTS)), len(kept))
        rows["entrant"] = np.full(len(rows["image"]), entrant)
        return rows, here[~good]

    def _degraded(self, cell: ScoreCell) -> Callable[[int], Tensor]:
        """Return the function from the number of a draw to the degraded pixels."""
        sweep = self.scorer.sweep
        degradation = sweep.degradation(cell.degradation)

        def degraded(k: int) -> Tensor:
            streams = Streams(sweep.seed, sweep.dataset, self.image_ids, PREDICTORS_TRIAL + k, self.scorer.device)
            draw = degradation.draw(streams, self.seen.size)
            result = self.pixels.clone(memory_format=torch.preserve_format)
            degraded = degradation.apply(self.pixels[: self.count], draw, cell.level).clamp(0, 255)
            result[: self.count] = digitize(degraded, sweep)
            return result

        return degraded

    def _moved(self, dx: float, dy: float) -> Tensor:
        size, view = self.seen
        return self._padded(self.scorer.pool.map(lambda i: images.render(i, size, dx, dy, view=view), self.decoded))

    def _padded(self, views: Iterable[np.ndarray]) -> Tensor:
        pixels = to_pixels(views, self.scorer.device)
        padding = pixels.new_zeros(self.batch - self.count, *pixels.shape[1:])
        return torch.cat([pixels, padding]).contiguous(memory_format=torch.channels_last)
