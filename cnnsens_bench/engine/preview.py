"""One image under degradations, for a person to look at: what a network sees of it in a run."""

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
    """For each condition the pixels of its levels in trial 0, each (size, size, 3) uint8.

    The draws are those of a run with the same `seed`, `dataset` and `image_id`. `image` must be decoded whole, as
    `images.decode` does it unless told otherwise. Raises `UserError` where a degradation fails.
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
