"""Noise of Hendrycks & Dietterich (2019)."""

import numpy as np

from cnnsens_bench.degradations.base import normal_per_value, uniform_per_value
from cnnsens_bench.degradations.imagenet_c.severity import common
from cnnsens_bench.degradations.kernels.pixelwise import Maths, Value, valuewise
from cnnsens_bench.degradations.kernels.poisson import quantile

ZERO, HALF, ONE, FULL = (np.float32(value) for value in (0, 0.5, 1, 255))


@common((0.08, 0.12, 0.18, 0.26, 0.38), draw=normal_per_value)
@valuewise
def gaussian_noise(maths: Maths) -> Value:
    """N(0, deviation²) on every value of an image in [0, 1]."""

    def value(given, normal, deviation):  # type: ignore[no-untyped-def]
        return normal * (deviation * FULL) + given

    return value


@common((60, 25, 12, 5, 3), draw=uniform_per_value)
@valuewise
def shot_noise(maths: Maths) -> Value:
    """Every value a Poisson count, its mean the image in [0, 1] times the parameter; no linear light."""
    count, quotient = maths.function(quantile(maths)), maths.quotient

    def value(given, uniform, photons):  # type: ignore[no-untyped-def]
        return count(quotient(given, FULL) * photons, uniform) / photons * FULL

    return value


@common((0.03, 0.06, 0.09, 0.17, 0.27), draw=uniform_per_value)
@valuewise
def impulse_noise(maths: Maths) -> Value:
    """Each value 0 or 255, half of them each, with probability `amount`."""
    where = maths.where

    # The draw's ends: below amount/2 pepper, from 1 − amount/2 salt, so that severities are nested.
    def value(given, uniform, amount):  # type: ignore[no-untyped-def]
        noisy = where(uniform < amount * HALF, ZERO, given)
        return where(uniform >= ONE - amount * HALF, FULL, noisy)

    return value
