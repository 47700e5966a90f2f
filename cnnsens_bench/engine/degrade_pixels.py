"""Degrades images that are in memory, outside of any run, with the draws that a run would have."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from cnnsens_bench.degradations import parse_degradation
from cnnsens_bench.engine.degrade import Degrader
from cnnsens_bench.engine.sweep import Condition, Sweep
from cnnsens_bench.images import Decoded
from cnnsens_bench.utils.errors import UserError


def degrade_pixels(
    pixels: np.ndarray,
    expression: str,
    level: float | None,
    *,
    seed: int,
    trial: int,
    image_ids: Sequence[str],
    dataset: str,
) -> np.ndarray:
    """Return images under a degradation, clamped to [0, 255] and not rounded.

    An image that is not square is degraded within the smallest square around it, whose rest mirrors the image.

    Parameters
    ----------
    pixels
        (N, H, W, 3), uint8 or floating-point in [0, 255]. A geometric degradation resamples 8-bit pixels, so it rounds
        others first.
    expression
        The degradation, as a config writes it.
    level
        Its level; None for a degradation without levels.
    seed, trial, image_ids, dataset
        What decides the draws: they are those of a run with the same four and an input of this size.

    Returns
    -------
    numpy.ndarray
        (N, H, W, 3) float32.

    Raises
    ------
    UserError
        If there is no such degradation or level, or it fails.
    """
    degradation = parse_degradation(expression)
    if degradation.has_levels and level is None:
        known = ", ".join(f"{one:g}" for one in degradation.levels)
        raise UserError(
            f"degradation '{degradation.name}' needs a level: give level=<number>"
            + (f", such as one of {known}" if known else "")
        )
    if not degradation.has_levels and level is not None:
        raise UserError(f"degradation '{degradation.name}' has no levels: leave level out")
    if not isinstance(trial, int) or trial < 0:
        raise UserError(f"trial is {trial!r}: it must be a whole number from 0")
    levels = degradation.resolve_levels(None if level is None else (level,))
    count, height, width = pixels.shape[:3]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    around = ((0, 0), (top, side - height - top), (left, side - width - left), (0, 0))
    square = np.ascontiguousarray(np.pad(pixels, around, mode="symmetric"))
    whole = square if square.dtype == np.uint8 else np.rint(square).astype(np.uint8)
    box = (0.0, 0.0, float(side), float(side))
    decoded = [Decoded(one, 0, 0, side, side, box) for one in whole]
    sweep = Sweep("degrade", dataset, (), (), seed=seed)
    with ThreadPoolExecutor(2) as pool, torch.inference_mode():
        degrader = Degrader(sweep, side, image_ids, decoded, torch.device("cpu"), pool)
        if square.dtype != np.uint8:
            degrader.pixels = torch.from_numpy(square.astype(np.float32)).permute(0, 3, 1, 2)
        rows = [np.zeros(0, int)] * trial + [np.arange(count)]
        result = np.empty((count, side, side, 3), np.float32)
        for _, some, positions in degrader.run(Condition(degradation.name, levels, trial + 1), rows):
            if not some.isfinite().all():
                raise UserError(f"degradation '{degradation.name}' returned numbers that are not finite")
            result[positions] = some.float().clamp(0, 255).permute(0, 2, 3, 1).numpy()
    degrader.require_success()
    return result[:, top : top + height, left : left + width]
