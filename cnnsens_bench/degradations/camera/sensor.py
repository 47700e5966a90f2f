"""What cheap cameras do to a picture, each at a level with a physical meaning."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.degradations.base import degradation, uniform_per_value
from cnnsens_bench.degradations.camera.light import COLDEST, DAYLIGHT, HOTTEST, illuminant_gains, to_light, to_pixel
from cnnsens_bench.degradations.kernels import pixelwise
from cnnsens_bench.degradations.kernels.filters import MIRROR, correlate, pad
from cnnsens_bench.degradations.kernels.jpeg import coded
from cnnsens_bench.degradations.kernels.photons import photon_noise
from cnnsens_bench.degradations.kernels.pixelwise import TENSORS, Maths, scalar_maths
from cnnsens_bench.degradations.kernels.resizing import resize
from cnnsens_bench.degradations.streams import Streams
from cnnsens_bench.utils.compiled_loops import keep_code
from cnnsens_bench.utils.cpu_libraries import cv2, numba
from cnnsens_bench.utils.transfer import constant, upload

ZERO, FULL = np.float32(0), np.float32(255)
VALUES = 256


def mean_electrons(maths: Maths) -> Callable[[Any, Any], Any]:
    """Return the formula: (pixel value, electrons at white) → the mean number of electrons."""
    light = maths.function(to_light(maths))
    return lambda given, electrons: light(given) * electrons


def counted_pixel(maths: Maths) -> Callable[[Any, Any], Any]:
    """Return the formula: (counted electrons, electrons at white) → pixel value."""
    pixel = maths.function(to_pixel(maths))
    return lambda count, electrons: pixel(count / electrons)


counted = photon_noise(mean_electrons, counted_pixel)


@degradation(
    "shot_noise",
    draw=uniform_per_value,
    levels=(10_000, 3000, 1000, 300, 100, 30, 10),
    level_name="electrons",
    low=1.0,
    high=1e7,
)
def shot_noise(pixels: Tensor, draw: Tensor, electrons: float) -> Tensor:
    """Count photons one by one: a Poisson number of electrons per value, `level` of them on average at white.

    The count is of linear light: the sRGB curve is undone before it and applied after it, as in the photon transfer of
    EMVA 1288 and in Foi et al. (TIP 2008). A pixel of a phone holds some 5000 electrons; at dusk it sees 100 or fewer.
    """
    return counted(pixels, draw, electrons)


def exposed_value(maths: Maths) -> Callable[[Any, Any], Any]:
    """Return the formula: (pixel value, gain) → the pixel value of its linear light times the gain."""
    light, pixel = maths.function(to_light(maths)), maths.function(to_pixel(maths))
    return lambda given, gain: pixel(light(given) * gain)


def exposed(pixels: Tensor, gains: Tensor) -> Tensor:
    """Multiply the linear light of images by gains, which expand to (N, 3, H, 1)."""
    if not pixelwise.on_cpu(pixels):
        return exposed_value(TENSORS)(pixels, gains)
    count, _, height, _ = pixels.shape
    source, out, target = pixelwise.flat_images(pixels)
    lines = gains.expand(count, 3, height, 1)[..., 0].permute(0, 2, 1).contiguous().numpy()
    loop = _exposure_loop()
    pixelwise.share(count, source.shape[1] // 3, lambda a, b: loop(source, lines, target, a, b))
    return out


@functools.cache
def _exposure_loop() -> Any:
    maths = scalar_maths()
    formula = maths.function(exposed_value(maths))

    @numba.njit(nogil=True, error_model="numpy")
    def loop(source, gains, target, first, last):  # type: ignore[no-untyped-def]
        """Look up whole values in a table, which is made anew where gains change from line to line."""
        height = gains.shape[1]
        width = source.shape[1] // height
        table = np.empty((VALUES, 3), np.float32)
        for image in range(first, last):
            for y in range(height):
                red, green, blue = gains[image, y]
                if y == 0 or red != gains[image, y - 1, 0] or green != gains[image, y - 1, 1]:
                    for value in range(VALUES):
                        table[value, 0] = formula(np.float32(value), red)
                    same = red == green and green == blue
                    for value in range(VALUES):
                        table[value, 1] = table[value, 0] if same else formula(np.float32(value), green)
                        table[value, 2] = table[value, 0] if same else formula(np.float32(value), blue)
                given, result = source[image, y * width :], target[image, y * width :]
                for x in range(width // 3):
                    for channel in range(3):
                        value = given[3 * x + channel]
                        whole = np.uint8(value)
                        if np.float32(whole) == value:
                            result[3 * x + channel] = table[whole, channel]
                        else:
                            result[3 * x + channel] = formula(value, gains[image, y, channel])

    return loop


@degradation(
    "white_balance",
    levels=(-4000, -3000, -2000, -1000, 2000, 5000, 10_000),
    level_name="kelvin",
    low=COLDEST - DAYLIGHT,
    high=HOTTEST - DAYLIGHT,
)
def white_balance(pixels: Tensor, draw: None, level: float) -> Tensor:
    """Balance the white for daylight of 6504 K under a black body of `level` K more (bluer) or less (redder).

    The gains of the channels are those of the Planckian locus (Kim et al. 2006) in linear sRGB, and green keeps its
    value. A light bulb has 2700 K (level −3800), shade at noon 8000 K (level +1500).
    """
    if level == 0:
        return pixels
    gains = constant(illuminant_gains(DAYLIGHT + level), pixels.device)
    return exposed(pixels, gains.view(1, 3, 1, 1))


MAINS_FLICKER = 100.0
"""The frequency of a lamp's flicker in hertz, twice that of the mains."""
READOUT = 1 / 30
"""The seconds in which a frame is read line by line."""


def phase_draw(streams: Streams, size: int) -> Tensor:
    """Draw the phase of the mains, (N,) uniform in [0, 1), on the host, where the light of each line is computed."""
    return streams.on("cpu").uniform(1)[:, 0]


@degradation(
    "rolling_exposure", draw=phase_draw, levels=(10, 20, 40, 60, 80, 100), level_name="percent flicker", high=100
)
def rolling_exposure(pixels: Tensor, draw: Tensor, level: float) -> Tensor:
    """Expose line by line under a lamp that flickers: each line meets another moment of the mains' cycle.

    The light swings by ± `level` per cent about its mean at 100 Hz. (This is the percent flicker of IEEE 1789-2015:
    10 to 20 for a bulb, 30 to 40 for a fluorescent tube, 100 for a cheap LED lamp.) The lines are read over 1/30 s, so
    3⅓ bands cross the frame. Exposures are short, and the phase is random.
    """
    height = pixels.shape[-2]
    cycles = np.arange(height) / height * READOUT * MAINS_FLICKER
    swing = np.sin(2 * math.pi * (cycles + draw.double().numpy()[:, None]))
    gains = upload((1 + level / 100 * swing).astype(np.float32), pixels.device)
    return exposed(pixels, gains.view(-1, 1, height, 1))


# The filters of Malvar, He and Cutler (ICASSP 2004), figure 2, which are in eighths there.
GREEN = np.array([[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]]) / 8
BESIDE = np.array([[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]]) / 8
ACROSS = np.array([[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]]) / 8

MALVAR = (GREEN, BESIDE, BESIDE.T, ACROSS)
"""The filters of green, of red beside red or blue beside blue, of the same above and below, and of red at blue."""


@degradation("bayer", levels=(1, 2, 3, 4), level_name="pitch", low=1.0, high=32.0)
def bayer(pixels: Tensor, draw: None, level: float) -> Tensor:
    """Keep one colour per pixel and interpolate the others: an RGGB sensor with pixels `level` input pixels wide.

    A pixel of the sensor averages its light. The mosaic is filled in by the method of Malvar, He and Cutler (2004), as
    in cheap cameras, and the picture is resized back bilinearly. At level 1 the sensor has as many pixels as the input.
    """
    size = pixels.shape[-1]
    sensor = max(2, round(size / level))
    resized = resize(pixels, sensor, area_weights) if sensor != size else pixels
    picture = demosaiced(mosaic(resized))
    return resize(picture, size, linear_weights) if sensor != size else picture


def mosaic(pixels: Tensor) -> Tensor:
    """Return the values that an RGGB sensor keeps of images (N, 3, H, W): (N, 1, H, W)."""
    kept = pixels[:, 1:2].clone()
    kept[:, 0, ::2, ::2] = pixels[:, 0, ::2, ::2]
    kept[:, 0, 1::2, 1::2] = pixels[:, 2, 1::2, 1::2]
    return kept


def demosaiced(raw: Tensor) -> Tensor:
    """Fill in the mosaic (N, 1, H, W) of an RGGB sensor: (N, 3, H, W) in [0, 255]."""
    if pixelwise.on_cpu(raw):
        return _demosaiced_by_loops(raw)
    green, beside, above, across = (correlate(raw, kernel, MIRROR) for kernel in MALVAR)
    red, middle, blue = raw.clone(), raw.clone(), raw.clone()
    for row, column in ((0, 0), (1, 1)):
        middle[..., row::2, column::2] = green[..., row::2, column::2]
    # In the row of a red pixel lie green ones, whose red neighbours are left and right; the same holds for blue.
    for colour, row, column in ((red, 0, 0), (blue, 1, 1)):
        other_row, other_column = 1 - row, 1 - column
        colour[..., row::2, other_column::2] = beside[..., row::2, other_column::2]
        colour[..., other_row::2, column::2] = above[..., other_row::2, column::2]
        colour[..., other_row::2, other_column::2] = across[..., other_row::2, other_column::2]
    return torch.cat([red, middle, blue], dim=1).clamp(0, 255)


def _demosaiced_by_loops(raw: Tensor) -> Tensor:
    count, _, height, width = raw.shape
    padded = np.ascontiguousarray(pad(raw, 2, 2, MIRROR)[:, 0].numpy())
    out = torch.empty(count, 3, height, width, memory_format=torch.channels_last)
    target = out.permute(0, 2, 3, 1).numpy()
    taps = [(kernel, y, x, weight[y, x]) for kernel, weight in enumerate(MALVAR) for y, x in np.argwhere(weight)]
    taps_at = np.array([tap[:3] for tap in taps])
    weights = np.array([tap[3] for tap in taps], np.float32)
    pixelwise.share(count, height * width, lambda a, b: _demosaic_loop(padded, taps_at, weights, target, a, b))
    return out


@keep_code
@numba.njit(nogil=True, error_model="numpy")
def _demosaic_loop(padded, taps_at, weights, target, first, last):  # type: ignore[no-untyped-def]
    height, width = target.shape[1], target.shape[2]
    lines = np.empty((4, width), np.float32)
    for image in range(first, last):
        for y in range(height):
            lines[:] = ZERO
            for tap in range(len(weights)):
                kernel, row, column = taps_at[tap]
                line, given, weight = lines[kernel], padded[image, y + row, column : column + width], weights[tap]
                for x in range(width):
                    line[x] += weight * given[x]
            for kernel in range(4):
                for x in range(width):
                    value = lines[kernel, x] if lines[kernel, x] > ZERO else ZERO
                    lines[kernel, x] = value if value < FULL else FULL
            own, result = padded[image, y + 2, 2 : 2 + width], target[image, y]
            # A row has pixels of green and of one other colour, which is red in even rows; the third lies above.
            other, third, of_other = (0, 2, 0) if y % 2 == 0 else (2, 0, 1)
            for x in range(of_other, width, 2):
                kept = own[x] if own[x] > ZERO else ZERO
                result[x, other] = kept if kept < FULL else FULL
                result[x, 1] = lines[0, x]
                result[x, third] = lines[3, x]
            for x in range(1 - of_other, width, 2):
                kept = own[x] if own[x] > ZERO else ZERO
                result[x, 1] = kept if kept < FULL else FULL
                result[x, other] = lines[1, x]
                result[x, third] = lines[2, x]


def area_weights(source: int, result: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weights like `box_weights` for the exact mean over the area of each result pixel, to fewer pixels."""
    scale = source / result
    left = np.arange(result) * scale
    first = np.minimum(left.astype(int), source - 1)
    steps = np.arange(math.ceil(scale) + 1)[:, None]
    overlap = np.minimum(first + steps + 1, left + scale) - np.maximum(first + steps, left)
    return np.minimum(first + steps, source - 1), (overlap.clip(0) / scale).astype(np.float32)


def linear_weights(source: int, result: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weights like `box_weights` for linear interpolation between pixel centres, with edges repeated."""
    centres = ((np.arange(result) + 0.5) * source / result - 0.5).clip(0, source - 1)
    first = np.minimum(centres.astype(int), max(source - 2, 0))
    right = centres - first
    return np.stack([first, np.minimum(first + 1, source - 1)]), np.stack([1 - right, right]).astype(np.float32)


@degradation("jpeg", levels=(90, 70, 50, 30, 20, 10, 5), level_name="quality", low=1.0, high=100.0, whole=True)
def jpeg(pixels: Tensor, draw: None, level: float) -> Tensor:
    """Round to 8 bits and compress as JPEG of quality `level` (the IJG's scale, with colour at half the resolution)."""
    if not pixelwise.on_cpu(pixels):
        whole = pixels.detach().float().nan_to_num(0.0).clamp(0, 255).round().int()
        return coded(whole, int(level)).to(pixels.dtype)
    count, _, height, width = pixels.shape
    source, out, target = pixelwise.flat_images(pixels.detach().float())
    options = [cv2.IMWRITE_JPEG_QUALITY, int(level)]

    def code(first: int, last: int) -> None:
        eight_bit = np.empty(source.shape[1], np.uint8)
        image = eight_bit.reshape(height, width, 3)
        for i in range(first, last):
            _round_loop(source[i], eight_bit)
            good, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
            if not good:
                raise ValueError("OpenCV could not write the image as JPEG")
            decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
            target[i] = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).reshape(-1)

    pixelwise.share(count, pixelwise.SMALLEST_SHARE, code)
    return out.to(pixels.dtype)


ROUNDER = np.float32(1.5 * 2**23)
"""The float32 whose addition leaves no bits for fractions, so that a sum is rounded to the nearest even number."""


@keep_code
@numba.njit(nogil=True, error_model="numpy")
def _round_loop(source, target):  # type: ignore[no-untyped-def]
    for i in range(len(source)):
        value = source[i] if source[i] > ZERO else ZERO
        value = value if value < FULL else FULL
        target[i] = np.uint8(np.int32((value + ROUNDER) - ROUNDER))
