"""The noise of Hendrycks & Dietterich (2019), as formulas of one value (see `kernels/pixelwise.py`)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from cnnsens_bench.degradations.base import normal_per_value, uniform_per_value
from cnnsens_bench.degradations.imagenet_c.severity import common
from cnnsens_bench.degradations.kernels.photons import photon_noise
from cnnsens_bench.degradations.kernels.pixelwise import Maths, ValueFormula, valuewise

ZERO, HALF, ONE, FULL = (np.float32(value) for value in (0, 0.5, 1, 255))


@common((0.08, 0.12, 0.18, 0.26, 0.38), draw=normal_per_value)
@valuewise
def gaussian_noise(maths: Maths) -> ValueFormula:
    """Add N(0, deviation²) to every value of an image in [0, 1]."""
    return lambda given, normal, deviation: normal * (deviation * FULL) + given


def mean_photons(maths: Maths) -> Callable[[Any, Any], Any]:
    """Return the formula: (value in [0, 255], photons at white) → the mean number of photons."""
    quotient = maths.quotient
    return lambda given, photons: quotient(given, FULL) * photons


def counted_value(maths: Maths) -> Callable[[Any, Any], Any]:
    """Return the formula: (counted photons, photons at white) → value."""
    return lambda count, photons: count / photons * FULL


counted = photon_noise(mean_photons, counted_value)


@common((60, 25, 12, 5, 3), draw=uniform_per_value)
def shot_noise(pixels: Tensor, draw: Tensor, photons: float) -> Tensor:
    """Count photons: a value in [0, 1] becomes a Poisson count with the mean value · photons, divided by photons.

    Unlike the degradation `shot_noise`, it does not undo the sRGB curve.
    """
    return counted(pixels, draw, photons)


@common((0.03, 0.06, 0.09, 0.17, 0.27), draw=uniform_per_value)
@valuewise
def impulse_noise(maths: Maths) -> ValueFormula:
    """Set each value to 0 or 255, both with probability amount / 2."""
    where = maths.where

    # Numbers below amount/2 give pepper and those from 1 − amount/2 salt, so that severities are nested.
    def value(given, uniform, amount):  # type: ignore[no-untyped-def]
        noisy = where(uniform < amount * HALF, ZERO, given)
        return where(uniform >= ONE - amount * HALF, FULL, noisy)

    return value
