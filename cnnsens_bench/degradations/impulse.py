"""Impulse noise (paper, section 2)."""

import torch
from torch import Tensor

from cnnsens_bench.degradations.base import degradation, uniform_per_pixel, uniform_per_value

PROBABILITIES = (0.001, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)


@degradation("pepper", draw=uniform_per_value, levels=PROBABILITIES, level_name="p", high=1.0)
def pepper(pixels: Tensor, draw: Tensor, level: float) -> Tensor:
    """Each channel value of each pixel is 0 with probability p, independently."""
    # A mask written as 0.0 and 1.0 is multiplied four times faster than one of booleans.
    return torch.ge(draw, level, out=torch.empty_like(draw)).mul_(pixels)


@degradation("pepper_pixel", draw=uniform_per_pixel, levels=PROBABILITIES, level_name="p", high=1.0)
def pepper_pixel(pixels: Tensor, draw: Tensor, level: float) -> Tensor:
    """Each pixel is black with probability p (the form that section 4 of the paper analyses)."""
    return torch.ge(draw, level, out=torch.empty_like(draw)) * pixels
