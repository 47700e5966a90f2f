"""The digital corruptions of Hendrycks & Dietterich (2019)."""

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.degradations.camera.sensor import jpeg
from cnnsens_bench.degradations.imagenet_c.severity import common
from cnnsens_bench.degradations.kernels import pixelwise
from cnnsens_bench.degradations.kernels.filters import MIRROR, SYMMETRIC, sample
from cnnsens_bench.degradations.kernels.pixelwise import Maths, PixelFormula
from cnnsens_bench.degradations.kernels.resizing import box_weights, resize
from cnnsens_bench.degradations.kernels.smoothing import smoothed
from cnnsens_bench.degradations.streams import Streams
from cnnsens_bench.utils.compiled_loops import keep_code
from cnnsens_bench.utils.cpu_libraries import numba
from cnnsens_bench.utils.transfer import constant

ZERO, FULL = np.float32(0), np.float32(255)


@pixelwise.pixelwise
def brighter(maths: Maths) -> PixelFormula:
    """Raise V of HSV by the share `more` of its range, at most to its end; a formula for `brightness`."""
    maximum, clip, where = maths.maximum, maths.clip, maths.where

    def pixel(red, green, blue, one, more):  # type: ignore[no-untyped-def]
        value = maximum(red, maximum(green, blue))
        raised = clip(value + more * FULL * one, ZERO, FULL)
        # Black has no hue, and becomes gray.
        black = value == ZERO
        gain = where(black, ZERO, raised / value)
        gray = where(black, raised, ZERO)
        return red * gain + gray, green * gain + gray, blue * gain + gray

    return pixel


@common((0.1, 0.2, 0.3, 0.4, 0.5))
def brightness(pixels: Tensor, draw: None, more: float) -> Tensor:
    """Raise V of HSV by the share `more` of its range, at most to its end; H and S stay."""
    return brighter(pixels, torch.ones(len(pixels), 1, 1, 1, device=pixels.device), more)


@common((0.4, 0.3, 0.2, 0.1, 0.05))
def contrast(pixels: Tensor, draw: None, kept: float) -> Tensor:
    """Move every value towards the mean of its channel over the image; the share `kept` of the difference stays."""
    if not pixelwise.on_cpu(pixels):
        mean = pixels.mean((2, 3), keepdim=True, dtype=torch.float64).float()
        return (pixels - mean) * kept + mean
    source, out, target = pixelwise.flat_images(pixels)
    width, size = 3 * pixels.shape[3], source.shape[1] // 3
    pixelwise.share(len(pixels), size, lambda a, b: _contrast_loop(source, width, np.float32(kept), target, a, b))
    return out


@keep_code
@numba.njit(nogil=True, error_model="numpy")
def _contrast_loop(source, width, kept, target, first, last):  # type: ignore[no-untyped-def]
    """Work in lines of `width` values, because sums of whole lines use vector instructions."""
    sums, means = np.empty(width, np.float64), np.empty(width, np.float32)
    for image in range(first, last):
        sums[:] = 0
        for start in range(0, source.shape[1], width):
            given = source[image, start : start + width]
            for i in range(width):
                sums[i] += given[i]
        for channel in range(3):
            means[channel::3] = np.float32(sums[channel::3].sum() / (source.shape[1] // 3))
        for start in range(0, source.shape[1], width):
            given, result = source[image, start : start + width], target[image, start : start + width]
            for i in range(width):
                result[i] = (given[i] - means[i]) * kept + means[i]


def elastic_draw(streams: Streams, size: int) -> tuple[Tensor, Tensor]:
    """Draw the shifts of three corners, (N, 3, 2), and x and y of a field, (N, 2, size, size), uniform in [0, 1)."""
    return streams.uniform(3, 2), streams.uniform(2, size, size)


ELASTIC = ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))


# 244 is the number in the published code, not 224.
@common([tuple(244 * share for share in shares) for shares in ELASTIC], draw=elastic_draw)
def elastic_transform(pixels: Tensor, draw: tuple[Tensor, Tensor], parameters: tuple[float, float, float]) -> Tensor:
    """Apply a random affine map, then a smooth random displacement, both with bilinear interpolation.

    `parameters` are the strength of the displacement, its smoothness and the largest shift of the corners, in pixels.
    """
    strength, smoothness, corners = parameters
    size = pixels.shape[-1]
    moved, field = draw
    rows, columns = _affine((moved.double() * 2 - 1) * corners, size)
    turned = sample(pixels, rows, columns, MIRROR)
    steps = smoothed(field, smoothness, strength)
    grid = torch.arange(size, device=pixels.device, dtype=torch.float32)
    return sample(turned, grid[:, None] + steps[:, 1], grid + steps[:, 0], SYMMETRIC)


def _affine(shift: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the row and the column that each pixel is taken from, (N, size, size), if corners move by (N, 3, 2)."""
    centre, reach = size // 2, size // 3
    corners = centre + reach * constant(np.array([[1.0, 1], [1, -1], [-1, -1]]), shift.device)
    moved = torch.cat([corners + shift, torch.ones_like(shift[..., :1])], dim=-1)
    if shift.device.type == "cpu":
        back = torch.from_numpy(np.linalg.solve(moved.numpy(), corners.numpy()))
    else:
        back = torch.linalg.solve_ex(moved, corners)[0]  # it does not wait for the device, as a check would
    line = torch.arange(size, device=shift.device)
    of_x, of_y, offset = back.transpose(1, 2)[..., None, None].unbind(2)
    maps = ((line * of_x + line[:, None] * of_y) + offset).float()
    return maps[:, 1], maps[:, 0]


@common((0.6, 0.5, 0.4, 0.3, 0.25))
def pixelate(pixels: Tensor, draw: None, share: float) -> Tensor:
    """Average down to the share `share` of the side, and enlarge without smoothing."""
    size = pixels.shape[-1]
    return resize(resize(pixels, max(1, int(size * share)), box_weights), size, box_weights)


@common((25, 18, 15, 10, 7))
def jpeg_compression(pixels: Tensor, draw: None, quality: int) -> Tensor:
    """Compress as JPEG of that quality."""
    return jpeg(pixels, None, quality)
