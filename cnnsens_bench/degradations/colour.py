"""Gaussian noise on the colour channels (paper, section 2)."""

from torch import Tensor

from cnnsens_bench.degradations.base import degradation, normal_per_pixel, normal_per_value

SIGMAS = (1, 2, 4, 8, 16, 32, 64)


@degradation("gaussian_rgb", draw=normal_per_value, levels=SIGMAS, level_name="σ")
def gaussian_rgb(pixels: Tensor, draw: Tensor, level: float) -> Tensor:
    """N(0, σ²) added to every pixel and channel on its own."""
    # Two steps, not add(alpha=…): a fused multiply-add would round differently in vector and scalar code.
    return (draw * level).add_(pixels)


@degradation("gaussian_intensity", draw=normal_per_pixel, levels=SIGMAS, level_name="σ")
def gaussian_intensity(pixels: Tensor, draw: Tensor, level: float) -> Tensor:
    """N(0, σ²) added to I of HSI, I′ kept in [0, 255]; hue and saturation stay: rgb·(I′/I).

    A black pixel has no hue: its limit is the gray of the new intensity.
    """
    red, green, blue = pixels.unbind(1)
    intensity = (red + green).add_(blue).div_(3).unsqueeze_(1)
    noisy = (draw * level).add_(intensity).clamp_(0, 255)
    gain = noisy / intensity
    black = intensity == 0
    if not black.any():
        return pixels * gain
    return (pixels * gain.masked_fill_(black, 0)).add_(noisy.masked_fill_(~black, 0))
