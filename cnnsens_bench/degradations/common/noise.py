"""Noise of Hendrycks & Dietterich (2019)."""

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.degradations.base import normal_per_value, uniform_per_value
from cnnsens_bench.degradations.common.severity import common
from cnnsens_bench.degradations.pixelwise import Maths, Value, valuewise
from cnnsens_bench.degradations.poisson import quantile


@common((0.08, 0.12, 0.18, 0.26, 0.38), draw=normal_per_value)
def gaussian_noise(pixels: Tensor, draw: Tensor, deviation: float) -> Tensor:
    """N(0, deviation²) on every value of an image in [0, 1]."""
    return (draw * (255 * deviation)).add_(pixels)


@common((60, 25, 12, 5, 3), draw=uniform_per_value)
@valuewise
def shot_noise(maths: Maths) -> Value:
    """Every value a Poisson count, its mean the image in [0, 1] times the parameter; no linear light."""
    count = maths.function(quantile(maths))
    full = np.float32(255)

    def value(pixel, u, photons):  # type: ignore[no-untyped-def]
        return count(pixel / full * photons, u) / photons * full

    return value


@common((0.03, 0.06, 0.09, 0.17, 0.27), draw=uniform_per_value)
def impulse_noise(pixels: Tensor, draw: Tensor, amount: float) -> Tensor:
    """Each value 0 or 255, half of them each, with probability `amount`."""
    # The draw's ends: below amount/2 pepper, from 1 − amount/2 salt, so that severities are nested.
    noisy = torch.where(draw < amount / 2, 0.0, pixels)
    return torch.where(draw >= 1 - amount / 2, 255.0, noisy)
