"""The shuffling of pixels among their neighbours that `common:glass_blur` does."""

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.degradations.kernels import pixelwise
from cnnsens_bench.degradations.kernels.filters import empty, flat_rows
from cnnsens_bench.utils.compiled_loops import keep_code
from cnnsens_bench.utils.cpu_libraries import numba


def shuffled(pixels: Tensor, draw: Tensor, distance: int, rounds: int) -> Tensor:
    """Copy a random neighbour over each pixel, pixel after pixel from the last to the first, in several rounds.

    Parameters
    ----------
    pixels
        Square images (N, C, H, H).
    draw
        The column and the row of each neighbour, (N, at least `rounds`, H, H, 2) uniform in [0, 1).
    distance
        Neighbours are up to so many rows and columns away, one less to the right and below; pixels so close to the
        border stay.
    rounds
        How often all pixels are copied.
    """
    count, channels, size, _ = pixels.shape
    if not pixelwise.on_cpu(pixels):
        index = _origins(draw[:, :rounds], distance)[:, None].expand(-1, channels, -1)
        return pixels.reshape(count, channels, -1).gather(2, index).view_as(pixels)
    out = empty(count, channels, size, size)
    source, target, numbers = flat_rows(pixels), flat_rows(out), np.ascontiguousarray(draw.numpy())

    def work(first: int, last: int) -> None:
        _shuffle_loop(source, numbers, distance, rounds, channels, target, first, last)

    pixelwise.share(count, size * size, work)
    return out


def _origins(draw: Tensor, distance: int) -> Tensor:
    """Return the index of the pixel that each pixel becomes, (N, H · H).

    A pixel whose neighbour was copied over before it in the same round gets what the neighbour became, so that chains
    form. They are followed for all pixels together, in steps that double.
    """
    count, rounds, size = draw.shape[:3]
    index = torch.arange(size * size, device=draw.device)
    axis = torch.arange(size, device=draw.device)
    moves = (axis > distance) & (axis <= size - distance)
    inside = (moves[:, None] & moves).view(-1)
    origins = index.expand(count, -1)
    for n in range(rounds):
        columns, rows = ((draw[:, n] * float(2 * distance)).long() - distance).unbind(-1)
        neighbour = torch.where(inside, index + (rows * size + columns).view(count, -1), index)
        goes_on = inside & (neighbour > index) & inside[neighbour]
        for _ in range((size * size - 1).bit_length()):
            further = neighbour.gather(1, neighbour)
            goes_further = goes_on & goes_on.gather(1, neighbour)
            neighbour, goes_on = torch.where(goes_on, further, neighbour), goes_further
        origins = origins.gather(1, neighbour)
    return origins


@keep_code
@numba.njit(nogil=True, error_model="numpy")
def _shuffle_loop(source, draw, distance, rounds, channels, target, first, last):  # type: ignore[no-untyped-def]
    size = draw.shape[2]
    origins, steps = np.empty(size * size, np.int32), np.empty(size, np.int32)
    span, side, nearest = np.float32(2 * distance), np.int32(size), np.int32(distance * size + distance)
    for image in range(first, last):
        for i in range(size * size):
            origins[i] = i
        for n in range(rounds):
            for h in range(size - distance, distance, -1):
                numbers = draw[image, n, h].reshape(-1)
                for w in range(size):  # apart from the copies, which wait for each other
                    steps[w] = np.int32(numbers[2 * w + 1] * span) * side + np.int32(numbers[2 * w] * span) - nearest
                for w in range(size - distance, distance, -1):
                    pixel = h * size + w
                    origins[np.uint64(pixel)] = origins[np.uint64(pixel + steps[w])]
        given, result = source[image].reshape(-1), target[image].reshape(-1)
        for i in range(np.uint64(size * size)):
            start, origin = i * np.uint64(channels), np.uint64(origins[i]) * np.uint64(channels)
            if channels == 3:  # the usual number, without a loop
                result[start] = given[origin]
                result[start + np.uint64(1)] = given[origin + np.uint64(1)]
                result[start + np.uint64(2)] = given[origin + np.uint64(2)]
            else:
                for c in range(np.uint64(channels)):
                    result[start + c] = given[origin + c]
