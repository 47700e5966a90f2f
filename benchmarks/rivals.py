"""What a user would pick instead: the same formula, or the nearest one, of four other libraries.

Each is used as its own documentation does, in floating point where it can: skimage and albumentations one float image
in [0, 1] after the other, kornia a batch (N, 3, H, W) in [0, 1], imagecorruptions one 8-bit image after the other. Each
draws its own random numbers. Common corruptions are taken at severity 3; what only moves pixels works on the crop,
where ours samples the photograph anew. Snow and fog of kornia and albumentations are left out: they are other formulas.
"""

import math
from collections.abc import Callable

import albumentations as A
import cv2
import kornia.augmentation as K
import numpy as np
import torch
from kornia.color import hsv_to_rgb, rgb_to_hsv
from PIL import Image as Pillow
from published_corruptions import imagecorruptions
from skimage import transform
from skimage.color import hsv2rgb, rgb2hsv
from skimage.util import random_noise
from torch import Tensor

Image = Callable[[np.ndarray], np.ndarray]
Batch = Callable[[Tensor], Tensor]

RNG = np.random.default_rng(0)
HUE, SATURATION, VALUE = range(3)


def skimage_hsv(channel: int | None = None, level: float = 0.0, per_image: bool = False) -> Image:
    """To HSV and back, with N(0, level²) (of 255, or of 256 a turn) on a channel; none: the round trip alone."""

    def apply(image: np.ndarray) -> np.ndarray:
        hsv = rgb2hsv(image)
        if channel is not None:
            noise = RNG.standard_normal((1, 1) if per_image else hsv.shape[:2], dtype=np.float32)
            noisy = hsv[..., channel] + noise * (level / 256 if channel == HUE else level / 255)
            hsv[..., channel] = noisy % 1 if channel == HUE else noisy.clip(0, 1)
        return hsv2rgb(hsv)

    return apply


def kornia_hsv(channel: int | None = None, level: float = 0.0, per_image: bool = False) -> Batch:
    """As `skimage_hsv`; kornia's hue is in radians."""

    def apply(pixels: Tensor) -> Tensor:
        hsv = rgb_to_hsv(pixels)
        if channel is not None:
            count, _, height, width = pixels.shape
            noise = torch.randn((count, 1, 1) if per_image else (count, height, width), device=pixels.device)
            if channel == HUE:
                hsv[:, HUE] = (hsv[:, HUE] + noise * (level * 2 * math.pi / 256)) % (2 * math.pi)
            else:
                hsv[:, channel] = (hsv[:, channel] + noise * (level / 255)).clamp(0, 1)
        return hsv_to_rgb(hsv)

    return apply


def noise(**arguments: object) -> Image:
    """skimage's `random_noise`."""
    return lambda image: random_noise(image, rng=RNG, **arguments)


SKIMAGE: dict[str, Callable[[float], Image]] = {
    "gaussian_rgb": lambda s: noise(mode="gaussian", var=(s / 255) ** 2),
    "gaussian_intensity": lambda s: skimage_hsv(VALUE, s),
    "saturation": lambda s: skimage_hsv(SATURATION, s),
    "hue_global": lambda s: skimage_hsv(HUE, s, per_image=True),
    "hue_local": lambda s: skimage_hsv(HUE, s),
    "pepper": lambda p: noise(mode="pepper", amount=p),
    "translation": lambda s: (
        lambda image: transform.warp(image, transform.SimilarityTransform(translation=(s, s)), order=3, mode="edge")
    ),
    "rotation": lambda a: lambda image: transform.rotate(image, a, order=3, mode="edge"),
    "shot_noise": lambda _: noise(mode="poisson"),
    "common:gaussian_noise": lambda _: noise(mode="gaussian", var=0.18**2),
    "common:shot_noise": lambda _: noise(mode="poisson"),
    "common:impulse_noise": lambda _: noise(mode="s&p", amount=0.09),
    "common:brightness": lambda _: skimage_hsv(VALUE, 0.3 * 255),
}

KORNIA: dict[str, Callable[[float], Batch]] = {
    "gaussian_rgb": lambda s: K.RandomGaussianNoise(0.0, s / 255, p=1),
    "gaussian_intensity": lambda s: kornia_hsv(VALUE, s),
    "saturation": lambda s: kornia_hsv(SATURATION, s),
    "hue_global": lambda s: kornia_hsv(HUE, s, per_image=True),
    "hue_local": lambda s: kornia_hsv(HUE, s),
    "pepper_pixel": lambda p: K.RandomSaltAndPepperNoise(amount=(p, p), salt_vs_pepper=(0.0, 0.0), p=1),
    "translation": lambda s: K.RandomAffine(0.0, translate=(s / 224, s / 224), padding_mode="border", p=1),
    "rotation": lambda a: K.RandomRotation(a, p=1),
    "flip_lr": lambda _: K.RandomHorizontalFlip(p=1),
    "flip_ud": lambda _: K.RandomVerticalFlip(p=1),
    "white_balance": lambda _: K.RandomPlanckianJitter(p=1),
    "jpeg": lambda q: K.RandomJPEG((q, q), p=1),
    "common:gaussian_noise": lambda _: K.RandomGaussianNoise(0.0, 0.18, p=1),
    "common:impulse_noise": lambda _: K.RandomSaltAndPepperNoise(amount=(0.09, 0.09), salt_vs_pepper=(0.5, 0.5), p=1),
    "common:motion_blur": lambda _: K.RandomMotionBlur(15, (-45.0, 45.0), (0.0, 0.0), p=1),
    "common:brightness": lambda _: kornia_hsv(VALUE, 0.3 * 255),
    "common:contrast": lambda _: K.RandomContrast((0.2, 0.2), p=1),
    "common:elastic_transform": lambda _: K.RandomElasticTransform(p=1),
    "common:jpeg_compression": lambda _: K.RandomJPEG((15.0, 15.0), p=1),
}

ALBUMENTATIONS: dict[str, Callable[[float], A.BasicTransform]] = {
    "gaussian_rgb": lambda s: A.GaussNoise(std_range=(s / 255, s / 255), p=1),
    "hue_global": lambda s: A.HueSaturationValue((-s * 180 / 256, s * 180 / 256), (0, 0), (0, 0), p=1),
    "pepper": lambda p: A.PixelDropout(dropout_prob=p, per_channel=True, p=1),
    "pepper_pixel": lambda p: A.PixelDropout(dropout_prob=p, p=1),
    "translation": lambda s: A.Affine(translate_px=(-round(s), round(s)), interpolation=2, border_mode=1, p=1),
    "rotation": lambda a: A.Rotate((-a, a), interpolation=2, border_mode=1, p=1),
    "radial_distortion": lambda b: A.OpticalDistortion((b / 100, b / 100), interpolation=2, border_mode=1, p=1),
    "flip_lr": lambda _: A.HorizontalFlip(p=1),
    "flip_ud": lambda _: A.VerticalFlip(p=1),
    "shot_noise": lambda _: A.ShotNoise(p=1),
    "white_balance": lambda _: A.PlanckianJitter(p=1),
    "jpeg": lambda q: A.ImageCompression(quality_range=(round(q), round(q)), p=1),
    "common:gaussian_noise": lambda _: A.GaussNoise(std_range=(0.18, 0.18), p=1),
    "common:shot_noise": lambda _: A.ShotNoise(p=1),
    "common:impulse_noise": lambda _: A.SaltAndPepper(amount=(0.09, 0.09), p=1),
    "common:defocus_blur": lambda _: A.Defocus(radius=(6, 6), alias_blur=(0.5, 0.5), p=1),
    "common:glass_blur": lambda _: A.GlassBlur(sigma=1.0, max_delta=2, iterations=3, p=1),
    "common:motion_blur": lambda _: A.MotionBlur(blur_limit=(15, 15), p=1),
    "common:zoom_blur": lambda _: A.ZoomBlur(max_factor=(1.2, 1.2), step_factor=(0.02, 0.02), p=1),
    "common:brightness": lambda _: A.RandomBrightnessContrast((0.3, 0.3), (0, 0), p=1),
    "common:contrast": lambda _: A.RandomBrightnessContrast((0, 0), (-0.8, -0.8), p=1),
    "common:elastic_transform": lambda _: A.ElasticTransform(alpha=12, sigma=6, p=1),
    "common:pixelate": lambda _: A.Downscale(
        scale_range=(0.4, 0.4), interpolation_pair={"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_NEAREST}, p=1
    ),
    "common:jpeg_compression": lambda _: A.ImageCompression(quality_range=(15, 15), p=1),
}

CORRUPTIONS = (
    *(
        "gaussian_noise",
        "shot_noise",
        "impulse_noise",
        "defocus_blur",
        "glass_blur",
        "motion_blur",
        "zoom_blur",
        "snow",
    ),
    *("frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)


def published(name: str) -> Callable[[float], Image]:
    """Return what makes a function of imagecorruptions that takes and gives images as arrays, at a severity."""
    function = getattr(imagecorruptions(), name)
    return lambda severity: lambda image: np.asarray(function(Pillow.fromarray(image), int(severity)))


IMAGECORRUPTIONS: dict[str, Callable[[float], Image]] = (
    {f"common:{name}": published(name) for name in CORRUPTIONS} if imagecorruptions() else {}
)
