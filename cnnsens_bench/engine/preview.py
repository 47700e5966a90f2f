"""Pictures of one image under degradations, as a network sees it in a run, for a person to look at."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from cnnsens_bench import images
from cnnsens_bench.engine.degrade import Degrader
from cnnsens_bench.engine.plan import Condition, Sweep
from cnnsens_bench.utils.errors import UserError


def previews(
    image: images.Decoded, image_id: str, dataset: str, conditions: Sequence[Condition], size: int, seed: int = 0
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

    Raises
    ------
    UserError
        If a degradation fails.
    """
    sweep = Sweep("preview", dataset, (), (), seed=seed)
    with ThreadPoolExecutor(1) as pool:
        degrader = Degrader(sweep, size, [image_id], [image], torch.device("cpu"), pool)
        for condition in conditions:
            tiles = []
            with torch.inference_mode():
                for _, pixels, _ in degrader.run(condition, [np.zeros(1, int)] * len(condition.levels)):
                    if not pixels.isfinite().all():
                        raise UserError(f"degradation '{condition.degradation}' returned numbers that are not finite")
                    tiles.append(pixels[0].clamp(0, 255).round().byte().permute(1, 2, 0).numpy())
            if degrader.failures:
                sentence = degrader.failures[0][2]
                raise UserError(f"degradation {sentence}" if sentence.startswith("'") else sentence)
            yield tiles
