"""Drawn photographs: smooth shading, discs with soft edges and patches of texture, and folders of them."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from cnnsens_bench.camera.report import BrightnessNoise, CameraReport, Measurement, MixMember

HEIGHT, WIDTH = 180, 240
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@functools.lru_cache(maxsize=32)
def scene(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A picture without noise, (height, width, 3) float64 with values from about 30 to 225."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    picture = np.empty((height, width, 3))
    for channel in range(3):
        across, down, base = rng.uniform(-0.25, 0.25), rng.uniform(-0.25, 0.25), rng.uniform(90, 160)
        picture[..., channel] = base + across * (x - width / 2) + down * (y - height / 2)
    for _ in range(14):
        radius = rng.uniform(0.04, 0.2) * width
        distance = np.hypot(x - rng.uniform(0, width), y - rng.uniform(0, height)) - radius
        inside = 1 / (1 + np.exp(np.clip(distance / 0.35, -50, 50)))[..., None]
        picture = picture * (1 - inside) + rng.uniform(50, 200, 3) * inside
    top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
    part = (slice(top, top + height // 3), slice(left, left + width // 3))
    picture[part] += cv2.GaussianBlur(rng.normal(0, 60, picture[part].shape), (0, 0), 1.2)
    return np.clip(picture, 30, 225)


def eight_bit(picture: np.ndarray) -> np.ndarray:
    return np.clip(picture, 0, 255).round().astype(np.uint8)


def with_noise(sigma: float) -> Change:
    return lambda picture, rng: picture + rng.normal(0, sigma, picture.shape)


def unchanged(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return picture


def photographs(seeds: Iterable[int], change: Change = unchanged) -> list[np.ndarray]:
    """Drawn photographs after a change, (HEIGHT, WIDTH, 3) uint8."""
    return [eight_bit(change(scene(seed), np.random.default_rng([seed, 7]))) for seed in seeds]


def folder_of(folder: Path, pictures: Iterable[np.ndarray], ending: str = "png", **options: object) -> Path:
    """Write pictures as files into a folder, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number:02d}.{ending}", **options)
    return folder


def report(**changes: object) -> CameraReport:
    """A report as `camera` makes them."""
    sigma = Measurement.of(8.0, 7.5, 8.5)
    bins = BrightnessNoise(brightness=112.0, photographs=20, red=sigma, green=sigma, blue=sigma, intensity=sigma)
    given = {
        "name": "phone",
        "photographs": 20,
        "measurements": {"noise_red": sigma, "blur": Measurement.of(0.4)},
        "noise_by_brightness": [bins],
        "levels": {"gaussian_rgb": sigma, "jpeg": Measurement.of(80, 80, 80)},
        "mix": [MixMember(degradation="gaussian_rgb", level=8.0), MixMember(degradation="jpeg", level=80.0)],
        "notes": ["blur is that of the median strong edge"],
    }
    return CameraReport(**(given | changes))  # type: ignore[arg-type]
