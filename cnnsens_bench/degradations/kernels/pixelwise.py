"""Formulas of one pixel that run as fast as the memory allows. Plain degradations do not need them.

A torch function such as `pixels + level * draw` is a complete degradation. On a CPU, though, each tensor operation
passes over the whole memory once, and a formula like a turn of the hue takes twenty of them. Here a formula is written
once for one pixel, and runs as one compiled loop on a CPU and as tensor operations on other devices. Both do the same
IEEE operations in the same order and fuse none, so their bits are equal.

    WHITE = np.float32(255)

    @degradation("salt_pixel", draw=uniform_per_pixel, levels=(0.01, 0.1), high=1.0)
    @pixelwise
    def salt_pixel(maths):
        where = maths.where

        def pixel(red, green, blue, number, level):
            kept = number >= level
            return where(kept, red, WHITE), where(kept, green, WHITE), where(kept, blue, WHITE)

        return pixel

The outer function gets `maths`, the operations that exist in both worlds (see `Maths`), and returns the formula. The
formula uses arithmetic, those operations and float32 constants; a Python number would lift the loop to float64.
"""

import functools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.utils.compiled_loops import keep_code
from cnnsens_bench.utils.cpu_libraries import INSTALLED, numba
from cnnsens_bench.utils.transfer import constant, scalar

PixelFormula = Callable[[Any, Any, Any, Any, Any], tuple[Any, Any, Any]]
"""(red, green, blue, number, level) → (red, green, blue) of one pixel, where `number` is from the draw."""

ValueFormula = Callable[[Any, Any, Any], Any]
"""(value, number, level) → value of one channel of one pixel."""

Maths = Any
"""The operations that a formula may call, with the same bits on every device.

They are `minimum(a, b)`, `maximum(a, b)`, `absolute(a)`, `floor(a)`, `root(a)`, `clip(a, low, high)`,
`where(condition, a, b)`, `quotient(a, constant)` and `lookup(table, a)`, which interpolates linearly in a float32 array
at the position a. A function that a formula calls must be wrapped first, `f = maths.function(f)`. The flag
`maths.scalar` is true in a compiled loop, which sees single numbers, and false where the arguments are tensors.
"""

SMALLEST_SHARE = 1 << 15
"""The number of pixels below which another thread costs more time than it saves."""


def on_cpu(pixels: Tensor) -> bool:
    """Return whether compiled loops run on these pixels, and not tensor operations."""
    return INSTALLED and pixels.device.type == "cpu"


def pixelwise(factory: Callable[[Maths], PixelFormula]) -> Callable[[Tensor, Tensor, Any], Tensor]:
    """Turn the factory of a pixel's formula into the function of a degradation; used as a decorator.

    Parameters
    ----------
    factory
        `maths -> formula`, where the formula computes a pixel's three channels from each other.

    Returns
    -------
    function
        (pixels, draw, level) → pixels; the draw has one number per pixel, (N, 1, H, W), or per image, (N, 1, 1, 1).
        The level may be a tuple of numbers, which the formula unpacks.
    """
    loops = functools.cache(lambda: _compiled(factory))

    @functools.wraps(factory)
    def apply(pixels: Tensor, draw: Tensor, level: Any) -> Tensor:
        if not on_cpu(pixels):
            red, green, blue = pixels.split(1, dim=1)
            return torch.cat(factory(TENSORS)(red, green, blue, draw, _level_tensors(level, pixels)), dim=1)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        out = torch.empty_like(pixels, memory_format=torch.channels_last)
        per_pixel, per_image = loops()
        source, target = (t.permute(0, 2, 3, 1).reshape(-1).numpy() for t in (pixels, out))
        numbers, strength = draw.reshape(-1).numpy(), _level_numbers(level)
        if draw.numel() == len(pixels):
            share(len(pixels), pixels[0].numel() // 3, lambda a, b: per_image(source, numbers, strength, target, a, b))
        else:
            share(draw.numel(), 1, lambda a, b: per_pixel(source, numbers, strength, target, a, b))
        return out

    return apply


def valuewise(factory: Callable[[Maths], ValueFormula]) -> Callable[[Tensor, Tensor, Any], Tensor]:
    """Turn the factory of a value's formula into the function of a degradation; used as a decorator.

    Parameters
    ----------
    factory
        `maths -> formula`, where the formula computes one channel of a pixel from that channel alone.

    Returns
    -------
    function
        (pixels, draw, level) → pixels; the draw has the pixels' shape (N, 3, H, W), or expands to it.
    """
    loop = functools.cache(lambda: _compiled_value(factory))

    @functools.wraps(factory)
    def apply(pixels: Tensor, draw: Tensor, level: Any) -> Tensor:
        numbers = draw.expand_as(pixels)
        if not on_cpu(pixels):
            return factory(TENSORS)(pixels, numbers, _level_tensors(level, pixels))
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        numbers = numbers.contiguous(memory_format=torch.channels_last)
        out = torch.empty_like(pixels, memory_format=torch.channels_last)
        per_value, strength = loop(), _level_numbers(level)
        source, given, target = (t.permute(0, 2, 3, 1).reshape(-1).numpy() for t in (pixels, numbers, out))
        share(pixels.numel(), 1, lambda a, b: per_value(source, given, strength, target, a, b))
        return out

    return apply


def flat_images(pixels: Tensor) -> tuple[np.ndarray, Tensor, np.ndarray]:
    """Return images and an empty result as a compiled loop takes them.

    Parameters
    ----------
    pixels
        (N, 3, H, W) float32 on the CPU.

    Returns
    -------
    tuple
        The pixels in channels_last order, (N, H · W · 3); the result, (N, 3, H, W); and its memory, (N, H · W · 3).
    """
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    out = torch.empty_like(pixels, memory_format=torch.channels_last)
    source, target = (t.permute(0, 2, 3, 1).flatten(1).numpy() for t in (pixels, out))
    return source, out, target


def share(count: int, pixels_each: int, work: Callable[[int, int], None]) -> None:
    """Call `work(first, last)` on parts of `range(count)`, in as many threads as torch uses.

    Parameters
    ----------
    count
        How many units of work there are.
    pixels_each
        The size of one unit in pixels, which decides how many threads pay.
    work
        Does the units from `first` up to `last`, which is left out.
    """
    shares = max(1, min(torch.get_num_threads(), count, count * pixels_each // SMALLEST_SHARE))
    if shares == 1:
        work(0, count)
        return
    edges = [count * i // shares for i in range(shares + 1)]
    list(_pool(shares).map(work, edges[:-1], edges[1:]))


def _level_numbers(level: Any) -> Any:
    return tuple(np.float32(each) for each in level) if isinstance(level, tuple) else np.float32(level)


def _level_tensors(level: Any, pixels: Tensor) -> Any:
    if isinstance(level, tuple):
        return tuple(scalar(each, pixels.device) for each in level)
    return scalar(level, pixels.device)


LANES = 256


@keep_code
@numba.njit(nogil=True)
def extremes(values):  # type: ignore[no-untyped-def]
    """Return the smallest and the largest of a float32 vector; for compiled loops."""
    # Single running extremes would prevent vector instructions, so there are many.
    low, high = np.full(LANES, values[0]), np.full(LANES, values[0])
    whole = len(values) // LANES * LANES
    for start in range(0, whole, LANES):
        given = values[start : start + LANES]
        for i in range(LANES):
            low[i] = given[i] if given[i] < low[i] else low[i]
            high[i] = given[i] if given[i] > high[i] else high[i]
    for i in range(whole, len(values)):
        low[0], high[0] = min(low[0], values[i]), max(high[0], values[i])
    return low.min(), high.max()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def _compiled(factory: Callable[[Maths], PixelFormula]) -> tuple[Any, Any]:
    """Compile the two loops of a formula. With flat unsigned indices LLVM uses vector instructions here."""
    formula = numba.njit(inline="always", error_model="numpy")(factory(scalar_maths()))
    three, one, two = np.uint64(3), np.uint64(1), np.uint64(2)

    @numba.njit(nogil=True, error_model="numpy")
    def per_pixel(source, numbers, level, target, first, last):  # type: ignore[no-untyped-def]
        for i in range(np.uint64(first), np.uint64(last)):
            j = i * three
            pixel = formula(source[j], source[j + one], source[j + two], numbers[i], level)
            target[j], target[j + one], target[j + two] = pixel

    @numba.njit(nogil=True, error_model="numpy")
    def per_image(source, numbers, level, target, first, last):  # type: ignore[no-untyped-def]
        pixels = np.uint64(source.shape[0] // (3 * numbers.shape[0]))
        for image in range(np.uint64(first), np.uint64(last)):
            number = numbers[image]
            for i in range(image * pixels, (image + one) * pixels):
                j = i * three
                pixel = formula(source[j], source[j + one], source[j + two], number, level)
                target[j], target[j + one], target[j + two] = pixel

    return keep_code(per_pixel, factory), keep_code(per_image, factory)


def _compiled_value(factory: Callable[[Maths], ValueFormula]) -> Any:
    formula = numba.njit(error_model="numpy")(factory(scalar_maths()))

    @numba.njit(nogil=True, error_model="numpy")
    def per_value(source, numbers, level, target, first, last):  # type: ignore[no-untyped-def]
        for i in range(np.uint64(first), np.uint64(last)):
            target[i] = formula(source[i], numbers[i], level)

    return keep_code(per_value, factory)


def _lookup_in_tensor(table: np.ndarray, a: Tensor) -> Tensor:
    values = constant(table, a.device)
    below = torch.clamp(a.long(), 0, len(values) - 2)
    return values[below] + (values[below + 1] - values[below]) * (a - below)


TENSORS = SimpleNamespace(
    minimum=torch.minimum,
    maximum=torch.maximum,
    absolute=torch.abs,
    floor=torch.floor,
    root=torch.sqrt,
    clip=lambda a, low, high: torch.clamp(a, float(low), float(high)),
    where=torch.where,
    # CUDA divides by a Python number as a multiplication by its rounded reciprocal, hence the tensor.
    quotient=lambda a, divisor: a / scalar(divisor, a.device),
    lookup=_lookup_in_tensor,
    function=lambda f: f,
    scalar=False,
)


@functools.cache
def scalar_maths() -> SimpleNamespace:
    inline = numba.njit(inline="always", error_model="numpy")
    zero = np.float32(0)

    @inline
    def clip(a, low, high):  # type: ignore[no-untyped-def]
        raised = low if a < low else a
        return high if raised > high else raised

    @inline
    def lookup(table, a):  # type: ignore[no-untyped-def]
        below = min(max(np.int64(a), 0), len(table) - 2)
        return table[below] + (table[below + 1] - table[below]) * (a - np.float32(below))

    return SimpleNamespace(
        # Built-in functions would prevent vector instructions by their care for NaN and signs, so selections are used.
        minimum=inline(lambda a, b: a if a < b else b),
        maximum=inline(lambda a, b: a if a > b else b),
        absolute=inline(lambda a: a if a > zero else -a),
        floor=inline(lambda a: np.float32(math.floor(a))),
        root=inline(lambda a: np.sqrt(a)),
        clip=clip,
        where=inline(lambda condition, a, b: a if condition else b),
        quotient=inline(lambda a, constant: a / constant),
        lookup=lookup,
        function=inline,
        scalar=True,
    )
