"""`common:frost` with ice from photographs, as in ImageNet-C; `weather.py` has the one with generated ice."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from cnnsens_bench.degradations.base import Degradation, degradations
from cnnsens_bench.degradations.imagenet_c.severity import PREFIX
from cnnsens_bench.degradations.imagenet_c.weather import FROST
from cnnsens_bench.degradations.streams import Streams
from cnnsens_bench.utils.transfer import upload

NAME = f"{PREFIX}frost"


def crop_draw(streams: Streams, size: int) -> Tensor:
    """Draw which photograph is taken, and the top and left of the crop: (N, 3) uniform in [0, 1), on the host."""
    return streams.on("cpu").uniform(3)


def photographed_frost(photographs: Callable[[int], Sequence[np.ndarray]]) -> Degradation:
    """Return `common:frost` with photographs of ice in place of the generated one.

    Each image gets a crop, at a random position, of a random photograph. One draw serves all severities.

    Parameters
    ----------
    photographs
        Gives the photographs for square images of so many pixels a side: each (height, width, 3) RGB uint8 with both
        sides larger than that. It is called when the degradation is applied, so that a plan need not read them.

    Returns
    -------
    Degradation
        It has the name and the levels of the registered one.
    """

    def frost(pixels: Tensor, draw: Tensor, level: float) -> Tensor:
        image_weight, ice_weight = FROST[int(level) - 1]
        size = pixels.shape[-1]
        choices = photographs(size)
        ice = np.stack([_crop(choices, numbers, size) for numbers in draw.tolist()])
        layer = upload(ice, pixels.device).permute(0, 3, 1, 2).to(pixels.dtype)
        return pixels * image_weight + layer * ice_weight

    return dataclasses.replace(degradations[NAME], function=frost, draw_function=crop_draw)


def _crop(photographs: Sequence[np.ndarray], numbers: Sequence[float], size: int) -> np.ndarray:
    """Return the part of a photograph that three numbers in [0, 1) choose: (size, size, 3)."""
    which, down, across = numbers
    photograph = photographs[int(which * len(photographs))]
    top, left = int(down * (photograph.shape[0] - size)), int(across * (photograph.shape[1] - size))
    return photograph[top : top + size, left : left + size]
