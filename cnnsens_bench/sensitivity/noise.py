"""Additive noise of every value: its mean, and gradients with respect to it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

COMMON_DEVIATIONS = (0.08, 0.12, 0.18, 0.26, 0.38)
"""σ of `common:gaussian_noise` at severities 1 to 5, for values in [0, 1] (Hendrycks & Dietterich 2019)."""
COMMON_PHOTONS = (60, 25, 12, 5, 3)
"""The mean number of photons of a white value of `common:shot_noise` at severities 1 to 5."""
ADDITIVE = ("gaussian_rgb", "common:gaussian_noise", "common:shot_noise")
"""The degradations that change every value a little, so that a gradient tells their effect."""
REPLACING = ("pepper_pixel", "common:impulse_noise")
"""The degradations that change few values, but by so much that a gradient overestimates the effect several times."""


@dataclass(frozen=True)
class NoiseModel:
    """How a degradation changes the values of a batch of images.

    Parameters
    ----------
    mean
        The expectation of the change of each value, (N, 3, H, W), or None where it has no simple form.
    by_unit_noise
        Takes a gradient at a degraded batch and the batch, both (N, 3, H, W), and returns the gradient with respect to
        independent noise of variance 1, one row for each image. Its squared norm is the variance to first order.
    """

    mean: Tensor | None
    by_unit_noise: Callable[[Tensor, Tensor], Tensor]


def noise_model(degradation: str, level: float, pixels: Tensor) -> NoiseModel:
    """Return the model of a degradation of `ADDITIVE` at a level, for images (N, 3, H, W) in [0, 255].

    Raises
    ------
    KeyError
        If the degradation is another one.
    """
    if degradation in ("gaussian_rgb", "common:gaussian_noise"):
        sigma = level if degradation == "gaussian_rgb" else 255 * COMMON_DEVIATIONS[int(level) - 1]
        return NoiseModel(clamped_noise(pixels, sigma)[0], lambda gradient, seen: sigma * _unclamped(gradient, seen))
    if degradation == "common:shot_noise":
        spread = (pixels * 255 / COMMON_PHOTONS[int(level) - 1]).sqrt()
        return NoiseModel(None, lambda gradient, seen: _unclamped(gradient * spread, seen))
    raise KeyError(degradation)


def _unclamped(gradient: Tensor, seen: Tensor) -> Tensor:
    """Return a gradient without the values that the clamp holds at 0 or 255, one row for each image."""
    return (gradient * ((seen > 0) & (seen < 255))).flatten(1)


def clamped_noise(pixels: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Return the mean and the variance of clamp(z + σε, 0, 255) − z for standard normal ε, in the shape of `pixels`."""
    if sigma == 0:
        return torch.zeros_like(pixels), torch.zeros_like(pixels)
    low, high = -pixels / sigma, (255 - pixels) / sigma
    density_low, density_high = _density(low), _density(high)
    below, above = torch.special.ndtr(low), torch.special.ndtr(-high)
    inside = 1 - below - above
    first = density_low - density_high + low * below + high * above
    second = inside + low * density_low - high * density_high + low**2 * below + high**2 * above
    return sigma * first, sigma**2 * (second - first**2).clamp(min=0)


def _density(z: Tensor) -> Tensor:
    return torch.exp(-(z**2) / 2) * (2 * torch.pi) ** -0.5
