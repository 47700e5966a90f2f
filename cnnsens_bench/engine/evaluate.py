"""The predictions of some images in all cells of a sweep: degrade, defend, predict.

Every forward pass has the same batch shape (the last batch is padded), so a prediction does not depend on which rows
share a pass. A row is an image in a cell; what is left of a degradation's rows shares a pass with the next one's. Every
draw serves all levels and all networks.
"""

import os
from collections.abc import Callable, Iterator, Sequence
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
from cnnsens_bench.engine.oom_backoff import OomBackoff, free_memory, out_of_memory
from cnnsens_bench.engine.pass_queue import PassQueue
from cnnsens_bench.engine.predictions import CollectedRows, Prediction, joined
from cnnsens_bench.engine.sweep import NONE, Sweep
from cnnsens_bench.engine.timing import Stopwatch
from cnnsens_bench.models import Classifier
from cnnsens_bench.utils.errors import StorageError
from cnnsens_bench.utils.reporter import SILENT, Reporter
from cnnsens_bench.utils.transfer import take_rows, upload


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
        self.pool = ThreadPoolExecutor(_rendering_threads(self.device))
        # The host does not wait for a degradation's results before the GPU has the work of the next one.
        self.late = int(self.device.type == "cuda")
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
        classes = upload(np.array(labels, np.int64), self.device)
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
                yield from self._complete(batches, incomplete, flush=not packed, late=self.late if packed else 0)
            yield from self._complete(batches, incomplete, flush=True)

    def _complete(
        self, batches: list["_InputBatch"], incomplete: list[int], flush: bool, late: int = 0
    ) -> Iterator[Prediction]:
        """Yield the predictions of the degradations that have no row left to run, and take them off `incomplete`.

        With `flush` the rows that wait for a full batch are run first, which completes all. The last `late`
        degradations stay.
        """
        for batch in batches if flush else ():
            batch.flush()
        first_held = min((batch.first_held for batch in batches), default=len(self.conditions) + 1)
        while len(incomplete) > late and incomplete[0] < first_held:
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
        left_out = {*self.recalibrated, *self.unfit}
        networks = [(i, e.model, self.entrants[i].classifier) for i, e in enumerate(self.sweep.entrants)]
        networks = [one for one in networks if one[0] not in left_out]
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


def _rendering_threads(device: torch.device) -> int:
    """Return how many threads render views: as many as the machine has cores where a GPU waits for the views."""
    if device.type == "cuda":
        return max(2, min(32, os.cpu_count() or 2))
    return min(4, max(2, torch.get_num_threads()))


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
        self.evaluator, self.results = evaluator, CollectedRows(evaluator.sweep)
        alike: dict[tuple[bytes, bool], list[int]] = {}
        for i, entrant in enumerate(evaluator.entrants):
            if entrant.input == seen and wanted[:, i].any():
                alike.setdefault((wanted[:, i].tobytes(), i in evaluator.recalibrated), []).append(i)
        self.queues: list[PassQueue] = []
        if alike:
            here, view = (evaluator.device, evaluator.pool), (seen.view, evaluator.read_stored)
            self.degrader = Degrader(evaluator.sweep, seen.size, ids, decoded, *here, *view)
            self.queues = [
                PassQueue(evaluator, seen.size, labels, wanted[:, members[0]], members, self.results)
                for members in alike.values()
            ]

    def add(self, number: int) -> None:
        """Put all rows of a degradation into the queues, which run those that fill a batch."""
        if number == 0:
            for queue in self.queues:
                rows = np.flatnonzero(queue.wanted.any(axis=1))
                queue.add(take_rows(self.degrader.pixels, rows), rows, 0)
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
            queue.add(take_rows(pixels, own), rows[own], cell)

    def flush(self) -> None:
        """Run the rows that wait for a full batch."""
        for queue in self.queues:
            queue.flush()

    @property
    def first_held(self) -> int:
        """The number of the first degradation that has rows to run; the number after the last one where none has."""
        after = len(self.evaluator.conditions) + 1
        return min(int(self.results.numbers[queue.held[0][1]]) if queue.held else after for queue in self.queues)
