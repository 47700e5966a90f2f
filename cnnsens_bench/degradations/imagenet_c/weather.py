"""The weather of Hendrycks & Dietterich (2019)."""

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from cnnsens_bench.degradations.imagenet_c.blur import motion_blurred
from cnnsens_bench.degradations.imagenet_c.severity import common
from cnnsens_bench.degradations.kernels import pixelwise
from cnnsens_bench.degradations.kernels.filters import SYMMETRIC, sample
from cnnsens_bench.degradations.kernels.plasma import plasma, plasma_draw
from cnnsens_bench.degradations.kernels.zoom import magnified
from cnnsens_bench.degradations.streams import Streams
from cnnsens_bench.utils.compiled_loops import keep_code
from cnnsens_bench.utils.cpu_libraries import numba
from cnnsens_bench.utils.transfer import constant

ZERO, HALF, ONE, FULL = (np.float32(value) for value in (0, 0.5, 1, 255))


@common(((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)), draw=plasma_draw)
def fog(pixels: Tensor, draw: Tensor, parameters: tuple[float, float]) -> Tensor:
    """Add a plasma of some strength and decay to the image in [0, 1], and scale it so that its maximum stays."""
    strength, decay = parameters
    texture, haze = plasma(draw, pixels.shape[-1], decay), 255 * strength
    if not pixelwise.on_cpu(pixels):
        brightest = pixels.amax((1, 2, 3), keepdim=True)
        return (pixels + texture * haze) * (brightest / (brightest + haze))
    source, out, target = pixelwise.flat_images(pixels)
    clouds = texture.flatten(1).numpy()
    pixelwise.share(
        len(pixels), clouds.shape[1], lambda a, b: _fog_loop(source, clouds, np.float32(haze), target, a, b)
    )
    return out


@keep_code
@numba.njit(nogil=True, error_model="numpy")
def _fog_loop(source, clouds, haze, target, first, last):  # type: ignore[no-untyped-def]
    for image in range(first, last):
        given, cloud, result = source[image], clouds[image], target[image]
        brightest = pixelwise.extremes(given)[1]
        gain = brightest / (brightest + haze)
        for i in range(np.uint64(len(cloud))):
            added = cloud[i] * haze
            for channel in range(np.uint64(3)):
                j = i * np.uint64(3) + channel
                result[j] = (given[j] + added) * gain


NEEDLES = (20.0, 80.0, 140.0)
"""The directions of the needles in degrees; ice grows at angles of 60."""
SLENDERNESS = 7
"""How many times longer than wide a needle is."""


def frost_draw(streams: Streams, size: int) -> tuple[Tensor, Tensor]:
    """Draw the numbers of two plasmas, one for the thickness of the ice and one for its needles."""
    return plasma_draw(streams, size), plasma_draw(streams, size)


_known_ice = WeakTensorKeyDictionary()
"""The first numbers of a draw → its other numbers, the size and the ice, for as long as the draw is in use."""


def _white_ice(draw: tuple[Tensor, Tensor], size: int) -> Tensor:
    """Return the whiteness of a draw's ice, not yet clamped: (N, 1, size, size). All severities of a draw share it."""
    known = _known_ice.get(draw[0])
    if known is None or known[0] is not draw[1] or known[1] != size:
        known = draw[1], size, _grown_ice(draw, size)
        _known_ice[draw[0]] = known
    return known[2]


def _grown_ice(draw: tuple[Tensor, Tensor], size: int) -> Tensor:
    """Return ice of varying thickness, crossed by bright needles."""
    ice, field = plasma(draw[0], size, 1.8), plasma(draw[1], size, 1.4)
    if pixelwise.on_cpu(ice):
        white = torch.empty_like(ice)
        thickness, streaky, result = (layer.flatten(1).numpy() for layer in (ice, field, white))
        corners, shares = _needle_points(size)
        pixelwise.share(
            len(ice), 3 * size * size, lambda a, b: _frost_loop(thickness, streaky, result, corners, shares, a, b)
        )
        return white
    needles = torch.zeros_like(ice)
    for rows, columns in _needle_lines(size):
        down, right = (constant(part, ice.device) for part in (rows, columns))
        streaks = sample(field, down, right, SYMMETRIC)
        needles = torch.maximum(needles, 1 - ((streaks - 0.5) * 6).abs().clamp(max=1))
    return ice * 150 + needles * (ice * 170 + 20) + 15


def _needle_lines(size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield for each direction the rows and the columns that needles are taken from: (1, size, size) float32."""
    steps = np.arange(size) * (224 / size)
    for direction in np.deg2rad(NEEDLES):
        along = np.add.outer(steps * math.sin(direction), steps * math.cos(direction)) / SLENDERNESS
        across = np.add.outer(steps * math.cos(direction), -steps * math.sin(direction))
        yield across.astype(np.float32)[None], along.astype(np.float32)[None]


@lru_cache(maxsize=4)
def _needle_points(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what `sample` takes needles from: the positions of four pixels and the shares of the lower and right ones.

    Returns
    -------
    corners, shares
        (directions, size², 4) int32 and (directions, size², 2) float32.
    """
    corners, shares = [], []
    for rows, columns in _needle_lines(size):
        top, left = np.floor(rows), np.floor(columns)
        y, x = ((part.astype(int)[..., None] + [0, 1]) % (2 * size) for part in (top, left))
        y, x = (np.minimum(part, 2 * size - 1 - part) for part in (y, x))
        corners.append((y[..., :, None] * size + x[..., None, :]).reshape(-1, 4))
        shares.append(np.stack([rows - top, columns - left], axis=-1).reshape(-1, 2))
    return np.stack(corners).astype(np.int32), np.stack(shares)


SIX, THICK, CROSSED, NEEDLE, LEAST = (np.float32(value) for value in (6, 150, 170, 20, 15))


@keep_code
@numba.njit(nogil=True, error_model="numpy")
def _frost_loop(ice, field, white, corners, shares, first, last):  # type: ignore[no-untyped-def]
    for image in range(first, last):
        given, thickness, result = field[image], ice[image], white[image]
        for i in range(len(given)):
            needle = ZERO
            for direction in range(len(corners)):
                corner = corners[direction, i]
                down, right = shares[direction, i, 0], shares[direction, i, 1]
                upper = given[corner[0]] * (ONE - right) + given[corner[1]] * right
                lower = given[corner[2]] * (ONE - right) + given[corner[3]] * right
                distance = abs((upper * (ONE - down) + lower * down - HALF) * SIX)
                ridge = ONE - (distance if distance < ONE else ONE)
                needle = ridge if ridge > needle else needle
            result[i] = thickness[i] * THICK + needle * (thickness[i] * CROSSED + NEEDLE) + LEAST


TINT = (0.84, 0.94, 1.0)
"""The shares of red, green and blue in the light of white ice."""


def frost_texture(draw: tuple[Tensor, Tensor], size: int) -> Tensor:
    """Return the bluish ice of a draw: (N, 3, size, size) in [0, 255]."""
    white = _white_ice(draw, size)
    return (white * constant(np.array(TINT, np.float32), white.device).view(1, 3, 1, 1)).clamp(0, 255)


@pixelwise.pixelwise
def iced(maths: pixelwise.Maths) -> pixelwise.PixelFormula:
    """Add ice of a whiteness to a pixel; the level is the weights of the image and of the ice."""
    clip = maths.clip
    of_red, of_green, of_blue = (np.float32(share) for share in TINT)

    def pixel(red, green, blue, white, weights):  # type: ignore[no-untyped-def]
        image_weight, ice_weight = weights
        return (
            red * image_weight + clip(white * of_red, ZERO, FULL) * ice_weight,
            green * image_weight + clip(white * of_green, ZERO, FULL) * ice_weight,
            blue * image_weight + clip(white * of_blue, ZERO, FULL) * ice_weight,
        )

    return pixel


FROST = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
"""By severity: the weights of the image and of the ice."""


@common(FROST, draw=frost_draw)
def frost(pixels: Tensor, draw: tuple[Tensor, Tensor], weights: tuple[float, float]) -> Tensor:
    """Return a weighted sum of the image and of ice.

    The ice is generated, because this package has no right to distribute ImageNet-C's photographs of ice. Where they
    are installed, `frost.py` takes them.
    """
    return iced(pixels, _white_ice(draw, pixels.shape[-1]), weights)


def snow_draw(streams: Streams, size: int) -> tuple[Tensor, Tensor]:
    """Draw the flakes, (N, 1, size, size) from N(0, 1), and the direction of the wind, (N,) uniform in [0, 1)."""
    return streams.normal(1, size, size), streams.uniform(1)[:, 0]


@common(
    (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    draw=snow_draw,
)
def snow(pixels: Tensor, draw: tuple[Tensor, Tensor], parameters: tuple) -> Tensor:
    """Add flakes, the largest values of magnified noise, blurred along a line, to a whitened image."""
    mean, deviation, zoom, threshold, radius, sigma, kept = parameters
    normal, wind = draw
    flakes = _kept_flakes(magnified(normal * deviation + mean, zoom), threshold)
    flakes = motion_blurred(flakes, radius, sigma, 90 * wind.double() - 135)
    if not pixelwise.on_cpu(pixels):
        red, green, blue = pixels.split(1, dim=1)
        gray = red * 0.299 + green * 0.587 + blue * 0.114
        whitened = pixels * kept + torch.maximum(pixels, gray * 1.5 + 127.5) * (1 - kept)
        return whitened + flakes + flakes.flip(2, 3)
    source, out, target = pixelwise.flat_images(pixels)
    fallen, shares = flakes.flatten(1).numpy(), (np.float32(kept), np.float32(1 - kept))
    pixelwise.share(len(pixels), fallen.shape[1], lambda a, b: _snow_loop(source, fallen, shares, target, a, b))
    return out


def _kept_flakes(noise: Tensor, threshold: float) -> Tensor:
    """Return the noise in whole gray levels from 0 to 255, and 0 where it is below the threshold."""
    if not pixelwise.on_cpu(noise):
        return torch.floor(torch.where(noise < threshold, 0.0, noise).clamp(0, 1) * 255)
    out = torch.empty_like(noise)
    source, target, least = noise.reshape(-1).numpy(), out.view(-1).numpy(), np.float32(threshold)
    pixelwise.share(noise.numel(), 1, lambda a, b: _flakes_loop(source, least, target, a, b))
    return out


@keep_code
@numba.njit(nogil=True, error_model="numpy")
def _flakes_loop(source, threshold, target, first, last):  # type: ignore[no-untyped-def]
    for i in range(first, last):
        kept = ZERO if source[i] < threshold else source[i]
        kept = ZERO if kept < ZERO else kept
        target[i] = np.floor((ONE if kept > ONE else kept) * FULL)


RED, GREEN, BLUE = np.float32(0.299), np.float32(0.587), np.float32(0.114)
STEEPER, MIDDLE = np.float32(1.5), np.float32(127.5)


@keep_code
@numba.njit(nogil=True, error_model="numpy")
def _snow_loop(source, flakes, shares, target, first, last):  # type: ignore[no-untyped-def]
    """Whiten each image, and add its flakes and the same flakes turned by half a turn."""
    kept, lost = shares
    count = np.uint64(flakes.shape[1])
    for image in range(first, last):
        given, fallen, result = source[image], flakes[image], target[image]
        turned = fallen[::-1]
        for i in range(count):
            j = i * np.uint64(3)
            red, green, blue = given[j], given[j + np.uint64(1)], given[j + np.uint64(2)]
            white = (red * RED + green * GREEN + blue * BLUE) * STEEPER + MIDDLE
            for channel in range(np.uint64(3)):
                value = given[j + channel]
                whitened = value * kept + (value if value > white else white) * lost
                result[j + channel] = whitened + fallen[i] + turned[i]
