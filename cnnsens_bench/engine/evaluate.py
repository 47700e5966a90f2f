"""The sweep of one chunk of images: degrade, defend, predict. Pure torch; knows no Ray and no files.

Every forward pass has the same batch shape (the last is padded), so that a prediction does not depend on how
images were grouped, and every draw serves all levels and all networks.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench import images
from cnnsens_bench.defenses import Defense
from cnnsens_bench.engine.batch_norm import Calibration, Recalibrated
from cnnsens_bench.engine.degrade import Degrader, Failure
from cnnsens_bench.engine.oom_backoff import OomBackoff, free_memory, out_of_memory
from cnnsens_bench.engine.plan import Cell, Condition, Sweep
from cnnsens_bench.engine.timing import Mark, Stopwatch
from cnnsens_bench.models import Classifier

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class LoadedEntrant:
    """A network ready to use, and what stands before it."""

    classifier: Classifier
    defense: Defense

    def network(self) -> Callable[[Tensor], Tensor]:
        """Pixels → logits, through the pre-filter."""
        prefilter, classifier = self.defense.prefilter, self.classifier
        return (lambda pixels: classifier(prefilter(pixels))) if prefilter else classifier


@dataclass(frozen=True)
class Prediction:
    """The rows that one degradation gave. `columns` are arrays of one length: `image` and `entrant` positions,
    `level`, `trial` and the outputs of `predictions`; `failures`: what could not be degraded or predicted."""

    degradation: str
    columns: Columns
    failures: list[Failure]


class Evaluator:
    """Runs a sweep's networks over chunks of images; `stopwatch` has what their forward passes took.

    `report(n)` is called as n further evaluations (one image through one network) are done. `calibration`: the images
    of `sweep.calibration`, decoded. Where memory runs out, fewer images go through a network at a time (`OomBackoff`),
    which `note(sentence)` is told. `unfit`: the positions of networks that have no room on the device; their images
    are failures.
    """

    def __init__(
        self,
        sweep: Sweep,
        entrants: Sequence[LoadedEntrant],
        device: torch.device | str = "cpu",
        report: Callable[[int], None] | None = None,
        calibration: Sequence[images.Decoded] = (),
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.sweep, self.device, self.report = sweep, torch.device(device), report
        self.stopwatch = Stopwatch(self.device)
        self.halving = OomBackoff(note)
        self.cells = sweep.cells()
        self.unfit: set[int] = set()
        self.entrants = [
            LoadedEntrant(self._placed(i, entrant.classifier), entrant.defense) for i, entrant in enumerate(entrants)
        ]
        self.sizes = sorted({entrant.classifier.preprocessing.input_size for entrant in entrants})
        self.pool = ThreadPoolExecutor(min(4, max(2, torch.get_num_threads())))
        seen = Calibration(sweep, calibration, self.device, self.pool)
        self.recalibrated = {
            i: Recalibrated(entrant.classifier, entrant.defense, seen)
            for i, entrant in enumerate(self.entrants)
            if entrant.defense.recalibration and i not in self.unfit
        }

    def evaluate(
        self, image_ids: Sequence[str], labels: Sequence[int], decoded: list[images.Decoded], wanted: np.ndarray
    ) -> Iterator[Prediction]:
        """The predictions of a chunk, one degradation after the other, the undegraded first.

        `labels` 0-based; `wanted` (images, entrants, cells) bool. Undegraded images are always run (their
        predicted class is the reference of the others), but only what is wanted is given out.
        """
        passes = [_SizedBatch(self, size, image_ids, labels, decoded, wanted) for size in self.sizes]
        passes = [p for p in passes if p.wanted.any()]
        with torch.inference_mode():
            yield _joined(self.cells[0].degradation, [p.undegraded() for p in passes])
            first = 1
            for condition in self.sweep.conditions:
                last = first + condition.trials * len(condition.levels)
                if wanted[:, :, first:last].any():
                    results = [p.degraded(condition, first) for p in passes]
                    yield _joined(condition.degradation, results)
                first = last

    def close(self) -> None:
        """End the threads."""
        self.pool.shutdown()

    def _placed(self, position: int, classifier: Classifier) -> Classifier:
        try:
            return _prepared(classifier, self.device)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        self.unfit.add(position)
        classifier.to("cpu")  # the part of it that had room
        free_memory()
        return classifier

    def autocast(self) -> AbstractContextManager:
        """Lower precision only when it is asked for: it flips labels on its own."""
        if self.sweep.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.sweep.precision))


class _SizedBatch:
    """One chunk at one input size: its pixels, its batch buffer, its reference classes."""

    def __init__(
        self,
        evaluator: Evaluator,
        size: int,
        image_ids: Sequence[str],
        labels: Sequence[int],
        decoded: list[images.Decoded],
        wanted: np.ndarray,
    ) -> None:
        self.evaluator, self.size, self.image_ids, self.decoded = evaluator, size, image_ids, decoded
        self.device = evaluator.device
        everyone = enumerate(evaluator.entrants)
        self.members = [(i, e) for i, e in everyone if e.classifier.preprocessing.input_size == size]
        self.positions = [i for i, _ in self.members]
        # A full chunk fills a batch with one cell anyway.
        self.cell_by_cell = any(i in evaluator.recalibrated for i in self.positions)
        self.wanted = wanted[:, self.positions]
        self.labels = torch.tensor(list(labels), device=self.device)
        # Members → what not one image fits beside.
        self.too_large = {
            member: evaluator.sweep.entrants[i].model for member, i in enumerate(self.positions) if i in evaluator.unfit
        }
        self.reference = torch.zeros(len(self.members), len(image_ids), dtype=torch.long, device=self.device)
        self.degrader = Degrader(evaluator.sweep, size, image_ids, decoded, self.device, evaluator.pool)
        shape = (evaluator.sweep.batch_size, 3, size, size)
        self.buffer = torch.zeros(shape, device=self.device).contiguous(memory_format=torch.channels_last)
        self._start()

    def undegraded(self) -> tuple[Columns, list[Failure]]:
        self._start()
        self._add(self.degrader.pixels, np.arange(len(self.image_ids)), 0)
        return self._finish()

    def degraded(self, condition: Condition, first_cell: int) -> tuple[Columns, list[Failure]]:
        """All levels and trials of a condition, whose cells begin at `first_cell`."""
        self._start()
        cells = range(first_cell, first_cell + condition.trials * len(condition.levels))
        rows = [np.flatnonzero(self.wanted[:, :, cell].any(axis=1)) for cell in cells]
        for position, pixels, here in self.degrader.run(condition, rows):
            self._add(pixels, here, cells[position])
        columns, failures = self._finish()
        return columns, self.degrader.failures + failures

    def _start(self) -> None:
        self.filled = 0
        self.held: list[tuple[np.ndarray, int]] = []
        self.results: list[tuple[int, np.ndarray, np.ndarray, Tensor]] = []
        self.failures: list[Failure] = []

    def _add(self, pixels: Tensor, rows: np.ndarray, cell: int) -> None:
        """Clamped pixels into the batch; a full one is run, and one of another cell where networks follow the cell."""
        if self.cell_by_cell and self.held and self.held[-1][1] != cell:
            self._run()
        done = 0
        while done < len(rows):
            room = min(len(rows) - done, len(self.buffer) - self.filled)
            place = self.buffer[self.filled : self.filled + room]
            torch.clamp(pixels[done : done + room].to(place.dtype), 0, 255, out=place)
            if self.evaluator.sweep.quantize and cell:
                place.round_()
            self.held.append((rows[done : done + room], cell))
            self.filled += room
            done += room
            if self.filled == len(self.buffer):
                self._run()

    def _run(self) -> None:
        """One batch through every network that wants a row of it."""
        rows = np.concatenate([rows for rows, _ in self.held])
        cells = np.concatenate([np.full(len(rows), cell) for rows, cell in self.held])
        image = torch.from_numpy(rows).to(self.device)
        broken = self.buffer[: self.filled].sum((1, 2, 3)).isnan()
        watch = self.evaluator.stopwatch
        filtered: dict[str, Tensor | None] = {}
        filtering: dict[str, list[tuple[Mark, Mark]]] = {}  # shared, but each entrant's pass has it
        for member, (position, entrant) in enumerate(self.members):
            asked = self.wanted[rows, member, cells]
            is_reference = cells[0] == 0  # batches never mix the undegraded cell with others
            if not asked.any() and not (is_reference and self.wanted[:, member].any()):
                continue
            name, prefilter = entrant.defense.name, entrant.defense.prefilter
            if name not in filtered:
                began = watch.mark()
                filtered[name] = self._filtered(name, prefilter) if prefilter else self.buffer
                filtering[name] = [(began, watch.mark())] if prefilter else []
            began = watch.mark()
            logits = self._logits(member, position, entrant.classifier, filtered[name], int(cells[0]))
            if logits is not None:
                watch.add(position, int(asked.sum()), len(self.buffer), [*filtering[name], (began, watch.mark())])
            if self.evaluator.report:
                self.evaluator.report(int(asked.sum()))
            if logits is None:
                sentence = f"{self.too_large[member]} does not fit into the memory with one image at a time"
                self.failures += [(int(row), "predict", sentence) for row in np.unique(rows[asked])]
                continue
            logits = logits[: self.filled].float()
            if is_reference:
                self.reference[member, image] = logits.argmax(1)
            outputs = _outputs(logits, self.labels[image], self.reference[member, image], broken)
            self.results.append((member, rows[asked], cells[asked], outputs[torch.from_numpy(asked)]))
        self.filled = 0
        self.held = []

    def _filtered(self, name: str, prefilter: Callable[[Tensor], Tensor]) -> Tensor | None:
        """The whole batch through a filter; None where memory does not suffice for one image."""
        return self._halved(name, name, lambda part: prefilter(self.buffer[part]))

    def _halved(self, key: Hashable, name: str, compute: Callable[[slice], Tensor]) -> Tensor | None:
        parts = self.evaluator.halving.run(key, name, len(self.buffer), compute)
        if parts is None:
            return None
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _logits(
        self, member: int, position: int, classifier: Classifier, pixels: Tensor | None, cell: int
    ) -> Tensor | None:
        """Of a whole batch; None where memory does not suffice for one image (then not tried again in this chunk, of
        which it may lack the reference classes)."""
        evaluator = self.evaluator
        if pixels is None:
            self.too_large.setdefault(member, evaluator.sweep.entrants[position].defense)
        if pixels is None or member in self.too_large:
            return None

        def forward(part: slice) -> Tensor:
            network = classifier
            if position in evaluator.recalibrated:
                network = evaluator.recalibrated[position].at(cell, evaluator.autocast())
            with evaluator.autocast():
                return network(pixels[part])

        model = evaluator.sweep.entrants[position].model
        logits = self._halved(position, model, forward)
        if logits is None:
            self.too_large[member] = model
        return logits

    def _finish(self) -> tuple[Columns, list[Failure]]:
        """Run what is left in the batch; give all rows since `_start`, those that are no numbers as failures."""
        if self.filled:
            self._run()
        if not self.results:
            return {}, self.failures
        outputs = torch.cat([result[3] for result in self.results]).cpu().numpy()
        entrant = np.concatenate([np.full(len(r[1]), self.positions[r[0]]) for r in self.results])
        image = np.concatenate([r[1] for r in self.results])
        cell = np.concatenate([r[2] for r in self.results])
        good = np.isfinite(outputs).all(axis=1)
        levels = np.array([c.level for c in self.evaluator.cells])
        trials = np.array([c.trial for c in self.evaluator.cells])
        columns = {
            "image": image[good],
            "entrant": entrant[good],
            "level": levels[cell[good]],
            "trial": trials[cell[good]],
            **{name: outputs[good, i] for i, name in enumerate(OUTPUTS)},
        }
        # Of the same kind only the first, as where degradations raise.
        first: dict[Failure, Cell] = {}
        for i in np.flatnonzero(~good):
            failure = self._not_finite(int(image[i]), int(entrant[i]), int(cell[i]), outputs[i, -1] == 1)
            first.setdefault(failure, self.evaluator.cells[cell[i]])
        return columns, self.failures + [
            (row, stage, f"{sentence} (first at level {at.level:g}, trial {at.trial})")
            for (row, stage, sentence), at in first.items()
        ]

    def _not_finite(self, image: int, entrant: int, cell: int, broken: bool) -> Failure:
        degradation = self.evaluator.cells[cell].degradation
        if broken:
            return image, "degrade", f"'{degradation}' returned NaN"
        return (
            image,
            "predict",
            f"{self.evaluator.sweep.entrants[entrant].model} gave no finite number on it ({degradation})",
        )


OUTPUTS = ("prediction", "confidence", "true_probability", "true_rank", "reference_logit", "reference_probability")


def _outputs(logits: Tensor, label: Tensor, reference: Tensor, broken: Tensor) -> Tensor:
    """(N, classes) logits → (N, 7) float64, the columns of `OUTPUTS`, and whether the pixels were `broken` (N,) bool.

    NaN where pixels were broken or logits are not finite.
    """
    probabilities = logits.softmax(1)
    true_logit = logits.gather(1, label[:, None])
    columns = [
        logits.argmax(1),
        probabilities.amax(1),
        probabilities.gather(1, label[:, None])[:, 0],
        1 + (logits > true_logit).sum(1),
        logits.gather(1, reference[:, None])[:, 0],
        probabilities.gather(1, reference[:, None])[:, 0],
    ]
    table = torch.stack([column.double() for column in columns], dim=1)
    table.masked_fill_(broken[:, None] | ~logits.isfinite().all(1, keepdim=True), float("nan"))
    return torch.cat([table, broken[:, None].double()], dim=1)


def _prepared(classifier: Classifier, device: torch.device) -> Classifier:
    """On the device, in the memory layout that convolutions are fastest in, and exact."""
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
    return classifier.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)


def _joined(degradation: str, results: list[tuple[Columns, list[Failure]]]) -> Prediction:
    parts = [columns for columns, _ in results if columns]
    columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]} if parts else {}
    return Prediction(degradation, columns, list(dict.fromkeys(f for _, failures in results for f in failures)))
