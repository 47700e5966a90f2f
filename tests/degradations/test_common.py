"""The fifteen corruptions against the formulas that made ImageNet-C, image by image in NumPy, scipy, skimage, OpenCV
and Pillow, from the same random numbers."""

import io
import math
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats
from skimage.color import hsv2rgb, rgb2hsv
from skimage.filters import gaussian
from torch import Tensor

from cnnsens_bench.degradations import Streams, degradations
from cnnsens_bench.degradations.imagenet_c import weather
from cnnsens_bench.degradations.imagenet_c.weather import frost_texture
from cnnsens_bench.utils.errors import UserError
from tests.degradations.test_filters import published_plasma

SIZE = 72
NAMES = [name for name in degradations if name.startswith("common:")]


def photograph() -> np.ndarray:
    """Return a picture with smooth shapes, edges and texture: (SIZE, SIZE, 3) uint8."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    rng = np.random.default_rng(3)
    channels = [120 + 90 * np.sin(5 * x + c) * np.cos(4 * y - c) + 60 * (x + y * c > 0.9) for c in range(3)]
    noisy = np.stack(channels, -1) + ndimage.gaussian_filter(rng.normal(0, 40, (SIZE, SIZE, 3)), (1, 1, 0))
    noisy[:9, :9] = 0
    noisy[-9:, -9:] = 255
    return noisy.clip(0, 255).astype(np.uint8)


def gaussian_noise(x: np.ndarray, draw: Tensor, severity: int) -> np.ndarray:
    scale = [0.08, 0.12, 0.18, 0.26, 0.38][severity - 1]
    return np.clip(x / 255.0 + scale * hwc(draw), 0, 1) * 255


def shot_noise(x: np.ndarray, draw: Tensor, severity: int) -> np.ndarray:
    c = [60, 25, 12, 5, 3][severity - 1]
    counts = stats.poisson.ppf(hwc(draw) + 2**-25, x / 255.0 * c)  # the middle of a draw's interval: ppf(0) is −1
    return np.clip(counts / c, 0, 1) * 255


def impulse_noise(x: np.ndarray, draw: Tensor, severity: int) -> np.ndarray:
    amount = [0.03, 0.06, 0.09, 0.17, 0.27][severity - 1]
    out = x.astype(float)
    out[hwc(draw) < amount / 2] = 0
    out[hwc(draw) >= 1 - amount / 2] = 255
    return out


def defocus_blur(x: np.ndarray, draw: None, severity: int) -> np.ndarray:
    radius, alias = [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)][severity - 1]
    steps = np.arange(-8, 9) if radius <= 8 else np.arange(-radius, radius + 1)
    xx, yy = np.meshgrid(steps, steps)
    disk = (xx**2 + yy**2 <= radius**2).astype(np.float32)
    disk = cv2.GaussianBlur(disk / disk.sum(), (3, 3) if radius <= 8 else (5, 5), sigmaX=alias)
    return np.clip(np.stack([cv2.filter2D(x[..., c] / 255.0, -1, disk) for c in range(3)], -1), 0, 1) * 255


def glass_blur(x: np.ndarray, draw: Tensor, severity: int) -> np.ndarray:
    sigma, delta, rounds = [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)][severity - 1]
    shuffled = np.uint8(gaussian(x / 255.0, sigma=sigma, channel_axis=2) * 255 + 1e-3)
    numbers = draw[0].numpy()
    for n in range(rounds):
        for h in range(SIZE - delta, delta, -1):
            for w in range(SIZE - delta, delta, -1):
                dx, dy = (int(u * np.float32(2 * delta)) - delta for u in numbers[n, h, w])
                # The published code exchanges two views, so that only the first half of the exchange takes effect.
                shuffled[h, w], shuffled[h + dy, w + dx] = shuffled[h + dy, w + dx], shuffled[h, w]
    return np.clip(gaussian(shuffled / 255.0, sigma=sigma, channel_axis=2), 0, 1) * 255


def magick_motion_blur(x: np.ndarray, radius: float, sigma: float, degrees: float) -> np.ndarray:
    """Compute ImageMagick's MotionBlurImage, pixel by pixel of the kernel, as in its source."""
    width = int(2 * math.ceil(radius) + 1)
    kernel = np.exp(-(np.arange(width) ** 2) / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma)
    kernel /= kernel.sum()
    px, py = width * math.sin(math.radians(degrees)), width * math.cos(math.radians(degrees))
    rows, columns = np.mgrid[: x.shape[0], : x.shape[1]]
    total = np.zeros(x.shape)
    for i in range(width):
        dx = math.ceil(i * py / math.hypot(px, py) - 0.5)
        dy = math.ceil(i * px / math.hypot(px, py) - 0.5)
        total += kernel[i] * x[(rows + dy).clip(0, x.shape[0] - 1), (columns + dx).clip(0, x.shape[1] - 1)]
    return total


def motion_blur(x: np.ndarray, draw: Tensor, severity: int) -> np.ndarray:
    radius, sigma = [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)][severity - 1]
    return magick_motion_blur(x, radius, sigma, 90 * draw.item() - 45)


def clipped_zoom(x: np.ndarray, factor: float) -> np.ndarray:
    part = int(np.ceil(SIZE / factor))
    top = (SIZE - part) // 2
    large = ndimage.zoom(x[top : top + part, top : top + part], (factor, factor, 1), order=1)
    trim = (large.shape[0] - SIZE) // 2
    return large[trim : trim + SIZE, trim : trim + SIZE]


def zoom_blur(x: np.ndarray, draw: None, severity: int) -> np.ndarray:
    end, step = [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)][severity - 1]
    factors = np.arange(1, end, step)
    total = sum(clipped_zoom(x / 255.0, factor) for factor in factors)
    return np.clip((x / 255.0 + total) / (len(factors) + 1), 0, 1) * 255


def fog(x: np.ndarray, draw: Tensor, severity: int) -> np.ndarray:
    strength, decay = [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)][severity - 1]
    plasma = published_plasma(draw[0].double().numpy(), decay)[:SIZE, :SIZE, None]
    most = x.max() / 255.0
    return np.clip((x / 255.0 + strength * plasma) * most / (most + strength), 0, 1) * 255


def frost(x: np.ndarray, draw: tuple[Tensor, Tensor], severity: int) -> np.ndarray:
    of_image, of_ice = [(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)][severity - 1]
    return np.clip(of_image * x + of_ice * hwc(frost_texture(draw, SIZE)), 0, 255)


def snow(x: np.ndarray, draw: tuple[Tensor, Tensor], severity: int) -> np.ndarray:
    loc, scale, zoom, threshold, radius, sigma, kept = [
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ][severity - 1]
    image = x.astype(np.float32) / 255
    layer = clipped_zoom(loc + scale * draw[0][0, 0].double().numpy()[..., None], zoom)
    layer[layer < threshold] = 0
    layer = (np.clip(layer, 0, 1) * 255).astype(np.uint8)
    layer = magick_motion_blur(layer.astype(float), radius, sigma, 90 * draw[1].item() - 135) / 255
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    image = kept * image + (1 - kept) * np.maximum(image, gray * 1.5 + 0.5)
    return np.clip(image + layer + np.rot90(layer, k=2), 0, 1) * 255


def brightness(x: np.ndarray, draw: None, severity: int) -> np.ndarray:
    hsv = rgb2hsv(x / 255.0)
    hsv[..., 2] = np.clip(hsv[..., 2] + [0.1, 0.2, 0.3, 0.4, 0.5][severity - 1], 0, 1)
    return hsv2rgb(hsv) * 255


def contrast(x: np.ndarray, draw: None, severity: int) -> np.ndarray:
    kept = [0.4, 0.3, 0.2, 0.1, 0.05][severity - 1]
    means = np.mean(x / 255.0, axis=(0, 1), keepdims=True)
    return np.clip((x / 255.0 - means) * kept + means, 0, 1) * 255


def elastic_transform(x: np.ndarray, draw: tuple[Tensor, Tensor], severity: int) -> np.ndarray:
    strength, sigma, corners = [
        (244 * 2, 244 * 0.7, 244 * 0.1),
        (244 * 2, 244 * 0.08, 244 * 0.2),
        (244 * 0.05, 244 * 0.01, 244 * 0.02),
        (244 * 0.07, 244 * 0.01, 244 * 0.02),
        (244 * 0.12, 244 * 0.01, 244 * 0.02),
    ][severity - 1]
    centre = np.float32((SIZE, SIZE)) // 2
    side = SIZE // 3
    before = np.float32([centre + side, [centre[0] + side, centre[1] - side], centre - side])
    after = before + (draw[0][0].numpy() * 2 - 1) * np.float32(corners)
    matrix = cv2.getAffineTransform(before, after.astype(np.float32))
    # OpenCV rounds positions to 1/32 px; the exact ones are taken here.
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(float)
    source = np.einsum("ij,jhw->ihw", inverse, np.stack([columns, rows, np.ones_like(rows)]))
    turned = np.stack(
        [ndimage.map_coordinates(x[..., c].astype(float), [source[1], source[0]], order=1, mode="mirror")
         for c in range(3)], -1)  # fmt: skip
    field = draw[1][0].double().numpy() * 2 - 1
    dx, dy = (gaussian(part, sigma, mode="reflect", truncate=3) * strength for part in field)
    return np.stack(
        [ndimage.map_coordinates(turned[..., c], [rows + dy, columns + dx], order=1, mode="reflect")
         for c in range(3)], -1)  # fmt: skip


def pixelate(x: np.ndarray, draw: None, severity: int) -> np.ndarray:
    side = int(SIZE * [0.6, 0.5, 0.4, 0.3, 0.25][severity - 1])
    small = Image.fromarray(x).resize((side, side), Image.Resampling.BOX)
    return np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BOX), float)


def jpeg_compression(x: np.ndarray, draw: None, severity: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(x).save(file, "JPEG", quality=[25, 18, 15, 10, 7][severity - 1])
    return np.asarray(Image.open(file), float)


def hwc(values: Tensor) -> np.ndarray:
    return values[0].permute(1, 2, 0).double().numpy()


NOISE = (gaussian_noise, shot_noise, impulse_noise)
BLUR = (defocus_blur, glass_blur, motion_blur, zoom_blur)
WEATHER = (snow, frost, fog, brightness)
DIGITAL = (contrast, elastic_transform, pixelate, jpeg_compression)
PUBLISHED: dict[str, Callable] = {f.__name__: f for f in NOISE + BLUR + WEATHER + DIGITAL}
CLOSE = {"pixelate": 1.01, "elastic_transform": 2e-2}
"""The tolerance in gray levels where it is not 0.002; Pillow rounds to 8 bits after each axis."""
RARE = {"glass_blur": 1e-2}
"""The share of values that may differ where it is not 0.001; a rounding can change a step of 8 bits or a photon."""


def test_all_fifteen_are_here() -> None:
    assert sorted(NAMES) == sorted(f"common:{name}" for name in PUBLISHED)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_it_is_the_published_formula(name: str, severity: int) -> None:
    image = photograph()
    d = degradations[f"common:{name}"]
    draw = d.draw(Streams(0, "data", ["a"], 0), SIZE)
    ours = d.apply(torch.from_numpy(image).permute(2, 0, 1)[None].float(), draw, float(severity)).clamp(0, 255)
    expected = PUBLISHED[name](image, draw, severity)
    off = np.abs(hwc(ours) - expected)
    assert (off > CLOSE.get(name, 2e-3)).mean() < RARE.get(name, 1e-3)
    assert off.max() < (255 / 12 if name == "shot_noise" else 1.1)
    assert np.abs(hwc(ours) - image).mean() > 0.5


def test_severities_are_whole_numbers_from_one_to_five() -> None:
    d = degradations["common:fog"]
    assert d.levels == (1, 2, 3, 4, 5)
    for wrong in (0, 6, 2.5):
        with pytest.raises(UserError, match="common:fog"):
            d.check_level(wrong)


def test_worse_is_worse() -> None:
    """Each severity changes more than the one before, except where the published parameters are not in that order."""
    image = torch.from_numpy(photograph()).permute(2, 0, 1)[None].float()
    unordered = {"elastic_transform", "fog", "frost", "glass_blur", "snow"}
    for name in set(PUBLISHED) - unordered:
        d = degradations[f"common:{name}"]
        draw = d.draw(Streams(0, "data", ["a"], 0), SIZE)
        changes = [(d.apply(image, draw, level).clamp(0, 255) - image).abs().mean() for level in d.levels]
        assert changes == sorted(changes), name


@pytest.mark.parametrize("name", NAMES)
def test_small_and_odd_inputs_work(name: str) -> None:
    d = degradations[name]
    for size in (16, 33):
        image = torch.rand(2, 3, size, size) * 255
        result = d.apply(image, d.draw(Streams(0, "data", ["a", "b"], 0), size), 5.0)
        assert result.shape == image.shape
        assert result.isfinite().all()


def test_ice_is_forgotten_with_its_draw() -> None:
    frost = degradations["common:frost"]
    before = len(weather._known_ice)
    pixels = torch.full((2, 3, 32, 32), 90.0)
    draw = frost.draw(Streams(0, "data", ["a", "b"], 0), 32)
    whole = [frost.apply(pixels, draw, level) for level in (1.0, 5.0)]
    assert len(weather._known_ice) == before + 1
    fresh = frost.draw(Streams(0, "data", ["a", "b"], 0), 32)
    assert torch.equal(frost.apply(pixels, fresh, 5.0), whole[1])
    mixed = (draw[0], frost.draw(Streams(0, "data", ["c", "d"], 0), 32)[1])
    assert not torch.equal(frost.apply(pixels, mixed, 5.0), whole[1])
    del draw, fresh, mixed
    assert len(weather._known_ice) == before
