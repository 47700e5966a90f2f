"""The sweep of one chunk of images: degrade, defend, predict. Pure torch; knows no Ray and no files.

Every forward pass has the same batch shape (the last is padded), so that a prediction does not depend on how
images were grouped, and every draw serves all levels and all networks.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench import images
from cnnsens_bench.defenses import Defense
from cnnsens_bench.degradations import Degradation, Streams, degradations
from cnnsens_bench.degradations.base import draw_rows
from cnnsens_bench.engine.plan import Cell, Condition, Sweep
from cnnsens_bench.models import Classifier

TILE_BYTES = 1 << 20
"""Pixels that are degraded at a time on a CPU: as many as its second-level cache holds."""

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class LoadedEntrant:
    """A network ready to use, and what stands before it."""

    classifier: Classifier
    defense: Defense


@dataclass(frozen=True)
class Prediction:
    """The rows that one degradation gave. `columns` are arrays of one length: `image` and `entrant` positions,
    `level`, `trial` and the outputs of `predictions`; `not_finite`: (image, entrant) whose logits were not numbers."""

    degradation: str
    columns: Columns
    not_finite: list[tuple[int, int]]


class Evaluator:
    """Runs a sweep's networks over chunks of images.

    `report(n)` is called as n further evaluations (one image through one network) are done.
    """

    def __init__(
        self,
        sweep: Sweep,
        entrants: Sequence[LoadedEntrant],
        device: torch.device | str = "cpu",
        report: Callable[[int], None] | None = None,
    ) -> None:
        self.sweep, self.device, self.report = sweep, torch.device(device), report
        self.cells = sweep.cells()
        self.entrants = [
            LoadedEntrant(_prepared(entrant.classifier, self.device), entrant.defense) for entrant in entrants
        ]
        self.sizes = sorted({entrant.classifier.preprocessing.input_size for entrant in entrants})
        self._pool = ThreadPoolExecutor(min(4, max(2, torch.get_num_threads())))

    def evaluate(
        self, image_ids: Sequence[str], labels: Sequence[int], decoded: list[images.Decoded], wanted: np.ndarray
    ) -> Iterator[Prediction]:
        """The predictions of a chunk, one degradation after the other, the undegraded first.

        `labels` 0-based; `wanted` (images, entrants, cells) bool. Undegraded images are always run (their
        predicted class is the reference of the others), but only what is wanted is given out.
        """
        passes = [_Pass(self, size, image_ids, labels, decoded, wanted) for size in self.sizes]
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

    def autocast(self) -> AbstractContextManager:
        """Lower precision only when it is asked for: it flips labels on its own."""
        if self.sweep.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.sweep.precision))


class _Pass:
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
        self.wanted = wanted[:, self.positions]
        self.labels = torch.tensor(list(labels), device=self.device)
        self.reference = torch.zeros(len(self.members), len(image_ids), dtype=torch.long, device=self.device)
        canvas = np.empty((len(decoded), size, size, 3), np.uint8)
        views = evaluator._pool.map(lambda image: images.render(image, size), decoded)
        for i, view in enumerate(views):
            canvas[i] = view
        self.pixels = self._to_device(canvas)
        shape = (evaluator.sweep.batch_size, 3, size, size)
        self.buffer = torch.zeros(shape, device=self.device).contiguous(memory_format=torch.channels_last)
        image_bytes = 12 * size * size
        self.tile = len(decoded) if self.device.type != "cpu" else max(1, TILE_BYTES // image_bytes)
        self._start()

    def undegraded(self) -> tuple[Columns, list[tuple[int, int]]]:
        self._start()
        everything = np.arange(len(self.image_ids))
        for part in _tiles(everything, self.tile):
            self._add(self.pixels[part[0] : part[-1] + 1], part, 0)
        return self._finish()

    def degraded(self, condition: Condition, first_cell: int) -> tuple[Columns, list[tuple[int, int]]]:
        """All levels and trials of a condition, whose cells begin at `first_cell`."""
        self._start()
        degradation = degradations[condition.degradation]
        cells = range(first_cell, first_cell + condition.trials * len(condition.levels))
        views = self._views(degradation, cells) if degradation.geometric else None
        width = len(condition.levels)
        for trial in range(condition.trials):
            of_trial = cells[trial * width : (trial + 1) * width]
            rows = self._rows(of_trial)
            if not len(rows):
                continue
            draw = self._draw(degradation, rows, trial)
            for cell in of_trial:
                level = self.evaluator.cells[cell].level
                source = next(views) if views else None
                here = np.flatnonzero(np.isin(rows, self._rows([cell])))
                for part in _tiles(here, self.tile):
                    index: Any = slice(part[0], part[-1] + 1) if part[-1] - part[0] == len(part) - 1 else part
                    pixels = source[index] if source is not None else self.pixels[_span(rows[part])]
                    self._add(degradation.apply(pixels, draw_rows(draw, index), level), rows[part], cell)
        return self._finish()

    def _rows(self, cells: Sequence[int]) -> np.ndarray:
        return np.flatnonzero(self.wanted[:, :, list(cells)].any(axis=(1, 2)))

    def _draw(self, degradation: Degradation, rows: np.ndarray, trial: int) -> Any:
        ids = [self.image_ids[i] for i in rows]
        sweep = self.evaluator.sweep
        return degradation.draw(Streams(sweep.seed, sweep.dataset, ids, trial, self.device), self.size)

    def _views(self, degradation: Degradation, cells: Sequence[int]) -> Iterator[Tensor]:
        """The moved boxes, cell by cell, on the device; the next cell's are rendered while one is used."""

        def submit(cell: Cell, of_trial: np.ndarray) -> list:
            draw = self._draw(degradation, of_trial, cell.trial)
            motion = degradation.motion(draw, cell.level)
            shifts = zip(of_trial, motion.dx.tolist(), motion.dy.tolist(), strict=True)
            return [
                self.evaluator._pool.submit(images.render, self.decoded[i], self.size, dx, dy) for i, dx, dy in shifts
            ]

        trials: dict[int, list[int]] = {}
        for cell in cells:
            trials.setdefault(self.evaluator.cells[cell].trial, []).append(cell)
        jobs = [(self.evaluator.cells[c], rows) for t in trials.values() if len(rows := self._rows(t)) for c in t]
        waiting = submit(*jobs[0]) if jobs else []
        for i in range(len(jobs)):
            ahead = submit(*jobs[i + 1]) if i + 1 < len(jobs) else []
            yield self._to_device(np.stack([future.result() for future in waiting]))
            waiting = ahead

    def _to_device(self, pixels: np.ndarray) -> Tensor:
        return torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float()

    def _start(self) -> None:
        self.filled = 0
        self.held: list[tuple[np.ndarray, int]] = []
        self.results: list[tuple[int, np.ndarray, np.ndarray, Tensor]] = []

    def _add(self, pixels: Tensor, rows: np.ndarray, cell: int) -> None:
        """Clamped pixels into the batch; a full batch is run."""
        if pixels.shape[1:] != self.buffer.shape[1:] or len(pixels) != len(rows):
            name = self.evaluator.cells[cell].degradation
            raise ValueError(
                f"degradation '{name}' returned {tuple(pixels.shape)}, not {len(rows)} images of its input"
            )
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
        filtered: dict[str, Tensor] = {}
        for member, (_, entrant) in enumerate(self.members):
            asked = self.wanted[rows, member, cells]
            is_reference = cells[0] == 0  # batches never mix the undegraded cell with others
            if not asked.any() and not (is_reference and self.wanted[:, member].any()):
                continue
            name, prefilter = entrant.defense.name, entrant.defense.prefilter
            if name not in filtered:
                filtered[name] = prefilter(self.buffer) if prefilter else self.buffer
            with self.evaluator.autocast():
                logits = entrant.classifier(filtered[name])
            logits = logits[: self.filled].float()
            if is_reference:
                self.reference[member, image] = logits.argmax(1)
            outputs = _outputs(logits, self.labels[image], self.reference[member, image])
            self.results.append((member, rows[asked], cells[asked], outputs[torch.from_numpy(asked)]))
            if self.evaluator.report:
                self.evaluator.report(int(asked.sum()))
        self.filled = 0
        self.held = []

    def _finish(self) -> tuple[Columns, list[tuple[int, int]]]:
        """Run what is left in the batch; give all rows since `_start`, those that are no numbers apart."""
        if self.filled:
            self._run()
        if not self.results:
            return {}, []
        outputs = torch.cat([result[3] for result in self.results]).cpu().numpy()
        entrant = np.concatenate([np.full(len(r[1]), self.positions[r[0]]) for r in self.results])
        image = np.concatenate([r[1] for r in self.results])
        cell = np.concatenate([r[2] for r in self.results])
        good = np.isfinite(outputs).all(axis=1)
        bad = sorted(set(zip(image[~good].tolist(), entrant[~good].tolist(), strict=True)))
        levels = np.array([c.level for c in self.evaluator.cells])
        trials = np.array([c.trial for c in self.evaluator.cells])
        columns = {
            "image": image[good],
            "entrant": entrant[good],
            "level": levels[cell[good]],
            "trial": trials[cell[good]],
            **{name: outputs[good, i] for i, name in enumerate(OUTPUTS)},
        }
        return columns, bad


OUTPUTS = ("prediction", "confidence", "true_probability", "true_rank", "reference_logit", "reference_probability")


def _outputs(logits: Tensor, label: Tensor, reference: Tensor) -> Tensor:
    """(N, classes) logits → (N, 6) float64, the columns of `OUTPUTS`; NaN where logits are not finite."""
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
    return table.masked_fill_(~logits.isfinite().all(1, keepdim=True), float("nan"))


def _prepared(classifier: Classifier, device: torch.device) -> Classifier:
    """On the device, in the memory layout that convolutions are fastest in, and exact."""
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
    return classifier.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)


def _tiles(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _span(rows: np.ndarray) -> Any:
    """A slice where the rows follow each other (a view, no copy), else the rows."""
    return slice(rows[0], rows[-1] + 1) if rows[-1] - rows[0] == len(rows) - 1 else rows


def _joined(degradation: str, results: list[tuple[Columns, list[tuple[int, int]]]]) -> Prediction:
    parts = [columns for columns, _ in results if columns]
    columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]} if parts else {}
    return Prediction(degradation, columns, [pair for _, bad in results for pair in bad])
