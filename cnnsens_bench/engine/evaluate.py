"""The predictions of one batch of images in all cells of a sweep: degrade, defend, predict.

Every forward pass has the same batch shape (the last batch is padded), so a prediction does not depend on how images
were grouped. Every draw serves all levels and all networks.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench import images
from cnnsens_bench.engine.batch_norm import Calibration, Recalibrated
from cnnsens_bench.engine.compiled import compile_networks, forget_compiled
from cnnsens_bench.engine.degrade import Degrader, Failure, Images, ReadStored, digitize
from cnnsens_bench.engine.networks import LoadedEntrant, NetworkInput, autocast, inputs_of, to_device
from cnnsens_bench.engine.oom_backoff import OomBackoff, fewer_images, free_memory, out_of_memory
from cnnsens_bench.engine.predictions import OUTPUTS, Columns, Prediction, joined, outputs_of
from cnnsens_bench.engine.sweep import Cell, Condition, Sweep
from cnnsens_bench.engine.timing import Mark, Stopwatch
from cnnsens_bench.models import Classifier
from cnnsens_bench.utils.reporter import SILENT, Reporter


class Evaluator:
    """Runs the networks of a sweep over batches of images.

    Where memory runs out, fewer images go through a network at a time (see `OomBackoff`).

    Parameters
    ----------
    sweep
        The sweep.
    entrants
        The sweep's networks, in its order.
    device
        Where the networks run.
    reporter
        Hears of evaluations (one image through one network) as they are done, and of memory that runs out.
    calibration
        The images of `sweep.calibration`, decoded.
    read_stored
        Reads pre-made pictures of the images that are evaluated and of those of `sweep.calibration`.

    Attributes
    ----------
    stopwatch
        What the forward passes took.
    unfit
        The positions of networks that have no room on the device. Their images become failures.
    """

    def __init__(
        self,
        sweep: Sweep,
        entrants: Sequence[LoadedEntrant],
        device: torch.device | str = "cpu",
        *,
        reporter: Reporter = SILENT,
        calibration: Sequence[images.Decoded] = (),
        read_stored: ReadStored | None = None,
    ) -> None:
        self.sweep, self.device, self.reporter = sweep, torch.device(device), reporter
        self.read_stored = read_stored
        self.stopwatch = Stopwatch(self.device)
        self.backoff = OomBackoff(reporter)
        self.cells = sweep.cells()
        self.unfit: set[int] = set()
        self.entrants = [LoadedEntrant(self._move(i, e.classifier), e.defense) for i, e in enumerate(entrants)]
        self.inputs = inputs_of(entrants)
        self.pool = ThreadPoolExecutor(min(4, max(2, torch.get_num_threads())))
        shared = Calibration(sweep, calibration, self.device, self.pool, read_stored)
        follow = [(i, e) for i, e in enumerate(self.entrants) if e.defense.recalibration and i not in self.unfit]
        self.recalibrated = {i: Recalibrated(e.classifier, e.defense, shared) for i, e in follow}
        self.compiled = self._compiled() if sweep.compile else {}

    def evaluate(
        self, image_ids: Sequence[str], labels: Sequence[int], decoded: Images, wanted: np.ndarray
    ) -> Iterator[Prediction]:
        """Yield the predictions of a batch of images, one degradation after the other, the undegraded first.

        The undegraded images are always run, because their predicted classes are the reference of all others, but only
        what is wanted is returned.

        Parameters
        ----------
        image_ids, decoded
            The images.
        labels
            Their classes, counted from 0.
        wanted
            (images, entrants, cells) bool.
        """
        classes = torch.tensor(list(labels), device=self.device)
        batches = [_InputBatch(self, seen, image_ids, classes, decoded, wanted) for seen in self.inputs]
        batches = [batch for batch in batches if batch.wanted.any()]
        with torch.inference_mode():
            yield joined(self.cells[0].degradation, [batch.undegraded() for batch in batches])
            for condition, cells in self.sweep.cells_by_condition():
                if wanted[:, :, cells.start : cells.stop].any():
                    yield joined(condition.degradation, [batch.degraded(condition, cells) for batch in batches])

    def close(self) -> None:
        """End the threads, and release what networks hold outside of torch, such as sessions of onnxruntime."""
        self.pool.shutdown()
        if self.compiled:
            self.compiled = {}
            forget_compiled()
        for entrant in self.entrants:
            if close := getattr(entrant.classifier.network, "close", None):
                close()

    def autocast(self) -> AbstractContextManager:
        """Return the context in which networks compute in the sweep's precision."""
        return autocast(self.device, self.sweep.precision)

    def _compiled(self) -> dict[int, Callable[[Tensor], Tensor]]:
        """Compile the networks whose weights stay as they are, and return them by their positions."""
        fixed = [i for i in range(len(self.entrants)) if i not in self.recalibrated and i not in self.unfit]
        networks = [(i, self.sweep.entrants[i].model, self.entrants[i].classifier) for i in fixed]
        return compile_networks(networks, self.device, self.sweep.precision, self.sweep.batch_size, self.reporter)

    def _move(self, position: int, classifier: Classifier) -> Classifier:
        """Return the classifier on the device; where it does not fit, on the CPU and marked as unfit."""
        try:
            return to_device(classifier, self.device)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        self.unfit.add(position)
        classifier.to("cpu")  # a part of it had room
        free_memory()
        return classifier


class _InputBatch:
    """Images as the networks of one input see them, the buffer of a forward pass, and the images' reference classes."""

    def __init__(
        self,
        evaluator: Evaluator,
        seen: NetworkInput,
        ids: Sequence[str],
        labels: Tensor,
        decoded: Images,
        wanted: np.ndarray,
    ) -> None:
        self.evaluator, self.count, self.labels, self.device = evaluator, len(ids), labels, evaluator.device
        self.members = [(i, entrant) for i, entrant in enumerate(evaluator.entrants) if entrant.input == seen]
        self.positions = [i for i, _ in self.members]
        # A full image batch fills the buffer with one cell anyway.
        self.cell_by_cell = any(i in evaluator.recalibrated for i in self.positions)
        self.wanted = wanted[:, self.positions]
        # Members → the name of what does not fit even with one image.
        unfit = [(member, i) for member, i in enumerate(self.positions) if i in evaluator.unfit]
        self.too_large = {member: evaluator.sweep.entrants[i].model for member, i in unfit}
        self.reference = torch.zeros(len(self.members), len(ids), dtype=torch.long, device=self.device)
        here, view = (self.device, evaluator.pool), (seen.view, evaluator.read_stored)
        self.degrader = Degrader(evaluator.sweep, seen.size, ids, decoded, *here, *view)
        shape = (evaluator.sweep.batch_size, 3, seen.size, seen.size)
        self.buffer = torch.zeros(shape, device=self.device).contiguous(memory_format=torch.channels_last)

    def undegraded(self) -> tuple[Columns, list[Failure]]:
        """Predict the undegraded images."""
        self._start()
        self._add(self.degrader.pixels, np.arange(self.count), 0)
        return self._finish()

    def degraded(self, condition: Condition, cells: range) -> tuple[Columns, list[Failure]]:
        """Predict all levels and trials of a condition, which are these cells of the sweep."""
        self._start()
        rows = [np.flatnonzero(self.wanted[:, :, cell].any(axis=1)) for cell in cells]
        for position, pixels, here in self.degrader.run(condition, rows):
            self._add(pixels, here, cells[position], digital=not self.degrader.degradation.as_stored)
        columns, failures = self._finish()
        return columns, self.degrader.failures + failures

    def _start(self) -> None:
        self.filled = 0
        self.held: list[tuple[np.ndarray, int]] = []
        self.results: list[tuple[np.ndarray, np.ndarray, np.ndarray, Tensor]] = []
        self.failures: list[Failure] = []

    def _add(self, pixels: Tensor, rows: np.ndarray, cell: int, digital: bool = False) -> None:
        """Put clamped pixels into the buffer. Run it when it is full, and before another cell where networks differ.

        `digital` says whether they become what a camera would store, where the sweep asks for that.
        """
        if self.cell_by_cell and self.held and self.held[-1][1] != cell:
            self._run()
        done = 0
        while done < len(rows):
            room = min(len(rows) - done, len(self.buffer) - self.filled)
            target = self.buffer[self.filled : self.filled + room]
            torch.clamp(pixels[done : done + room].to(target.dtype), 0, 255, out=target)
            if digital:
                digitize(target, self.evaluator.sweep)
            self.held.append((rows[done : done + room], cell))
            self.filled += room
            done += room
            if self.filled == len(self.buffer):
                self._run()

    def _run(self) -> None:
        """Run the buffer through every network that wants a row of it."""
        rows = np.concatenate([rows for rows, _ in self.held])
        cells = np.concatenate([np.full(len(rows), cell) for rows, cell in self.held])
        image = torch.from_numpy(rows).to(self.device)
        broken = self.buffer[: self.filled].sum((1, 2, 3)).isnan()
        clock = self.evaluator.stopwatch
        filtered: dict[str, Tensor | None] = {}
        filtering: dict[str, list[tuple[Mark, Mark]]] = {}  # done once, but counted in each entrant's pass
        for member, (position, entrant) in enumerate(self.members):
            asked = self.wanted[rows, member, cells]
            is_reference = cells[0] == 0  # batches never mix the undegraded cell with others
            if not asked.any() and not (is_reference and self.wanted[:, member].any()):
                continue
            name, prefilter = entrant.defense.name, entrant.defense.prefilter
            if name not in filtered:
                began = clock.mark()
                filtered[name] = self._in_parts(name, name, prefilter, self.buffer) if prefilter else self.buffer
                filtering[name] = [(began, clock.mark())] if prefilter else []
            began = clock.mark()
            logits = self._logits(member, filtered[name], int(cells[0]))
            if logits is not None:
                clock.add(position, int(asked.sum()), len(self.buffer), [*filtering[name], (began, clock.mark())])
            self.evaluator.reporter.evaluations(int(asked.sum()))
            if logits is None:
                sentence = f"{self.too_large[member]} does not fit into the memory with one image at a time"
                self.failures += [(int(row), "predict", sentence) for row in np.unique(rows[asked])]
                continue
            logits = logits[: self.filled].float()
            if is_reference:
                self.reference[member, image] = logits.argmax(1)
            outputs = outputs_of(logits, self.labels[image], self.reference[member, image], broken)
            entrants = np.full(asked.sum(), position)
            self.results.append((rows[asked], entrants, cells[asked], outputs[torch.from_numpy(asked)]))
        self.filled = 0
        self.held = []

    def _in_parts(self, key: Hashable, name: str, apply: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor | None:
        """Run pixels through a filter or network; None where memory does not suffice for one image."""
        parts = self.evaluator.backoff.run(key, len(pixels), lambda part: apply(pixels[part]), fewer_images(name))
        if parts is None:
            return None
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _logits(self, member: int, pixels: Tensor | None, cell: int) -> Tensor | None:
        """Return the logits of the buffer; None where memory does not suffice for one image.

        Such a network is not tried again with this image batch, whose reference classes it may lack.
        """
        evaluator, (position, entrant) = self.evaluator, self.members[member]
        if pixels is None:
            self.too_large.setdefault(member, evaluator.sweep.entrants[position].defense)
        if pixels is None or member in self.too_large:
            return None

        def forward(part: Tensor) -> Tensor:
            network = evaluator.compiled.get(position, entrant.classifier)
            if position in evaluator.recalibrated:
                network = evaluator.recalibrated[position].at(cell, evaluator.autocast())
            with evaluator.autocast():
                return network(part)

        model = evaluator.sweep.entrants[position].model
        logits = self._in_parts(position, model, forward, pixels)
        if logits is None:
            self.too_large[member] = model
        return logits

    def _finish(self) -> tuple[Columns, list[Failure]]:
        """Run what is left in the buffer; return all rows since `_start`, those that are no numbers as failures."""
        if self.filled:
            self._run()
        if not self.results:
            return {}, self.failures
        *positions, tables = zip(*self.results, strict=True)
        image, entrant, cell = map(np.concatenate, positions)
        outputs = torch.cat(tables).cpu().numpy()
        good = np.isfinite(outputs).all(axis=1)
        levels = np.array([c.level for c in self.evaluator.cells])
        trials = np.array([c.trial for c in self.evaluator.cells])
        columns = {"image": image, "entrant": entrant, "level": levels[cell], "trial": trials[cell]}
        columns = {name: column[good] for name, column in columns.items()}
        columns |= {name: outputs[good, i] for i, name in enumerate(OUTPUTS)}
        # Of equal failures only the first is kept, as where degradations raise.
        first: dict[Failure, Cell] = {}
        for i in np.flatnonzero(~good):
            at, model = self.evaluator.cells[cell[i]], self.evaluator.sweep.entrants[entrant[i]].model
            failure = "predict", f"{model} gave no finite number on it ({at.degradation})"
            if outputs[i, -1] == 1:
                failure = "degrade", f"'{at.degradation}' returned NaN"
            first.setdefault((int(image[i]), *failure), at)
        return columns, self.failures + [
            (row, stage, f"{sentence} (first at level {at.level:g}, trial {at.trial})")
            for (row, stage, sentence), at in first.items()
        ]
