"""The weather of Hendrycks & Dietterich (2019)."""

import math

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.degradations.imagenet_c.blur import motion_blurred
from cnnsens_bench.degradations.imagenet_c.severity import common
from cnnsens_bench.degradations.kernels.filters import SYMMETRIC, sample
from cnnsens_bench.degradations.kernels.plasma import plasma, plasma_draw
from cnnsens_bench.degradations.kernels.zoom import magnified
from cnnsens_bench.degradations.streams import Streams


@common(((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)), draw=plasma_draw)
def fog(pixels: Tensor, draw: Tensor, parameters: tuple[float, float]) -> Tensor:
    """Add a plasma of some strength and decay to the image in [0, 1], and scale it so that its maximum stays."""
    strength, decay = parameters
    brightest = pixels.amax((1, 2, 3), keepdim=True)
    hazy = pixels + plasma(draw, pixels.shape[-1], decay) * (255 * strength)
    return hazy * (brightest / (brightest + 255 * strength))


def frost_draw(streams: Streams, size: int) -> tuple[Tensor, Tensor]:
    """Draw the numbers of two plasmas, one for the thickness of the ice and one for its needles."""
    return plasma_draw(streams, size), plasma_draw(streams, size)


NEEDLES = (20.0, 80.0, 140.0)
"""The directions of the needles in degrees; ice grows at angles of 60."""
SLENDERNESS = 7
"""How many times longer than wide a needle is."""


def frost_texture(draw: tuple[Tensor, Tensor], size: int) -> Tensor:
    """Return bluish ice of varying thickness, crossed by bright needles: (N, 3, size, size) in [0, 255]."""
    ice = plasma(draw[0], size, 1.8)
    field = plasma(draw[1], size, 1.4)
    steps = np.arange(size) * (224 / size)
    needles = torch.zeros_like(ice)
    for direction in np.deg2rad(NEEDLES):
        along = np.add.outer(steps * math.sin(direction), steps * math.cos(direction)) / SLENDERNESS
        across = np.add.outer(steps * math.cos(direction), -steps * math.sin(direction))
        rows, columns = (torch.from_numpy(part.astype(np.float32)[None]).to(ice.device) for part in (across, along))
        streaks = sample(field, rows, columns, SYMMETRIC)
        ridges = 1 - ((streaks - 0.5) * 6).abs().clamp(max=1)
        needles = torch.maximum(needles, ridges)
    white = ice * 150 + needles * (ice * 170 + 20) + 15
    tint = torch.tensor([0.84, 0.94, 1.0], device=white.device).view(1, 3, 1, 1)
    return (white * tint).clamp(0, 255)


FROST = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
"""By severity: the weights of the image and of the ice."""


@common(FROST, draw=frost_draw)
def frost(pixels: Tensor, draw: tuple[Tensor, Tensor], parameters: tuple[float, float]) -> Tensor:
    """Return a weighted sum of the image and of ice.

    The ice is generated, because this package has no right to distribute ImageNet-C's photographs of ice. Where they
    are installed, `frost.py` takes them.
    """
    image_weight, ice_weight = parameters
    return pixels * image_weight + frost_texture(draw, pixels.shape[-1]) * ice_weight


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
    flakes = magnified(normal * deviation + mean, zoom)
    flakes = torch.where(flakes < threshold, 0.0, flakes)
    flakes = torch.floor(flakes.clamp(0, 1) * 255)
    flakes = motion_blurred(flakes, radius, sigma, 90 * wind.double() - 135)
    red, green, blue = pixels.split(1, dim=1)
    gray = red * 0.299 + green * 0.587 + blue * 0.114
    whitened = pixels * kept + torch.maximum(pixels, gray * 1.5 + 127.5) * (1 - kept)
    return whitened + flakes + flakes.flip(2, 3)
