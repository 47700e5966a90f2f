"""The pixels of chosen images in chosen cells of a sweep, as its networks see them, without any network."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from cnnsens_bench import images
from cnnsens_bench.engine.degrade import Degrader, ReadStored, digitize
from cnnsens_bench.engine.sweep import Sweep


class CellPixels(NamedTuple):
    """What `cell_pixels` computes.

    Attributes
    ----------
    pixels
        By (position of the image, position of the cell in `Sweep.cells`): (size, size, 3) uint8.
    failures
        A sentence for each failure of an image under a degradation.
    """

    pixels: dict[tuple[int, int], np.ndarray]
    failures: list[str]


def cell_pixels(
    sweep: Sweep,
    size: int,
    image_ids: Sequence[str],
    decoded: Sequence[images.Decoded],
    wanted: np.ndarray,
    *,
    view: images.PublishedView | None = None,
    read_stored: ReadStored | None = None,
) -> CellPixels:
    """Degrade images with the draws of a sweep, before any defense.

    Parameters
    ----------
    sweep
        The sweep, whose draws depend on its seed and dataset.
    size
        The side of the networks' input in pixels.
    image_ids, decoded
        The images, at least one.
    wanted
        (images, cells) bool: which cells of `Sweep.cells` are computed for which image.
    view, read_stored
        As `Degrader` takes them.
    """
    found: dict[tuple[int, int], np.ndarray] = {}
    failures: list[str] = []
    with ThreadPoolExecutor(2) as pool, torch.inference_mode():
        degrader = Degrader(sweep, size, image_ids, decoded, torch.device("cpu"), pool, view, read_stored)

        def keep(cell: int, rows: np.ndarray, pixels: torch.Tensor) -> None:
            shown = pixels.nan_to_num().round().byte().permute(0, 2, 3, 1).numpy()
            found.update({(int(row), cell): picture for row, picture in zip(rows, shown, strict=True)})

        undegraded = np.flatnonzero(wanted[:, 0])
        keep(0, undegraded, degrader.pixels[undegraded])
        for condition, cells in sweep.cells_by_condition():
            rows = [np.flatnonzero(wanted[:, cell]) for cell in cells]
            if not any(map(len, rows)):
                continue
            for position, pixels, here in degrader.run(condition, rows):
                pixels = pixels.float().clamp(0, 255)
                if not degrader.degradation.as_stored:
                    pixels = digitize(pixels, sweep)
                keep(cells[position], here, pixels)
            failures += [f"{image_ids[row]}: {sentence}" for row, _, sentence in degrader.failures]
    return CellPixels(found, failures)
