"""The degradations that benchmarks of whole sweeps apply."""

from cnnsens_bench.degradations import degradations

PAPER = (
    *("gaussian_rgb", "gaussian_intensity", "saturation", "hue_global", "hue_local", "pepper", "pepper_pixel"),
    *("translation", "rotation", "flip_lr", "flip_ud"),
)
COMMON = tuple(name for name in degradations if name.startswith("common:"))
