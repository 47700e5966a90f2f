"""Resizing by sums of weighted pixels, whose order is fixed, so that every machine computes the same bits."""

import functools
from collections.abc import Callable
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.degradations.kernels import pixelwise
from cnnsens_bench.utils.compiled_loops import keep_code
from cnnsens_bench.utils.cpu_libraries import numba
from cnnsens_bench.utils.transfer import constant

Weights = Callable[[int, int], tuple[np.ndarray, np.ndarray]]
"""A function like `box_weights`."""


def box_weights(source: int, result: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights of Pillow's BOX filter along one axis.

    Parameters
    ----------
    source, result
        The numbers of pixels along the axis before and after.

    Returns
    -------
    indices, weights
        Two arrays (taps, result): which source pixels a result pixel is made of, and their shares.
    """
    scale = source / result
    centres = (np.arange(result) + 0.5) * scale
    half = 0.5 * max(scale, 1.0)
    first = np.maximum((centres - half + 0.5).astype(int), 0)
    last = np.minimum((centres + half + 0.5).astype(int), source)
    indices = first + np.arange((last - first).max())[:, None]
    distance = (indices - centres + 0.5) * (1 / max(scale, 1.0))
    inside = (indices < last) & (distance > -0.5) & (distance <= 0.5)
    return np.minimum(indices, source - 1), (inside / inside.sum(0)).astype(np.float32)


def resize(pixels: Tensor, size: int, weights: Weights) -> Tensor:
    """Resize images (N, C, H, W) to `size` × `size`, columns first.

    Parameters
    ----------
    weights
        A function like `box_weights`.
    """
    if pixelwise.on_cpu(pixels):
        return _by_loops(pixels, size, weights)
    for axis in (3, 2):
        indices, shares = (constant(part, pixels.device) for part in weights(pixels.shape[axis], size))
        view = [-1 if dimension == axis else 1 for dimension in range(4)]
        taps = (pixels.index_select(axis, index) * part.view(view) for index, part in zip(indices, shares, strict=True))
        pixels = reduce(torch.add, taps)
    return pixels


def _by_loops(pixels: Tensor, size: int, weights: Weights) -> Tensor:
    count, channels, height, width = pixels.shape
    out = torch.empty(count, channels, size, size, memory_format=torch.channels_last)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    source, target = (t.permute(0, 2, 3, 1).flatten(2).numpy() for t in (pixels, out))
    columns, rows = _value_taps(weights, width, size, channels), _value_taps(weights, height, size, 1)
    pixelwise.share(count, height * width, lambda a, b: _resize_loop(source, *columns, *rows, target, a, b))
    return out


@functools.lru_cache(maxsize=64)
def _value_taps(weights: Weights, source: int, result: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices and shares of `weights` for a line of pixels with some values each."""
    indices, shares = weights(source, result)
    used = shares.any(1)  # a tap without any weight adds nothing
    values = indices[used, :, None] * channels + np.arange(channels)
    return values.reshape(used.sum(), -1).astype(np.int32), np.repeat(shares[used], channels, axis=1)


@keep_code
@numba.njit(nogil=True, error_model="numpy")
def _resize_loop(source, columns, column_shares, rows, row_shares, target, first, last):  # type: ignore[no-untyped-def]
    height, width = source.shape[1], target.shape[2]
    narrow = np.empty((height, width), np.float32)
    for image in range(first, last):
        for y in range(height):
            line, given = narrow[y], source[image, y]
            for tap in range(len(columns)):
                index, share = columns[tap], column_shares[tap]
                if tap == 0:
                    for i in range(width):
                        line[i] = given[index[i]] * share[i]
                else:
                    for i in range(width):
                        line[i] += given[index[i]] * share[i]
        for y in range(target.shape[1]):
            line = target[image, y]
            for tap in range(len(rows)):
                given, share = narrow[rows[tap, y]], row_shares[tap, y]
                if tap == 0:
                    for i in range(width):
                        line[i] = given[i] * share
                else:
                    for i in range(width):
                        line[i] += given[i] * share
