"""Moved, turned, bent and mirrored views (paper, section 2, Table 1 and section 5)."""

from torch import Tensor

from cnnsens_bench.degradations.base import degradation, normal_shift, uniform_per_image
from cnnsens_bench.degradations.kernels import pixelwise
from cnnsens_bench.degradations.motion import Motion, Reach
from cnnsens_bench.degradations.streams import NORMAL_MAX
from cnnsens_bench.utils.cpu_libraries import cv2


@degradation(
    "translation",
    draw=normal_shift,
    levels=(0.5, 1, 2, 4, 8, 16),
    level_name="σ",
    geometric=True,
    reach=lambda level: Reach(shift=NORMAL_MAX * level),
)
def translation(draw: Tensor, level: float) -> Motion:
    """Move the box by N(0, σ²) in x and in y, in pixels of the network's input, and crop it from the full image."""
    return Motion(dx=draw[:, 0] * level, dy=draw[:, 1] * level)


@degradation(
    "rotation",
    draw=uniform_per_image,
    levels=(45,),
    level_name="degrees",
    high=180.0,
    geometric=True,
    reach=lambda level: Reach(radius=1.0),
)
def rotation(draw: Tensor, level: float) -> Motion:
    """Turn the view by an angle uniform in [−level, level] about the box's centre; its corners are from the image."""
    return Motion(angle=(draw * 2 - 1) * level)


@degradation(
    "radial_distortion",
    levels=(2, 5, 10, 20, 30, 40),
    level_name="%",
    low=-50.0,
    high=50.0,
    geometric=True,
    reach=lambda level: Reach(radius=1 / (1 - max(level, 0.0) / 100)),
)
def radial_distortion(draw: None, level: float) -> Motion:
    """Distort like a barrel by `level` per cent at the box's corners (negative: like a pincushion), about its centre.

    The level is (r₀ − r) / r₀ of an image point at the radius r that belongs at r₀. That is the usual figure of a lens
    with its sign reversed, so that more is worse (ISO 17850 has r − r₀, by which a barrel is negative). The model is
    the division model r₀ = r / (1 − level/100 · (r/R)²), with R half the diagonal (Fitzgibbon, CVPR 2001). A webcam has
    1 to 5 %, a wide-angle camera 20 to 40 %.
    """
    return Motion(bend=-level / 100)


@degradation("flip_lr")
def flip_lr(pixels: Tensor, draw: None, level: float) -> Tensor:
    """Mirror left to right."""
    if not pixelwise.on_cpu(pixels):
        return pixels.flip(3)
    source, out, target = pixelwise.flat_images(pixels)
    shape = (*pixels.shape[2:], 3)

    def mirror(first: int, last: int) -> None:
        for given, result in zip(source[first:last], target[first:last], strict=True):
            cv2.flip(given.reshape(shape), 1, result.reshape(shape))

    pixelwise.share(len(pixels), source.shape[1] // 3, mirror)
    return out


@degradation("flip_ud")
def flip_ud(pixels: Tensor, draw: None, level: float) -> Tensor:
    """Turn upside down by mirroring top to bottom."""
    return pixels.flip(2)
