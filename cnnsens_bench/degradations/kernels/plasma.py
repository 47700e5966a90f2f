"""Plasma fractals: cloudy textures by the diamond-square algorithm, from one draw at any roughness."""

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.degradations.kernels import pixelwise
from cnnsens_bench.degradations.streams import Streams
from cnnsens_bench.utils.compiled_loops import keep_code
from cnnsens_bench.utils.cpu_libraries import numba

FIRST_WOBBLE = 100.0
QUARTER, ONE, TWO = np.float32(0.25), np.float32(1), np.float32(2)


def map_size(size: int) -> int:
    """Return the side of the texture for inputs of `size` pixels: a power of two, at least 256."""
    return max(256, 1 << (size - 1).bit_length())


def plasma_draw(streams: Streams, size: int) -> Tensor:
    """Draw the random numbers of one texture per image: (N, side² − 1) uniform in [0, 1)."""
    return streams.uniform(map_size(size) ** 2 - 1)


def plasma(draw: Tensor, size: int, decay: float) -> Tensor:
    """Compute the textures of a draw, as the code of Hendrycks & Dietterich (2019) does.

    The displacement of a step is uniform in ± wobble², where the wobble is divided by `decay` from step to step. The
    texture is periodic.

    Parameters
    ----------
    draw
        What `plasma_draw` returned for this size.
    size
        The side of the result in pixels.
    decay
        The smoothness, at least 1, which is white noise.

    Returns
    -------
    Tensor
        (N, 1, size, size) in [0, 1].
    """
    side = map_size(size)
    wobbles = [FIRST_WOBBLE]
    while 2 ** len(wobbles) < side:
        wobbles.append(wobbles[-1] / decay)
    reaches = np.array([wobble * wobble for wobble in wobbles], np.float32)
    if not pixelwise.on_cpu(draw):
        return _by_tensors(draw, side, reaches)[:, None, :size, :size]
    textures = np.empty((len(draw), size, size), np.float32)
    numbers = draw.contiguous().numpy()
    pixelwise.share(len(draw), side * side, lambda a, b: _plasma_loop(numbers, side, reaches, textures, a, b))
    return torch.from_numpy(textures)[:, None]


def _by_tensors(draw: Tensor, side: int, reaches: np.ndarray) -> Tensor:
    """Return the whole textures: (N, side, side)."""
    used, step = 0, side
    heights = torch.zeros(len(draw), side, side, device=draw.device)

    def displaced_mean(four: Tensor, reach: float) -> Tensor:
        """Return a quarter of a sum of four corners, displaced by the next random numbers."""
        nonlocal used
        numbers = draw[:, used : used + four[0].numel()].view_as(four)
        used += four[0].numel()
        return four / 4 + (numbers * 2 - 1) * reach

    for reach in reaches.tolist():
        half = step // 2
        corners = heights[:, ::step, ::step]
        below, right = corners.roll(-1, 1), corners.roll(-1, 2)
        pairs = corners + below
        centres = displaced_mean(pairs + pairs.roll(-1, 2), reach)
        heights[:, half::step, half::step] = centres
        heights[:, ::step, half::step] = displaced_mean(centres + centres.roll(1, 1) + (corners + right), reach)
        heights[:, half::step, ::step] = displaced_mean(centres + centres.roll(1, 2) + (corners + below), reach)
        step = half
    heights = heights - heights.amin((1, 2), keepdim=True)
    return heights / heights.amax((1, 2), keepdim=True)


@keep_code
@numba.njit(nogil=True, error_model="numpy")
def _plasma_loop(draw, side, reaches, textures, first, last):  # type: ignore[no-untyped-def]
    """Grow each texture from a map of one height to one of side², which doubles in each step."""
    size = textures.shape[1]
    coarse, fine = np.empty(side * side, np.float32), np.empty(side * side, np.float32)
    for image in range(first, last):
        numbers, used, n = draw[image], 0, 1
        coarse[0] = np.float32(0)
        for reach in reaches:
            _grow(coarse, fine, numbers[used : used + 3 * n * n], n, reach)
            coarse, fine = fine, coarse
            used, n = used + 3 * n * n, 2 * n
        low, high = pixelwise.extremes(coarse)
        span = high - low
        for y in range(size):
            line, given = textures[image, y], coarse[y * side : y * side + size]
            for x in range(size):
                line[x] = (given[x] - low) / span


@keep_code
@numba.njit(nogil=True, error_model="numpy")
def _grow(coarse, fine, numbers, n, reach):  # type: ignore[no-untyped-def]
    """Write the map of (2n)² heights that follows from one of n², whose heights become every second one."""
    squares, rows, columns = numbers[: n * n], numbers[n * n : 2 * n * n], numbers[2 * n * n :]
    # Centres, which lie between four heights, go to the odd places of the odd rows of the fine map.
    for i in range(n):
        here, below = coarse[i * n : (i + 1) * n], coarse[(i + 1) % n * n : ((i + 1) % n + 1) * n]
        own, even, odd = squares[i * n :], fine[2 * i * 2 * n :], fine[(2 * i + 1) * 2 * n :]
        for j in range(n):
            k = j + 1 if j + 1 < n else 0
            four = (here[j] + below[j]) + (here[k] + below[k])
            even[2 * j] = here[j]
            odd[2 * j + 1] = four * QUARTER + (own[j] * TWO - ONE) * reach
    for i in range(n):
        here, below = coarse[i * n : (i + 1) * n], coarse[(i + 1) % n * n : ((i + 1) % n + 1) * n]
        even, odd, over = fine[2 * i * 2 * n :], fine[(2 * i + 1) * 2 * n :], fine[((2 * i - 1) % (2 * n)) * 2 * n :]
        of_rows, of_columns = rows[i * n :], columns[i * n :]
        for j in range(n):
            k, before = j + 1 if j + 1 < n else 0, j - 1 if j else n - 1
            across = (odd[2 * j + 1] + over[2 * j + 1]) + (here[j] + here[k])
            down = (odd[2 * j + 1] + odd[2 * before + 1]) + (here[j] + below[j])
            even[2 * j + 1] = across * QUARTER + (of_rows[j] * TWO - ONE) * reach
            odd[2 * j] = down * QUARTER + (of_columns[j] * TWO - ONE) * reach
