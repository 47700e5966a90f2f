"""The degraded pixels of one chunk of images at one input size, and what could not be degraded."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench import images
from cnnsens_bench.degradations import Degradation, Streams, parse_degradation
from cnnsens_bench.degradations.base import draw_rows
from cnnsens_bench.engine.plan import Condition, Sweep

FAILED = object()

Failure = tuple[int, str, str]
"""The position of an image in its chunk, the stage it failed at, and a sentence."""


class Degrader:
    """Renders and degrades a chunk. `pixels` (N, 3, size, size) are the undegraded ones; `failures`: of the last run.

    A degradation that raises fails on those images alone that it raises on; the others go on.
    """

    def __init__(
        self,
        sweep: Sweep,
        size: int,
        image_ids: Sequence[str],
        decoded: Sequence[images.Decoded],
        device: torch.device,
        pool: Executor,
    ) -> None:
        self.sweep, self.size, self.image_ids, self.decoded = sweep, size, image_ids, decoded
        self.device, self.pool = device, pool
        self.failures: list[Failure] = []
        self.pixels = self._to_device(list(pool.map(lambda image: images.render(image, size), decoded)))

    def run(self, condition: Condition, rows: Sequence[np.ndarray]) -> Iterator[tuple[int, Tensor, np.ndarray]]:
        """The cells of a condition, trial by trial: (cell's position, its pixels not yet clamped, their rows).

        `rows[cell]`: the positions of the images that are wanted; a cell that nobody wants is left out.
        """
        self.failures = []
        degradation = parse_degradation(condition.degradation)
        # (cell, its level, the rows and the draw of its trial); drawn as they are reached, two trials at most at once.
        jobs = self._jobs(degradation, condition, rows)
        if not degradation.geometric:
            for cell, level, of_trial, draw in jobs:
                kept = of_trial
                if len(rows[cell]) < len(of_trial):
                    here = np.flatnonzero(np.isin(of_trial, rows[cell]))
                    kept, draw = of_trial[here], draw_rows(draw, here)
                yield from self._applied(degradation, self.pixels[_span(kept)], draw, level, kept, cell)
            return
        for cell, level, of_trial, draw, pixels in self._views(degradation, jobs, rows):
            yield from self._applied(degradation, pixels, draw, level, of_trial, cell)

    def _jobs(
        self, degradation: Degradation, condition: Condition, rows: Sequence[np.ndarray]
    ) -> Iterator[tuple[int, float, np.ndarray, Any]]:
        width = len(condition.levels)
        for trial in range(condition.trials):
            of_trial = np.unique(np.concatenate(rows[trial * width : (trial + 1) * width]))
            if not len(of_trial):
                continue
            ids = [self.image_ids[i] for i in of_trial]
            streams = Streams(self.sweep.seed, self.sweep.dataset, ids, trial, self.device)
            draw = self._tried(degradation.draw, of_trial, degradation, streams, self.size)
            if draw is FAILED:
                continue
            for i, level in enumerate(condition.levels):
                if len(rows[trial * width + i]):
                    yield trial * width + i, level, of_trial, draw

    def _views(
        self,
        degradation: Degradation,
        jobs: Iterator[tuple[int, float, np.ndarray, Any]],
        rows: Sequence[np.ndarray],
    ) -> Iterator[tuple[int, float, np.ndarray, Any, Tensor]]:
        """The moved boxes, cell by cell, on the device; the next cell's are rendered while one is used."""

        def submit(cell: int, level: float, of_trial: np.ndarray, draw: Any) -> tuple | None:
            here = np.flatnonzero(np.isin(of_trial, rows[cell]))
            kept, own = of_trial[here], draw_rows(draw, here)
            motion = self._tried(degradation.motion, kept, degradation, own, level)
            if motion is FAILED:
                return None
            rendered = [
                self.pool.submit(images.render, self.decoded[i], self.size, *view)
                for i, view in zip(kept, motion.views(len(kept)), strict=True)
            ]
            return cell, level, kept, own, rendered

        waiting = None
        for job in jobs:
            ahead = submit(*job)
            if waiting:
                yield from self._collected(degradation, *waiting)
            waiting = ahead
        if waiting:
            yield from self._collected(degradation, *waiting)

    def _collected(
        self,
        degradation: Degradation,
        cell: int,
        level: float,
        rows: np.ndarray,
        draw: Any,
        rendered: list[Future[np.ndarray]],
    ) -> Iterator[tuple[int, float, np.ndarray, Any, Tensor]]:
        results = [self._tried(future.result, rows[i : i + 1], degradation) for i, future in enumerate(rendered)]
        good = np.flatnonzero([result is not FAILED for result in results])
        if len(good):
            pixels = self._to_device([results[i] for i in good])
            yield cell, level, rows[good], draw if len(good) == len(rows) else draw_rows(draw, good), pixels

    def _applied(
        self, degradation: Degradation, pixels: Tensor, draw: Any, level: float, rows: np.ndarray, cell: int
    ) -> Iterator[tuple[int, Tensor, np.ndarray]]:
        """Degraded together; if that fails, one by one, so that the others go on."""
        together = self._tried(self._apply, rows[:0], degradation, degradation, pixels, draw, level)
        if together is not FAILED:
            yield cell, together, rows
            return
        for i in range(len(rows)):
            one = slice(i, i + 1)
            alone = self._tried(
                self._apply, rows[one], degradation, degradation, pixels[one], draw_rows(draw, one), level
            )
            if alone is not FAILED:
                yield cell, alone, rows[one]

    def _apply(self, degradation: Degradation, pixels: Tensor, draw: Any, level: float) -> Tensor:
        result = degradation.apply(pixels, draw, level)
        check_shape(result, pixels)
        return result

    def _tried(self, work: Callable[..., Any], rows: np.ndarray, degradation: Degradation, *arguments: Any) -> Any:
        """The result of `work(*arguments)`, or `FAILED` and a failure noted for each of `rows`."""
        try:
            return work(*arguments)
        except UNRECOVERABLE:
            raise
        except Exception as error:
            sentence = f"'{degradation.name}' raised {type(error).__name__}: {first_line(error)}"
            self.failures += [(int(row), "degrade", sentence) for row in rows]
            return FAILED

    def _to_device(self, views: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(views)).to(self.device).permute(0, 3, 1, 2).float()


UNRECOVERABLE = (MemoryError, torch.OutOfMemoryError)
"""Not the image's fault: smaller batches may help, the next image will not."""


def check_shape(result: Any, pixels: Tensor) -> None:
    """Raises `ValueError` unless a degradation gave a tensor of its input's shape."""
    if not isinstance(result, Tensor):
        raise ValueError(f"it returned a {type(result).__name__}, not a tensor")
    if result.shape != pixels.shape:
        raise ValueError(f"it returned {tuple(result.shape)} for an input of {tuple(pixels.shape)}")


def first_line(error: BaseException) -> str:
    """Of its message, cut to the length of a sentence."""
    return (str(error).strip().splitlines() or [""])[0][:300]


def _span(rows: np.ndarray) -> Any:
    """A slice where the rows follow each other (a view, no copy), else the rows."""
    return slice(rows[0], rows[-1] + 1) if rows[-1] - rows[0] == len(rows) - 1 else rows
