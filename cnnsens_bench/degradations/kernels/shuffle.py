"""The shuffling of pixels among their neighbours that `common:glass_blur` does."""

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.degradations.kernels import pixelwise
from cnnsens_bench.degradations.kernels.filters import empty, flat_rows
from cnnsens_bench.utils.cpu_libraries import numba


def shuffled(pixels: Tensor, draw: Tensor, distance: int) -> Tensor:
    """Copy a random neighbour over each pixel, pixel after pixel from the last to the first, in several rounds.

    Parameters
    ----------
    pixels
        Square images (N, C, H, H).
    draw
        The column and the row of each neighbour, (N, rounds, H, H, 2) uniform in [0, 1).
    distance
        Neighbours are up to so many rows and columns away, one less to the right and below; pixels so close to the
        border stay.
    """
    count, channels, size, _ = pixels.shape
    if not pixelwise.on_cpu(pixels):
        index = _origins(draw, distance)[:, None].expand(-1, channels, -1)
        return pixels.reshape(count, channels, -1).gather(2, index).view_as(pixels)
    out = empty(count, channels, size, size)
    source, target, numbers = flat_rows(pixels), flat_rows(out), draw.numpy()

    def work(first: int, last: int) -> None:
        _shuffle_loop(source, numbers, distance, channels, target, first, last)

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


@numba.njit(nogil=True, error_model="numpy")
def _shuffle_loop(source, draw, distance, channels, target, first, last):  # type: ignore[no-untyped-def]
    rounds, size = draw.shape[1:3]
    origins = np.empty((size, size), np.int32)
    steps = np.empty(size, np.int32)
    reach, span = np.int32(distance), np.float32(2 * distance)
    for image in range(first, last):
        for h in range(size):
            for w in range(size):
                origins[h, w] = h * size + w
        flat = origins.reshape(-1)
        for n in range(rounds):
            for h in range(size - distance, distance, -1):
                numbers = draw[image, n, h]
                for w in range(size):
                    column, row = np.int32(numbers[w, 0] * span) - reach, np.int32(numbers[w, 1] * span) - reach
                    steps[w] = row * np.int32(size) + column
                line = h * size
                for w in range(size - distance, distance, -1):
                    flat[line + w] = flat[line + w + steps[w]]
        for h in range(size):
            for w in range(size):
                origin = origins[h, w]
                y, x = origin // size, origin % size
                for c in range(channels):
                    target[image, h, w * channels + c] = source[image, y, x * channels + c]
