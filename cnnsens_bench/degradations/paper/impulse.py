"""Impulse noise (paper, section 2).

The functions here return formulas of one value or pixel, which `kernels/pixelwise.py` compiles; that module explains
the form, and that a plain torch function is a degradation too.
"""

import numpy as np

from cnnsens_bench.degradations.base import degradation, uniform_per_pixel, uniform_per_value
from cnnsens_bench.degradations.kernels.pixelwise import Maths, PixelFormula, ValueFormula, pixelwise, valuewise

PROBABILITIES = (0.001, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
ZERO = np.float32(0)


@degradation("pepper", draw=uniform_per_value, levels=PROBABILITIES, level_name="p", high=1.0)
@valuewise
def pepper(maths: Maths) -> ValueFormula:
    """Set each channel value of each pixel to 0 with probability p, independently."""
    where = maths.where
    return lambda given, uniform, p: where(uniform >= p, given, ZERO)


@degradation("pepper_pixel", draw=uniform_per_pixel, levels=PROBABILITIES, level_name="p", high=1.0)
@pixelwise
def pepper_pixel(maths: Maths) -> PixelFormula:
    """Turn each pixel black with probability p (the form that section 4 of the paper analyses)."""
    where = maths.where

    def pixel(red, green, blue, uniform, p):  # type: ignore[no-untyped-def]
        kept = uniform >= p
        return where(kept, red, ZERO), where(kept, green, ZERO), where(kept, blue, ZERO)

    return pixel
