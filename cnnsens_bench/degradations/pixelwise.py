"""Pixel formulas at the speed of memory.

A formula of one pixel, written once, runs as one compiled loop over the memory on a CPU (a chain of tensor
operations would pass over it twenty times) and as tensor operations on other devices. Both do the same IEEE
operations in the same order and contract nothing, so their bits are equal.
"""

import functools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

Pixel = Callable[[Any, Any, Any, Any], tuple[Any, Any, Any]]
"""(red, green, blue, noise) → (red, green, blue): arithmetic, float32 constants and the functions of `Maths`."""

Maths = Any
"""What a formula may call: `minimum(a, b)`, `maximum(a, b)`, `absolute(a)`, `floor(a)`, `clip(a, low, high)` and
`where(condition, a, b)`."""

SMALLEST_SHARE = 1 << 15
"""Pixels below which another thread costs more than it gives."""


def pixelwise(factory: Callable[[Maths], Pixel]) -> Callable[[Tensor, Tensor, float], Tensor]:
    """A degradation's function (pixels, draw, level) from the factory of its formula.

    The formula's `noise` is level · draw; the draw has one number per pixel, (N, 1, H, W), or per image, (N, 1, 1, 1).
    """
    loops = functools.cache(lambda: _compiled(factory))

    @functools.wraps(factory)
    def apply(pixels: Tensor, draw: Tensor, level: float) -> Tensor:
        if pixels.device.type != "cpu":
            red, green, blue = pixels.split(1, dim=1)
            return torch.cat(factory(TENSORS)(red, green, blue, draw * level), dim=1)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        out = torch.empty_like(pixels, memory_format=torch.channels_last)
        per_pixel, per_image = loops()
        source, target = (t.permute(0, 2, 3, 1).reshape(-1).numpy() for t in (pixels, out))
        noise, strength = draw.reshape(-1).numpy(), np.float32(level)
        if draw.numel() == len(pixels):
            _share(len(pixels), pixels[0].numel() // 3, lambda a, b: per_image(source, noise, strength, target, a, b))
        else:
            _share(draw.numel(), 1, lambda a, b: per_pixel(source, noise, strength, target, a, b))
        return out

    return apply


def _share(count: int, pixels_each: int, work: Callable[[int, int], None]) -> None:
    """Call `work(first, last)` on shares of `range(count)`, over as many threads as torch uses."""
    shares = max(1, min(torch.get_num_threads(), count, count * pixels_each // SMALLEST_SHARE))
    if shares == 1:
        work(0, count)
        return
    edges = [count * i // shares for i in range(shares + 1)]
    list(_pool(shares).map(work, edges[:-1], edges[1:]))


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def _compiled(factory: Callable[[Maths], Pixel]) -> tuple[Any, Any]:
    """The loops of one formula. Flat unsigned indices are what lets LLVM use vector instructions here."""
    formula = numba.njit(inline="always", error_model="numpy")(factory(_scalars()))
    three, one, two = np.uint64(3), np.uint64(1), np.uint64(2)

    @numba.njit(nogil=True, error_model="numpy")
    def per_pixel(source, noise, strength, target, first, last):  # type: ignore[no-untyped-def]
        for i in range(np.uint64(first), np.uint64(last)):
            j = i * three
            red, green, blue = formula(source[j], source[j + one], source[j + two], noise[i] * strength)
            target[j] = red
            target[j + one] = green
            target[j + two] = blue

    @numba.njit(nogil=True, error_model="numpy")
    def per_image(source, noise, strength, target, first, last):  # type: ignore[no-untyped-def]
        pixels = np.uint64(source.shape[0] // (3 * noise.shape[0]))
        for image in range(np.uint64(first), np.uint64(last)):
            value = noise[image] * strength
            for i in range(image * pixels, (image + one) * pixels):
                j = i * three
                red, green, blue = formula(source[j], source[j + one], source[j + two], value)
                target[j] = red
                target[j + one] = green
                target[j + two] = blue

    return per_pixel, per_image


TENSORS = SimpleNamespace(
    minimum=torch.minimum,
    maximum=torch.maximum,
    absolute=torch.abs,
    floor=torch.floor,
    clip=lambda a, low, high: torch.clamp(a, float(low), float(high)),
    where=torch.where,
)


@functools.cache
def _scalars() -> SimpleNamespace:
    inline = numba.njit(inline="always", error_model="numpy")
    zero = np.float32(0)

    # Written as selections: the built-in functions' care for NaN and signs would keep loops from being vectorised.
    @inline
    def minimum(a, b):  # type: ignore[no-untyped-def]
        return a if a < b else b

    @inline
    def maximum(a, b):  # type: ignore[no-untyped-def]
        return a if a > b else b

    @inline
    def absolute(a):  # type: ignore[no-untyped-def]
        return a if a > zero else -a

    @inline
    def floor(a):  # type: ignore[no-untyped-def]
        return np.float32(math.floor(a))

    @inline
    def clip(a, low, high):  # type: ignore[no-untyped-def]
        raised = low if a < low else a
        return high if raised > high else raised

    @inline
    def where(condition, a, b):  # type: ignore[no-untyped-def]
        return a if condition else b

    names = ("minimum", "maximum", "absolute", "floor", "clip", "where")
    return SimpleNamespace(**dict(zip(names, (minimum, maximum, absolute, floor, clip, where), strict=True)))
