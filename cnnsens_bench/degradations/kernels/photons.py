"""Photon noise of images: a Poisson count for each value, fast where values are whole numbers.

The undegraded pixels of an image are whole numbers from 0 to 255, so a level has 256 means λ. The counts of each are
looked up in a table of the uniform numbers at which the count rises, which `poisson.quantile` decides. Other values,
and means above `TABLED`, are computed one by one. The bits are the same.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.degradations.kernels import pixelwise
from cnnsens_bench.degradations.kernels.pixelwise import TENSORS, Maths, scalar_maths
from cnnsens_bench.degradations.kernels.poisson import INVERSE, LARGE, MAX_COUNT, NEGLIGIBLE, NORMAL, parts, quantile
from cnnsens_bench.degradations.streams import NORMAL_BINS
from cnnsens_bench.utils.compiled_loops import keep_code
from cnnsens_bench.utils.cpu_libraries import numba
from cnnsens_bench.utils.transfer import scalar

ToRate = Callable[[Maths], Callable[[Any, Any], Any]]
"""maths → the formula (value, level) → λ."""
ToValue = Callable[[Maths], Callable[[Any, Any], Any]]
"""maths → the formula (count, level) → value."""

TABLED = np.float32(100)
"""The largest mean whose counts are tabled. Up to it a larger normal number never gives a smaller count: the steps
between numbers outweigh the rounding of the expansion."""
WIDTH = 128
"""The number of counts that a mean up to `TABLED` can have, at most."""
BUCKETS = 1024
"""The parts of [0, 1) for which the table holds the count at their beginning."""
COUNTS = 256
"""The number of counts, from 0, whose values are tabled."""
VALUES = 256


class Tables(NamedTuple):
    """What a level's counts are looked up in.

    `rates` are the means of the values 0 to 255. `lowest` is the smallest count of each, or −1 where it is not tabled.
    `limits`, (256, WIDTH), are the uniform numbers from which on the count is larger by 1, 2, …; `steps`,
    (256, BUCKETS), says how many of them lie at or below the beginning of each bucket. `results` are the values of the
    counts 0 to COUNTS − 1.
    """

    rates: np.ndarray
    lowest: np.ndarray
    limits: np.ndarray
    steps: np.ndarray
    results: np.ndarray


def photon_noise(to_rate: ToRate, to_value: ToValue) -> Callable[[Tensor, Tensor, float], Tensor]:
    """Return the function of a degradation that replaces each value by that of a Poisson count.

    Parameters
    ----------
    to_rate
        Gives the formula of the mean count: (value, level) → λ.
    to_value
        Gives the formula of the result: (count, level) → value.

    Returns
    -------
    function
        (pixels, draw, level) → pixels, where the draw is uniform in [0, 1) and has the shape of the pixels.
    """
    compiled = functools.cache(lambda: _compiled(to_rate, to_value))

    @functools.lru_cache(maxsize=16)
    def tables(level: float) -> Tables:
        return compiled()[0](np.float32(level))

    def apply(pixels: Tensor, draw: Tensor, level: float) -> Tensor:
        if not pixelwise.on_cpu(pixels):
            on_device = scalar(level, pixels.device)
            counts = quantile(TENSORS)(to_rate(TENSORS)(pixels, on_device), draw)
            return to_value(TENSORS)(counts, on_device)
        source, out, target = pixelwise.flat_images(pixels)
        numbers = draw.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).flatten(1).numpy()
        loop, own, strength = compiled()[1], tables(level), np.float32(level)
        size = source.shape[1] // 3
        pixelwise.share(len(pixels), size, lambda a, b: loop(source, numbers, strength, *own, target, a, b))
        return out

    return apply


def _compiled(to_rate: ToRate, to_value: ToValue) -> tuple[Callable[[Any], Tables], Any]:
    maths = scalar_maths()
    rate_of, value_of = maths.function(to_rate(maths)), maths.function(to_value(maths))
    exact = numba.njit(error_model="numpy")(quantile(maths))
    zero_probability, large_quantile = parts(maths)

    @numba.njit(error_model="numpy")
    def fill(level, rates, lowest, limits, steps, results):  # type: ignore[no-untyped-def]
        for value in range(VALUES):
            rate = rate_of(np.float32(value), level)
            rates[value] = rate
            lowest[value] = -1
            if rate < LARGE:
                lowest[value] = 0
                _sums(rate, zero_probability(rate), limits[value])
            elif rate <= TABLED:
                lowest[value] = int(large_quantile(rate, NORMAL[0]))
                most = int(large_quantile(rate, NORMAL[NORMAL_BINS - 1]))
                for k in range(most - lowest[value]):
                    # Find the first bin of the normal distribution whose count is above the k-th.
                    low, high = 0, NORMAL_BINS - 1
                    while high - low > 1:
                        middle = (low + high) // 2
                        if large_quantile(rate, NORMAL[middle]) > lowest[value] + k:
                            high = middle
                        else:
                            low = middle
                    limits[value, k] = np.float32(high) / np.float32(NORMAL_BINS)
            count = 0
            for bucket in range(BUCKETS):
                while limits[value, count] <= np.float32(bucket) / np.float32(BUCKETS):
                    count += 1
                steps[value, bucket] = count
        for count in range(COUNTS):
            results[count] = value_of(np.float32(count), level)

    def tables(level: Any) -> Tables:
        made = Tables(
            np.empty(VALUES, np.float32),
            np.empty(VALUES, np.int32),
            np.full((VALUES, WIDTH), np.inf, np.float32),
            np.empty((VALUES, BUCKETS), np.uint8),
            np.empty(COUNTS, np.float32),
        )
        keep_code(fill, to_rate, to_value)(level, *made)
        return made

    @numba.njit(nogil=True, error_model="numpy")
    def loop(source, numbers, level, rates, lowest, limits, steps, results, target, first, last):  # type: ignore[no-untyped-def]
        for image in range(first, last):
            given, uniform, result = source[image], numbers[image], target[image]
            for i in range(len(given)):
                value, u = np.uint8(given[i]), uniform[i]
                whole = np.float32(value) == given[i]
                if whole and lowest[value] >= 0:
                    above = np.int64(steps[value, np.int64(u * np.float32(BUCKETS))])
                    while limits[value, above] <= u:
                        above += 1
                    result[i] = results[lowest[value] + above]
                else:
                    rate = rates[value] if whole else rate_of(given[i], level)
                    result[i] = value_of(exact(rate, u), level)

    return tables, keep_code(loop, to_rate, to_value)


@keep_code
@numba.njit(error_model="numpy")
def _sums(rate, term, limits):  # type: ignore[no-untyped-def]
    """Write the distribution function at 0, 1, … as far as `quantile` sums it up."""
    total, count = term, 0
    while term > NEGLIGIBLE and count < MAX_COUNT:
        limits[count] = total
        count += 1
        term = term * (rate * INVERSE[count])
        total = total + term
