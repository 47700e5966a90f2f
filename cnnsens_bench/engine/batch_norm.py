"""Batch-norm recalibration in a sweep: each worker degrades one fixed set of images as each cell asks.

The statistics of a network depend on this set and on the cell, never on the images that happen to be computed.
"""

import copy
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench import images
from cnnsens_bench.defenses import Defense
from cnnsens_bench.defenses.recalibration import batch_norm_layers, recalibrate, set_statistics, statistics
from cnnsens_bench.engine.degrade import Degrader, ReadStored, digitize
from cnnsens_bench.engine.networks import NetworkInput
from cnnsens_bench.engine.sweep import Sweep
from cnnsens_bench.models import Classifier


class Calibration:
    """Gives the pixels of the sweep's calibration images in any cell.

    Parameters
    ----------
    sweep
        The sweep.
    decoded
        The images of `sweep.calibration`.
    device
        Where pixels are degraded.
    pool
        The threads that render views.
    read_stored
        Reads the images' pre-made pictures.
    """

    def __init__(
        self,
        sweep: Sweep,
        decoded: Sequence[images.Decoded],
        device: torch.device,
        pool: Executor,
        read_stored: ReadStored | None = None,
    ) -> None:
        self.sweep, self.decoded, self.device, self.pool = sweep, decoded, device, pool
        self.read_stored = read_stored
        self.degraders: dict[NetworkInput, Degrader] = {}
        self.last: tuple[tuple[int, NetworkInput, int], Tensor] | None = None

    def pixels(self, count: int, seen: NetworkInput, cell: int) -> Tensor:
        """Return the first images in a cell as (n, 3, size, size) float32 in [0, 255].

        Images that cannot be degraded are left out.

        Parameters
        ----------
        count
            How many images to use.
        seen
            What the network sees.
        cell
            The cell's position in `sweep.cells()`.
        """
        key = (count, seen, cell)
        if self.last is None or self.last[0] != key:
            # They are kept for the networks that ask next, because networks ask cell by cell.
            self.last = (key, self._degraded(count, seen, cell))
        return self.last[1]

    def _degraded(self, count: int, seen: NetworkInput, cell: int) -> Tensor:
        if seen not in self.degraders:
            ids = [image.image_id for image in self.sweep.calibration]
            here, view = (self.device, self.pool), (seen.view, self.read_stored)
            self.degraders[seen] = Degrader(self.sweep, seen.size, ids, self.decoded, *here, *view)
        degrader = self.degraders[seen]
        if cell == 0:
            pixels = degrader.pixels[:count].clamp(0, 255)
        else:
            condition, cells = next(each for each in self.sweep.cells_by_condition() if cell in each[1])
            rows = [np.empty(0, int) for _ in cells]
            rows[cells.index(cell)] = np.arange(min(count, len(self.decoded)))
            parts = [part for _, part, _ in degrader.run(condition, rows)]
            pixels = torch.cat(parts).clamp(0, 255) if parts else degrader.pixels[:0]
            pixels = pixels if degrader.degradation.as_stored else digitize(pixels, self.sweep)
        return pixels[pixels.sum((1, 2, 3)).isfinite()].contiguous(memory_format=torch.channels_last)


class Recalibrated:
    """A network whose batch-norm statistics follow the cell.

    Parameters
    ----------
    classifier
        The network. The weights are shared with it, the statistics are not.
    defense
        A defense with a recalibration.
    calibration
        The images that the statistics are computed from.
    """

    def __init__(self, classifier: Classifier, defense: Defense, calibration: Calibration) -> None:
        assert defense.recalibration is not None
        self.recalibration, self.prefilter = defense.recalibration, defense.prefilter
        preprocessing = classifier.preprocessing
        self.calibration, self.seen = calibration, NetworkInput(preprocessing.input_size, preprocessing.view)
        self.classifier = copy.deepcopy(classifier, {id(weight): weight for weight in classifier.parameters()})
        self.layers = batch_norm_layers(self.classifier)
        self.trained = statistics(self.layers)
        self.known: dict[int, list[Tensor]] = {}
        self.cell: int | None = None

    def at(self, cell: int, autocast: AbstractContextManager) -> Classifier:
        """Return the network with its statistics in a cell.

        Parameters
        ----------
        cell
            The cell's position in `sweep.cells()`.
        autocast
            The context in which the calibration images are computed.
        """
        if cell not in self.known:
            self.cell = None  # until it is done, because memory may run out on the way
            set_statistics(self.layers, self.trained)
            pixels = self.calibration.pixels(self.recalibration.images, self.seen, cell)
            if self.prefilter and len(pixels):
                pixels = self.prefilter(pixels)
            with autocast:
                recalibrate(self.classifier, pixels, self.recalibration.prior)
            self.known[cell] = statistics(self.layers)
        elif cell != self.cell:
            set_statistics(self.layers, self.known[cell])
        self.cell = cell
        return self.classifier
