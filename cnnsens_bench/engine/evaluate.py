"""The predictions of some images in all cells of a sweep: degrade, defend, predict.

Every forward pass has the same batch shape (the last batch is padded), so a prediction does not depend on which rows
share a pass. A row is an image in a cell; what is left of a degradation's rows shares a pass with the next one's. Every
draw serves all levels and all networks.
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
from cnnsens_bench.engine.degrade import Degrader, Images, ReadStored, digitize
from cnnsens_bench.engine.networks import LoadedEntrant, NetworkInput, autocast, inputs_of, to_device
from cnnsens_bench.engine.oom_backoff import OomBackoff, fewer_images, free_memory, out_of_memory
from cnnsens_bench.engine.predictions import Prediction, Results, joined, outputs_of
from cnnsens_bench.engine.sweep import NONE, Sweep
from cnnsens_bench.engine.timing import Mark, Stopwatch
from cnnsens_bench.models import Classifier
from cnnsens_bench.utils.errors import StorageError
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
        self.cells, self.conditions = sweep.cells(), sweep.cells_by_condition()
        self.unfit: set[int] = set()
        self.entrants = [LoadedEntrant(self._move(i, e.classifier), e.defense) for i, e in enumerate(entrants)]
        self.inputs = inputs_of(entrants)
        self.pool = ThreadPoolExecutor(min(4, max(2, torch.get_num_threads())))
        shared = Calibration(sweep, calibration, self.device, self.pool, read_stored)
        follow = [(i, e) for i, e in enumerate(self.entrants) if e.defense.recalibration and i not in self.unfit]
        self.recalibrated = {i: Recalibrated(e.classifier, e.defense, shared) for i, e in follow}
        self.compiled = self._compiled() if sweep.compile else {}

    def evaluate(
        self,
        image_ids: Sequence[str],
        labels: Sequence[int],
        decoded: Images,
        wanted: np.ndarray,
        *,
        packed: bool = True,
    ) -> Iterator[Prediction]:
        """Yield the predictions of some images, one degradation after the other, the undegraded first.

        The undegraded version of an image of which something is wanted is always run, because its predicted class is
        the reference of all others, but only what is wanted is returned. There may be more images than fit into a
        forward pass.

        Parameters
        ----------
        image_ids, decoded
            The images.
        labels
            Their classes, counted from 0.
        wanted
            (images, entrants, cells) bool.
        packed
            Whether the rows of several degradations share a forward pass. The prediction of a degradation then comes
            once its last row was run, which may be while a later one is degraded. Otherwise it comes before the next
            degradation is begun, so that nothing of it is lost where the process dies.
        """
        classes = torch.tensor(list(labels), device=self.device)
        batches = [_InputBatch(self, seen, image_ids, classes, decoded, wanted) for seen in self.inputs]
        batches = [batch for batch in batches if batch.queues]
        wanted_here = [wanted[:, :, cells.start : cells.stop].any() for _, cells in self.conditions]
        incomplete: list[int] = []
        with torch.inference_mode():
            for number in [0, *(1 + np.flatnonzero(wanted_here))]:
                try:
                    for batch in batches:
                        batch.add(number)
                except StorageError:
                    yield from self._complete(batches, incomplete, flush=True)
                    raise
                incomplete.append(number)
                yield from self._complete(batches, incomplete, flush=not packed)
            yield from self._complete(batches, incomplete, flush=True)

    def _complete(self, batches: list["_InputBatch"], incomplete: list[int], flush: bool) -> Iterator[Prediction]:
        """Yield the predictions of the degradations that have no row left to run, and take them off `incomplete`.

        With `flush` the rows that wait for a full batch are run first, which completes all.
        """
        for batch in batches if flush else ():
            batch.flush()
        first_held = min((batch.first_held for batch in batches), default=len(self.conditions) + 1)
        while incomplete and incomplete[0] < first_held:
            number = incomplete.pop(0)
            name = self.conditions[number - 1][0].degradation if number else NONE
            yield joined(name, [batch.results.take(number) for batch in batches])

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
    """Images as the networks of one input see them, and a queue for each set of networks that want the same cells."""

    def __init__(
        self,
        evaluator: Evaluator,
        seen: NetworkInput,
        ids: Sequence[str],
        labels: Tensor,
        decoded: Images,
        wanted: np.ndarray,
    ) -> None:
        self.evaluator, self.results = evaluator, Results(evaluator.sweep)
        alike: dict[tuple[bytes, bool], list[int]] = {}
        for i, entrant in enumerate(evaluator.entrants):
            if entrant.input == seen and wanted[:, i].any():
                alike.setdefault((wanted[:, i].tobytes(), i in evaluator.recalibrated), []).append(i)
        self.queues: list[_PassQueue] = []
        if alike:
            here, view = (evaluator.device, evaluator.pool), (seen.view, evaluator.read_stored)
            self.degrader = Degrader(evaluator.sweep, seen.size, ids, decoded, *here, *view)
            self.queues = [
                _PassQueue(evaluator, seen.size, labels, wanted[:, members[0]], members, self.results)
                for members in alike.values()
            ]

    def add(self, number: int) -> None:
        """Put all rows of a degradation into the queues, which run those that fill a batch."""
        if number == 0:
            for queue in self.queues:
                rows = np.flatnonzero(queue.wanted.any(axis=1))
                queue.add(self.degrader.pixels[torch.from_numpy(rows)], rows, 0)
        else:
            condition, cells = self.evaluator.conditions[number - 1]
            wanted = np.any([queue.wanted for queue in self.queues], axis=0)
            images = [np.flatnonzero(wanted[:, cell]) for cell in cells]
            for position, pixels, here in self.degrader.run(condition, images):
                self._add_degraded(pixels, here, cells[position])
            self.results.failures[number] += self.degrader.failures
        for queue in self.queues:
            if queue.cell_by_cell:
                queue.flush()

    def _add_degraded(self, pixels: Tensor, rows: np.ndarray, cell: int) -> None:
        digital = not self.degrader.degradation.as_stored
        if len(self.queues) == 1:
            self.queues[0].add(pixels, rows, cell, digital)
            return
        if digital:
            pixels = digitize(pixels.clamp(0, 255), self.evaluator.sweep)
        for queue in self.queues:
            own = np.flatnonzero(queue.wanted[rows, cell])
            queue.add(pixels if len(own) == len(rows) else pixels[torch.from_numpy(own)], rows[own], cell)

    def flush(self) -> None:
        """Run the rows that wait for a full batch."""
        for queue in self.queues:
            queue.flush()

    @property
    def first_held(self) -> int:
        """The number of the first degradation that has rows to run; the number after the last one where none has."""
        after = len(self.evaluator.conditions) + 1
        return min(int(self.results.numbers[queue.held[0][1]]) if queue.held else after for queue in self.queues)


class _PassQueue:
    """The rows that wait for a forward pass, and the results of passes, of networks that want the same cells.

    The undegraded rows of the images come first, so the reference class of an image is known once its other rows are
    evaluated, even where they share a pass.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        size: int,
        labels: Tensor,
        wanted: np.ndarray,
        positions: Sequence[int],
        results: Results,
    ) -> None:
        self.evaluator, self.labels, self.wanted, self.device = evaluator, labels, wanted, evaluator.device
        self.members = [(i, evaluator.entrants[i]) for i in positions]
        # The statistics of a network whose batch norm is recalibrated depend on the cell.
        self.cell_by_cell = any(i in evaluator.recalibrated for i in positions)
        # Members → the name of what does not fit even with one image.
        unfit = [(member, i) for member, i in enumerate(positions) if i in evaluator.unfit]
        self.too_large = {member: evaluator.sweep.entrants[i].model for member, i in unfit}
        self.reference = torch.zeros(len(self.members), len(wanted), dtype=torch.long, device=self.device)
        shape = (evaluator.sweep.batch_size, 3, size, size)
        self.buffer = torch.zeros(shape, device=self.device).contiguous(memory_format=torch.channels_last)
        self.filled = 0
        self.held: list[tuple[np.ndarray, int]] = []
        self.results = results

    def add(self, pixels: Tensor, rows: np.ndarray, cell: int, digital: bool = False) -> None:
        """Put clamped pixels into the buffer. Run it when it is full, and before another cell where networks differ.

        `digital` says whether they become what a camera would store, where the sweep asks for that.
        """
        if self.cell_by_cell and self.held and self.held[-1][1] != cell:
            self.flush()
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
                self.flush()

    def flush(self) -> None:
        """Run the buffer through every network, if there is a row in it."""
        if not self.filled:
            return
        rows = np.concatenate([rows for rows, _ in self.held])
        cells = np.concatenate([np.full(len(rows), cell) for rows, cell in self.held])
        asked = self.wanted[rows, cells]
        undegraded = int(np.count_nonzero(cells == 0))
        image = torch.from_numpy(rows).to(self.device)
        broken = self.buffer[: self.filled].sum((1, 2, 3)).isnan()
        clock = self.evaluator.stopwatch
        filtered: dict[str, Tensor | None] = {}
        filtering: dict[str, list[tuple[Mark, Mark]]] = {}  # done once, but counted in each entrant's pass
        for member, (position, entrant) in enumerate(self.members):
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
                self.results.fail(rows[asked], cells[asked], sentence)
                continue
            logits = logits[: self.filled].float()
            if undegraded:
                self.reference[member, image[:undegraded]] = logits[:undegraded].argmax(1)
            outputs = outputs_of(logits, self.labels[image], self.reference[member, image], broken)
            self.results.add(position, rows, cells, asked, outputs)
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
