"""Training batches. Each image is decoded once; its box is kept on disk, a little larger than the network's input."""

import fcntl
import json
import math
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from cnnsens_bench import images
from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.utils.atomic import write_atomically
from cnnsens_bench.utils.errors import ImageError, StorageError

CANVAS = 1.4
"""Side of the kept box over the side of the network's input: a random crop of half the area then loses no detail."""


@dataclass(frozen=True)
class Share:
    """The part of every batch that one of several processes works on when they train a network together.

    Attributes
    ----------
    rank
        The number of this process, from 0.
    count
        The number of processes.

    Examples
    --------
    >>> Share(rank=1, count=2).take([10, 11, 12, 13])
    [11, 13]
    """

    rank: int = 0
    count: int = 1

    def take(self, batch: Any) -> Any:
        """Return this process's elements of a batch's sequence."""
        return batch[self.rank :: self.count]


WHOLE = Share()
"""The share of a process that trains a network alone."""


class TrainingImages:
    """The boxes of a split as one memory-mapped array, so that memory does not grow with the data set.

    Parameters
    ----------
    table
        The samples: their URIs, boxes and labels.
    input_size
        The side of the network's input in pixels.
    folder
        Where the decoded images lie as a nameless file, which goes with this object.
    shared_file
        The path of a file that outlives this object instead. The first process that comes fills it; all that come
        after share it.

    Attributes
    ----------
    labels
        Class indices of the readable images, of shape (N,), int64.
    failures
        (image_id, sentence) of the images that could not be read.

    Raises
    ------
    StorageError
        If the disk has no room for the decoded images.
    """

    def __init__(self, table: pd.DataFrame, input_size: int, folder: Path, shared_file: Path | None = None) -> None:
        self.input_size = input_size
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self.failures: list[tuple[str, str]] = []
        if shared_file is None:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed by close())
            self._map(len(table), "w+")
            self.labels = torch.tensor(self._fill(table))
        else:
            self._open_shared(table, shared_file)

    def _open_shared(self, table: pd.DataFrame, path: Path) -> None:
        """Fill the file that the processes of a machine share, or wait until another process has filled it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        index = path.with_suffix(".json")
        self._file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")  # noqa: SIM115 (closed by close())
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            if not index.is_file():
                self._map(len(table), "w+")
                labels = self._fill(table)
                self._canvas.flush()
                write_atomically(index, json.dumps({"labels": labels, "failures": self.failures}))
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        content = json.loads(index.read_text())
        self.failures = [(image_id, sentence) for image_id, sentence in content["failures"]]
        self.labels = torch.tensor(content["labels"])
        self._map(len(table), "r")

    def _map(self, count: int, mode: str) -> None:
        side = round(self.input_size * CANVAS)
        shape = (max(1, count), side, side, 3)
        if mode != "r" and hasattr(os, "posix_fallocate"):
            # Without this, the first write to a page that has no room on the disk would kill the process.
            try:
                os.posix_fallocate(self._file.fileno(), 0, math.prod(shape))
            except OSError as error:
                raise StorageError(
                    f"the decoded training images cannot have {math.prod(shape) / 1e9:.3g} GB in the cache folder "
                    f"({error.strerror}): make room, or choose another with cache=… or CNNSENS_CACHE"
                ) from None
        self._canvas = np.memmap(self._file, np.uint8, mode, shape=shape)  # type: ignore[call-overload]

    def _fill(self, table: pd.DataFrame) -> list[int]:
        labels: list[int] = []
        rows = table.itertuples(index=False)
        for row, result in zip(table.itertuples(index=False), self._pool.map(self._decode, rows), strict=True):
            if isinstance(result, str):
                self.failures.append((str(row.image_id), result))
            else:
                self._canvas[len(labels)] = result
                labels.append(int(row.label))
        return labels

    def _decode(self, row: tuple) -> np.ndarray | str:
        uri, box = row.uri, (row.box_x, row.box_y, row.box_w, row.box_h)  # type: ignore[attr-defined]
        try:
            return images.render(images.decode(uri, box, shift=0), self._canvas.shape[1])
        except ImageError as error:
            return str(error)

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self, recipe: Recipe, rng: np.random.Generator, share: Share = WHOLE
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of one epoch in random order.

        The last batch is dropped when it is not whole, unless it is the only one.

        Parameters
        ----------
        recipe
            Batch size, smallest crop and mirroring.
        rng
            What order, crops and mirroring are drawn from.
        share
            Only this part of each batch is prepared. The parts of all processes together are the batch that one
            process alone would see.

        Yields
        ------
        tuple of Tensor
            Pixels of shape (B, 3, S, S), uint8 in channels_last memory, and labels of shape (B,).
        """
        order = rng.permutation(len(self))
        size = min(recipe.batch_size, len(self))
        batches = [order[i : i + size] for i in range(0, len(order) - size + 1, size)]
        seeds = rng.integers(2**63, size=len(batches))
        # One batch is prepared while another is trained on.
        with ThreadPoolExecutor(1) as ahead:
            waiting = [ahead.submit(self._batch, batches[0], recipe, seeds[0], share)]
            for i in range(len(batches)):
                if i + 1 < len(batches):
                    waiting.append(ahead.submit(self._batch, batches[i + 1], recipe, seeds[i + 1], share))
                pixels = torch.from_numpy(waiting.pop(0).result()).permute(0, 3, 1, 2)
                yield pixels, self.labels[torch.from_numpy(share.take(batches[i]))]

    def _batch(self, indices: np.ndarray, recipe: Recipe, seed: int, share: Share) -> np.ndarray:
        rng = np.random.default_rng(seed)
        # Drawn for the whole batch, so that a share sees what one process alone would see.
        crops = [random_crop(self._canvas.shape[1], recipe.min_area, rng) for _ in indices]
        flips = rng.random(len(indices)) < 0.5 if recipe.flip else np.zeros(len(indices), bool)
        views = self._pool.map(self._view, share.take(indices), share.take(crops), share.take(flips))
        return np.stack(list(views))

    def _view(self, index: int, crop: images.Box, flip: bool) -> np.ndarray:
        x, y, w, h = crop
        image = Image.fromarray(self._canvas[index])
        size = (self.input_size, self.input_size)
        view = np.asarray(image.resize(size, Image.Resampling.BICUBIC, box=(x, y, x + w, y + h)))
        return view[:, ::-1] if flip else view

    def close(self) -> None:
        """Give the disk space of the decoded images back, except for that of a shared file."""
        self._pool.shutdown()
        self._file.close()


def random_crop(side: int, min_area: float, rng: np.random.Generator) -> images.Box:
    """Draw a box in a square of `side` pixels.

    Its share of the area is uniform in [min_area, 1], its aspect log-uniform in [3/4, 4/3], and both are cut where the
    box would leave the square.

    Returns
    -------
    Box
        (x, y, width, height) in pixels.
    """
    area = rng.uniform(min_area, 1)
    stretch = np.exp(rng.uniform(-0.5, 0.5) * np.log(16 / 9)) ** 0.5
    w, h = min(1.0, area**0.5 * stretch), min(1.0, area**0.5 / stretch)
    return (rng.uniform(0, 1 - w) * side, rng.uniform(0, 1 - h) * side, w * side, h * side)
