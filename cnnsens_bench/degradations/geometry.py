"""Moved and mirrored boxes (paper, section 2 and Table 1)."""

from torch import Tensor

from cnnsens_bench.degradations.base import Motion, degradation, normal_shift
from cnnsens_bench.degradations.streams import NORMAL_MAX


@degradation(
    "translation",
    draw=normal_shift,
    levels=(0.5, 1, 2, 4, 8, 16),
    level_name="σ",
    geometric=True,
    reach=lambda level: NORMAL_MAX * level,
)
def translation(draw: Tensor, level: float) -> Motion:
    """The box moves by N(0, σ²) in x and in y, in pixels of the network's input, and is cropped from the full image."""
    return Motion(dx=draw[:, 0] * level, dy=draw[:, 1] * level)


@degradation("flip_lr")
def flip_lr(pixels: Tensor, draw: None, level: float) -> Tensor:
    """Mirrored left to right."""
    return pixels.flip(3)


@degradation("flip_ud")
def flip_ud(pixels: Tensor, draw: None, level: float) -> Tensor:
    """Upside down."""
    return pixels.flip(2)
