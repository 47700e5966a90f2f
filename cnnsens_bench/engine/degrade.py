"""The degraded pixels of a batch of images at one input size, and what could not be degraded."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench import images
from cnnsens_bench.degradations import Streams
from cnnsens_bench.degradations.base import StoredPicture, draw_rows
from cnnsens_bench.degradations.camera.sensor import jpeg
from cnnsens_bench.engine.frost import GENERATED
from cnnsens_bench.engine.oom_backoff import out_of_memory
from cnnsens_bench.engine.sweep import Condition, Sweep
from cnnsens_bench.utils.errors import ImageError, StorageError, UserError, first_line
from cnnsens_bench.utils.transfer import take_rows, upload

FAILED = object()
"""What stands for the result of a step that raised."""
LONGEST = 300
"""The letters of a library's error message that a failure quotes at most."""

STILL = (0.0, 0.0, 0.0, 0.0)
"""The motion (dx, dy, angle, bend) of a view that is not moved."""

Images = Sequence[images.Decoded]
"""The decoded images of a batch."""

ReadStored = Callable[[str, str, int], images.Decoded | str]
"""(image id, corruption, severity) → the pre-made picture of an image, whole, or the sentence that says why there is
none. It is called in threads. It may raise `StorageError`."""

Failure = tuple[int, str, str]
"""The position of an image in its batch, the stage it failed at, and a sentence."""


class DrawnCell(NamedTuple):
    """A cell of a condition with its random draw.

    `cell` is its position among the condition's cells, `rows` are the positions of its images in the batch, `draw` has
    a row for each of them, and `name` says its level and trial in a sentence.
    """

    cell: int
    level: float
    name: str
    rows: np.ndarray
    draw: Any

    def take(self, index: Any) -> "DrawnCell":
        """Return the cell of some of its images; `index` is a slice or positions among them."""
        return self._replace(rows=self.rows[index], draw=draw_rows(self.draw, index))


class Degrader:
    """Renders and degrades a batch of images. An image that a degradation raises on fails; the others go on.

    Parameters
    ----------
    sweep
        Its seed and dataset name shape the draws.
    size
        The side of the networks' input in pixels.
    image_ids, decoded
        The images.
    device
        Where pixels are degraded.
    pool
        The threads that render views.
    view
        How the networks' library views an image; None for the image's box.
    read_stored
        Reads the pictures of degradations that show pre-made ones; None where there are no files.

    Attributes
    ----------
    pixels
        (N, 3, size, size) float32 in [0, 255]: the undegraded images.
    failures
        What failed in the last `run`.
    """

    def __init__(
        self,
        sweep: Sweep,
        size: int,
        image_ids: Sequence[str],
        decoded: Images,
        device: torch.device,
        pool: Executor,
        view: images.PublishedView | None = None,
        read_stored: ReadStored | None = None,
    ) -> None:
        self.view, self.read_stored = view, read_stored
        self.sweep, self.size, self.image_ids, self.decoded = sweep, size, image_ids, decoded
        self.device, self.pool = device, pool
        self.failures: list[Failure] = []
        self._known_failures: set[tuple[int, str]] = set()
        self.pixels = to_pixels(pool.map(self._render, decoded), device)

    def run(self, condition: Condition, rows: Sequence[np.ndarray]) -> Iterator[tuple[int, Tensor, np.ndarray]]:
        """Yield the cells of a condition, trial by trial.

        Parameters
        ----------
        condition
            The condition to apply.
        rows
            For each cell the positions of the images that are wanted; a cell that no image wants is left out.

        Yields
        ------
        tuple
            The cell's position in the condition, its pixels (n, 3, size, size) before they are clamped to [0, 255], and
            the positions of its images.
        """
        self.failures, self._known_failures = [], set()
        self.degradation = self.sweep.degradation(condition.degradation)
        drawn_cells = self._drawn_cells(condition, rows)  # drawn as they are reached: at most two trials are held
        if self.degradation.geometric or self.degradation.picture(condition.levels[0]):
            for drawn, pixels in self._views(drawn_cells):
                yield from self._applied(drawn, pixels)
        else:
            for drawn in drawn_cells:
                yield from self._applied(drawn, take_rows(self.pixels, drawn.rows))

    def require_success(self) -> None:
        """Raise `UserError` with the first failure of the last `run`, if there was one."""
        if self.failures:
            sentence = self.failures[0][2]
            raise UserError(f"degradation {sentence}" if sentence.startswith("'") else sentence)

    def _drawn_cells(self, condition: Condition, rows: Sequence[np.ndarray]) -> Iterator[DrawnCell]:
        width = len(condition.levels)
        for trial in range(condition.trials):
            of_trial = np.unique(np.concatenate(rows[trial * width : (trial + 1) * width]))
            if not len(of_trial):
                continue
            ids = [self.image_ids[i] for i in of_trial]
            streams = Streams(self.sweep.seed, self.sweep.dataset, ids, trial, self.device)
            draw = self._attempt(f"trial {trial}", of_trial, self.degradation.draw, streams, self.size)
            if draw is FAILED:
                continue
            for cell, level in enumerate(condition.levels, trial * width):
                wanted = rows[cell]
                if not len(wanted):
                    continue
                name = f"level {level:g}, trial {trial}" if self.degradation.has_levels else f"trial {trial}"
                drawn = DrawnCell(cell, level, name, of_trial, draw)
                if len(wanted) < len(of_trial):
                    drawn = self._attempt(name, wanted, drawn.take, np.flatnonzero(np.isin(of_trial, wanted)))
                if drawn is not FAILED:
                    yield drawn

    def _views(self, drawn_cells: Iterator[DrawnCell]) -> Iterator[tuple[DrawnCell, Tensor]]:
        """Yield each cell's moved views or stored pictures; the next cell's are rendered while one is used."""

        def submit(drawn: DrawnCell) -> list[Future[np.ndarray]] | None:
            picture = self.degradation.picture(drawn.level)
            if picture:
                return [self.pool.submit(self._stored_view, self.image_ids[i], picture) for i in drawn.rows]
            moves = self._attempt(drawn.name, drawn.rows, self._moves, drawn)
            if moves is FAILED:
                return None
            moved = zip(drawn.rows, moves, strict=True)
            return [self.pool.submit(self._render, self.decoded[i], move) for i, move in moved]

        waiting = None
        for drawn in drawn_cells:
            ahead = submit(drawn)
            if waiting:
                yield from self._rendered(*waiting)
            waiting = (drawn, ahead) if ahead else None
        if waiting:
            yield from self._rendered(*waiting)

    def _render(self, image: images.Decoded, move: tuple[float, float, float, float] = STILL) -> np.ndarray:
        return images.render(image, self.size, *move, view=self.view)

    def _stored_view(self, image_id: str, picture: StoredPicture) -> np.ndarray:
        """Return an image's stored picture: as it is where it has the input's size, else as the networks view it."""
        if self.read_stored is None:
            raise UserError(
                f"'{self.degradation.name}' shows pictures of a pre-made set, which only the run of a data set pairs "
                "with its images: leave it out here"
            )
        found = self.read_stored(image_id, *picture)
        if isinstance(found, str):
            raise ImageError(f"stored:{picture.corruption} at severity {picture.severity}: {found}")
        if found.pixels.shape[:2] == (self.size, self.size):
            return found.pixels
        if self.view and (refusal := self.view.refusal(found.width, found.height)):
            raise ImageError(f"stored:{picture.corruption} at severity {picture.severity}: {refusal}")
        return self._render(found)

    def _moves(self, drawn: DrawnCell) -> list[tuple[float, float, float, float]]:
        return self.degradation.motion(drawn.draw, drawn.level).views(len(drawn.rows))

    def _rendered(self, drawn: DrawnCell, views: list[Future[np.ndarray]]) -> Iterator[tuple[DrawnCell, Tensor]]:
        results = [self._attempt(drawn.name, drawn.rows[i : i + 1], future.result) for i, future in enumerate(views)]
        good = np.flatnonzero([result is not FAILED for result in results])
        if len(good) < len(results):
            drawn = self._attempt(drawn.name, drawn.rows[good], drawn.take, good)
        if len(good) and drawn is not FAILED:
            yield drawn, to_pixels((results[i] for i in good), self.device)

    def _applied(self, drawn: DrawnCell, pixels: Tensor) -> Iterator[tuple[int, Tensor, np.ndarray]]:
        """Degrade the images of a cell together; if that fails, one by one, so that the others go on."""
        together = self._attempt(drawn.name, (), self._apply, drawn, pixels)
        if together is not FAILED:
            yield drawn.cell, together, drawn.rows
            return
        for i in range(len(drawn.rows)):
            one = slice(i, i + 1)
            each = self._attempt(drawn.name, drawn.rows[one], lambda one=one: self._apply(drawn.take(one), pixels[one]))
            if each is not FAILED:
                yield drawn.cell, each, drawn.rows[one]

    def _apply(self, drawn: DrawnCell, pixels: Tensor) -> Tensor:
        result = self.degradation.apply(pixels, drawn.draw, drawn.level)
        check_result(result, pixels)
        return result

    def _attempt(self, cell: str, rows: Iterable[int], work: Callable[..., Any], *arguments: Any) -> Any:
        """Return `work(*arguments)`, or `FAILED` and note a failure of each of `rows`.

        Of equal failures of an image only the first is noted, with its `cell`.
        """
        try:
            return work(*arguments)
        except StorageError:
            raise  # no image is to blame where a server does not answer
        except ImageError as error:  # it names the picture, which has a failure of its own
            self.failures += [(int(row), "decode", str(error)) for row in rows]
            return FAILED
        except Exception as error:
            if out_of_memory(error) and len(self.image_ids) > 1:
                raise  # the image is not to blame: fewer at a time may help
            sentence = first_line(error, LONGEST)
            if not isinstance(error, UserError):
                sentence = f"'{self.degradation.name}' raised {type(error).__name__}: {sentence}"
            for row in map(int, rows):
                if (row, sentence) not in self._known_failures:
                    self._known_failures.add((row, sentence))
                    self.failures.append((row, "degrade", f"{sentence} (first at {cell})"))
            return FAILED


def to_pixels(views: Iterable[np.ndarray], device: torch.device) -> Tensor:
    """Return rendered views, each (size, size, 3), as (N, 3, size, size) float32 on the device."""
    return upload(np.stack(list(views)), device).permute(0, 3, 1, 2).float()


def previews(
    image: images.Decoded,
    image_id: str,
    dataset: str,
    conditions: Sequence[Condition],
    size: int,
    seed: int = 0,
    frost: str = GENERATED,
) -> Iterator[list[np.ndarray]]:
    """Yield for each condition the pixels of its levels in trial 0, each (size, size, 3) uint8.

    Parameters
    ----------
    image
        The image, decoded whole, which is the default of `images.decode`.
    image_id, dataset, seed
        What shapes the draws: they are those of a run with the same three.
    conditions
        What to show.
    size
        The side of the pictures in pixels.
    frost
        The ice of `common:frost`, as in `Sweep`.

    Raises
    ------
    UserError
        If a degradation fails.
    """
    sweep = Sweep("preview", dataset, (), (), seed=seed, frost=frost)
    with ThreadPoolExecutor(1) as pool:
        degrader = Degrader(sweep, size, [image_id], [image], torch.device("cpu"), pool)
        for condition in conditions:
            tiles = []
            with torch.inference_mode():
                for _, pixels, _ in degrader.run(condition, [np.zeros(1, int)] * len(condition.levels)):
                    if not pixels.isfinite().all():
                        raise UserError(f"degradation '{condition.degradation}' returned numbers that are not finite")
                    tiles.append(pixels[0].clamp(0, 255).round().byte().permute(1, 2, 0).numpy())
            degrader.require_success()
            yield tiles


def digitize(pixels: Tensor, sweep: Sweep) -> Tensor:
    """Round degraded images to 8 bits and store them as JPEG, in place, where the sweep asks for it.

    OpenCV's encoder and Pillow's, which made ImageNet-C, give the same pixels. An image with NaN is left as it is.

    Parameters
    ----------
    pixels
        (N, 3, H, W) in [0, 255].
    sweep
        Its `quantize` and `stored_quality`.

    Returns
    -------
    Tensor
        `pixels`.
    """
    if sweep.quantize:
        pixels.round_()
    if sweep.stored_quality is not None and len(pixels):
        broken = pixels.sum((1, 2, 3), keepdim=True).isnan()
        pixels.copy_(torch.where(broken, pixels, jpeg(pixels, None, sweep.stored_quality)))
    return pixels


def check_result(result: Any, pixels: Tensor) -> None:
    """Raise `ValueError` unless a degradation returned a floating-point tensor of its input's shape."""
    if not isinstance(result, Tensor):
        raise ValueError(f"it returned a {type(result).__name__}, not a tensor")
    if result.shape != pixels.shape:
        raise ValueError(f"it returned {tuple(result.shape)} for an input of {tuple(pixels.shape)}")
    if not result.is_floating_point():  # whole numbers would wrap where they are not clamped
        kind = str(result.dtype).removeprefix("torch.")
        raise ValueError(f"it returned numbers of type {kind}: give floating-point ones, as with .float()")
