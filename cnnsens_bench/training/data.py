"""Training batches: each image is decoded once, its box kept on disk a little larger than the network's input."""

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
from cnnsens_bench.utils.errors import ImageError, StorageError

CANVAS = 1.4
"""Side of the kept box over the network's input: what a crop of half the area needs to lose no detail."""


@dataclass(frozen=True)
class Share:
    """One of `count` processes that train a network together."""

    rank: int = 0
    count: int = 1

    def of(self, batch: Any) -> Any:
        """Its part of a batch's sequence."""
        return batch[self.rank :: self.count]


class TrainingImages:
    """The boxes of a split as one memory-mapped array, so that memory does not grow with the data set.

    `labels`: (N,) int64 of the readable images; `failures`: (image_id, sentence) of the others. `keep`: the path of a
    file that outlives this object, filled by the first process that comes and shared by all that come after; without
    it the file is a nameless one in `folder`.
    """

    def __init__(self, table: pd.DataFrame, input_size: int, folder: Path, keep: Path | None = None) -> None:
        self.input_size = input_size
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self.failures: list[tuple[str, str]] = []
        if keep is None:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed by close())
            self._map(len(table), "w+")
            self.labels = torch.tensor(self._fill(table))
            return
        keep.parent.mkdir(parents=True, exist_ok=True)
        index = keep.with_suffix(".json")
        self._file = open(os.open(keep, os.O_RDWR | os.O_CREAT, 0o666), "r+b")  # noqa: SIM115 (closed by close())
        # One process a machine fills it; the others wait here.
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            if not index.is_file():
                self._map(len(table), "w+")
                labels = self._fill(table)
                self._canvas.flush()
                partial = index.with_suffix(".partial")
                partial.write_text(json.dumps({"labels": labels, "failures": self.failures}))
                partial.replace(index)
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
            # A page that finds no room on the disk later on would kill the process.
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
        self, recipe: Recipe, rng: np.random.Generator, share: Share | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch in random order: (B, 3, S, S) uint8 in channels_last memory, (B,) labels.

        The last batch is dropped when it is not whole, unless it is the only one. `share`: only that part of each
        batch; the parts of all processes are the batch that one process would see.
        """
        share = share or Share()
        order = rng.permutation(len(self))
        size = min(recipe.batch_size, len(self))
        chunks = [order[i : i + size] for i in range(0, len(order) - size + 1, size)]
        seeds = rng.integers(2**63, size=len(chunks))
        # One batch is prepared while another is trained on.
        with ThreadPoolExecutor(1) as ahead:
            waiting = [ahead.submit(self._batch, chunks[0], recipe, seeds[0], share)]
            for i in range(len(chunks)):
                if i + 1 < len(chunks):
                    waiting.append(ahead.submit(self._batch, chunks[i + 1], recipe, seeds[i + 1], share))
                pixels = torch.from_numpy(waiting.pop(0).result()).permute(0, 3, 1, 2)
                yield pixels, self.labels[torch.from_numpy(share.of(chunks[i]))]

    def _batch(self, chunk: np.ndarray, recipe: Recipe, seed: int, share: Share) -> np.ndarray:
        rng = np.random.default_rng(seed)
        crops = [random_crop(self._canvas.shape[1], recipe.min_area, rng) for _ in chunk]
        flips = rng.random(len(chunk)) < 0.5 if recipe.flip else np.zeros(len(chunk), bool)
        # Drawn for the whole batch, so that a share sees what one process would.
        views = self._pool.map(self._view, share.of(chunk), share.of(crops), share.of(flips))
        return np.stack(list(views))

    def _view(self, index: int, crop: images.Box, flip: bool) -> np.ndarray:
        x, y, w, h = crop
        image = Image.fromarray(self._canvas[index])
        size = (self.input_size, self.input_size)
        view = np.asarray(image.resize(size, Image.Resampling.BICUBIC, box=(x, y, x + w, y + h)))
        return view[:, ::-1] if flip else view

    def close(self) -> None:
        """Give the disk space back."""
        self._pool.shutdown()
        self._file.close()


def random_crop(side: int, min_area: float, rng: np.random.Generator) -> images.Box:
    """A random box in a square of `side`: area uniform in [min_area, 1], aspect log-uniform in [3/4, 4/3]."""
    area = rng.uniform(min_area, 1)
    stretch = np.exp(rng.uniform(-0.5, 0.5) * np.log(16 / 9)) ** 0.5
    w, h = min(1.0, area**0.5 * stretch), min(1.0, area**0.5 / stretch)
    return (rng.uniform(0, 1 - w) * side, rng.uniform(0, 1 - h) * side, w * side, h * side)
