"""The quantile function of the Poisson distribution: a count of photons from its mean λ and a uniform number u.

One uniform number serves every λ, so that a brighter image or a larger level never gets fewer photons from the same
draw. Below λ = `LARGE` the probabilities are summed up; from there on a Cornish-Fisher expansion is used, whose error
is smaller than the rounding to a whole number. Only additions, products, quotients and roots occur, which IEEE defines
to the bit.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.degradations.kernels.pixelwise import Maths
from cnnsens_bench.degradations.streams import NORMAL_BINS, normal_table
from cnnsens_bench.utils.transfer import constant

LARGE = np.float32(16)
MAX_COUNT = 64
"""The largest count for λ below `LARGE`; larger ones have a probability of 1e-17."""
NEGLIGIBLE = np.float32(2**-30)
"""The probability at which the sum ends, because in float32 it may never reach the largest u."""

# These are the Taylor coefficients of exp(−x) about 1/2, for the sixteenth root of exp(−λ).
TERMS = tuple(np.float32(np.exp(-0.5) * (-1) ** i / float(np.prod(np.arange(1, i + 1)))) for i in range(8))
# Rounding adds 1/12 to the variance and takes 1/120 from the fourth cumulant (Sheppard's corrections).
TWELFTH, HUNDRED_TWENTIETH = np.float32(1 / 12), np.float32(1 / 120)
HALF, ONE, TWO, THREE, FIVE = (np.float32(value) for value in (0.5, 1, 2, 3, 5))
SIXTH, C24, C36, SIXTEENTH = (np.float32(value) for value in (1 / 6, 1 / 24, 1 / 36, 1 / 16))
BINS = np.float32(NORMAL_BINS)
NORMAL = normal_table()
INVERSE = np.array([0, *(1 / np.arange(1, MAX_COUNT + 1))], np.float32)


def quantile(maths: Maths) -> Callable[[Any, Any], Any]:
    """Return the formula (λ, u) → the smallest whole number whose distribution function is above u.

    λ is at least 0, and u is in [0, 1).
    """
    zero_probability, large_quantile = parts(maths)

    if maths.scalar:

        def formula(rate, u):  # type: ignore[no-untyped-def]
            if rate >= LARGE:
                return large_quantile(rate, NORMAL[int(u * BINS)])
            term = zero_probability(rate)
            total = term
            count = 0
            while u >= total and term > NEGLIGIBLE and count < MAX_COUNT:
                count += 1
                term = term * (rate * INVERSE[count])
                total = total + term
            return np.float32(count)

        return formula

    def tensor_formula(rate: Tensor, u: Tensor) -> Tensor:
        few = rate.clamp(max=float(LARGE))
        term = zero_probability(few)
        total, count = term, torch.zeros_like(u)
        for n in range(1, MAX_COUNT + 1):
            count = count + ((u >= total) & (term > float(NEGLIGIBLE)))
            term = term * (few * float(INVERSE[n]))
            total = total + term
        normal = constant(NORMAL, u.device)[(u * float(BINS)).long()]
        return torch.where(rate >= float(LARGE), large_quantile(rate.clamp(min=float(LARGE)), normal), count)

    return tensor_formula


def parts(maths: Maths) -> tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]:
    """Return the formulas λ → exp(−λ) for λ up to `LARGE`, and (λ, normal number) → the count from there on."""
    floor, root = maths.floor, maths.root
    t0, t1, t2, t3, t4, t5, t6, t7 = TERMS

    @maths.function
    def zero_probability(rate):  # type: ignore[no-untyped-def]
        x = rate * SIXTEENTH - HALF
        p = t0 + x * (t1 + x * (t2 + x * (t3 + x * (t4 + x * (t5 + x * (t6 + x * t7))))))
        p = p * p
        p = p * p
        p = p * p
        return p * p

    @maths.function
    def large_quantile(rate, z):  # type: ignore[no-untyped-def]
        s = root(rate - TWELFTH)
        square = z * z
        skew = rate / (s * s * s)
        kurtosis = (rate + HUNDRED_TWENTIETH) / (s * s * s * s)
        bend = skew * (square - ONE) * SIXTH
        bend = bend + kurtosis * z * (square - THREE) * C24 - skew * skew * z * (TWO * square - FIVE) * C36
        return floor(rate + s * (z + bend) + HALF)

    return zero_probability, large_quantile
