"""The compiled loops of blurs and of elastic transforms beside the plain way to compute them."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from cnnsens_bench.degradations import Streams
from cnnsens_bench.degradations.imagenet_c.blur import glass_draw, motion_blurred
from cnnsens_bench.degradations.kernels import pixelwise
from cnnsens_bench.degradations.kernels.filters import SYMMETRIC, sample
from cnnsens_bench.degradations.kernels.shuffle import shuffled
from cnnsens_bench.degradations.kernels.smoothing import smoothed
from cnnsens_bench.degradations.kernels.zoom import magnified, with_magnifications

ON_DEVICES = pytest.mark.parametrize("loops", [True, False], ids=["loops", "tensors"])


@pytest.fixture(autouse=True)
def chosen_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "loops" in request.fixturenames and not request.getfixturevalue("loops"):
        monkeypatch.setattr(pixelwise, "on_cpu", lambda pixels: False)


def pixels(size: int, count: int = 2, channels: int = 3) -> Tensor:
    values = torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(size)) * 255
    return values.contiguous(memory_format=torch.channels_last)


@ON_DEVICES
@pytest.mark.parametrize("distance", [1, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_shuffled_one_after_the_other(loops: bool, distance: int, channels: int) -> None:
    size = 40
    draw = glass_draw(Streams(0, "data", ["a", "b"], 0), size)
    given = pixels(size, channels=channels)
    expected = given.numpy().copy()
    for image, numbers in zip(expected, draw.numpy(), strict=True):
        for of_round in numbers[:2]:
            for h in range(size - distance, distance, -1):
                for w in range(size - distance, distance, -1):
                    x, y = (of_round[h, w] * np.float32(2 * distance)).astype(int) - distance
                    image[:, h, w] = image[:, h + y, w + x]
    np.testing.assert_array_equal(shuffled(given, draw, distance, 2), expected)


@ON_DEVICES
@pytest.mark.parametrize(("size", "sigma"), [(64, 2.44), (33, 19.52), (32, 170.8)])
def test_fields_are_smoothed_like_scipys(loops: bool, size: int, sigma: float) -> None:
    field = torch.rand(3, 2, size, size, generator=torch.Generator().manual_seed(1))
    expected = field.double().numpy() * 2 - 1
    for axis in (2, 3):
        expected = ndimage.gaussian_filter1d(expected, sigma, axis=axis, mode="reflect", truncate=3)
    np.testing.assert_allclose(smoothed(field, sigma, 17.0), expected * 17, rtol=1e-6, atol=1e-9)


def test_a_field_is_smoothed_alike_alone_and_among_others() -> None:
    field = torch.rand(5, 2, 48, 48, generator=torch.Generator().manual_seed(2))
    together = smoothed(field, 6.0, 3.0)
    for i in range(5):
        assert torch.equal(smoothed(field[i : i + 1], 6.0, 3.0)[0], together[i])


@ON_DEVICES
@pytest.mark.parametrize("channels", [1, 3])
def test_magnifications_are_sampled_bilinearly(loops: bool, channels: int) -> None:
    size, factors = 60, [1.0, 1.07, 1.31, 2.5, 4.0]
    given, total = pixels(size, channels=channels), pixels(size, channels=channels)
    for factor in factors:
        part = math.ceil(size / factor)
        result = round(part * factor)
        line = (size - part) // 2 + (np.arange(size) + (result - size) // 2) * (part - 1) / (result - 1)
        points = torch.from_numpy(line.astype(np.float32)).view(1, 1, -1).expand(1, size, size)
        expected = sample(given, points.transpose(1, 2), points, SYMMETRIC)
        assert torch.equal(magnified(given, factor), expected)
        total = total + expected
    assert torch.equal(with_magnifications(given, factors), total)


@ON_DEVICES
def test_each_image_is_blurred_along_its_own_line(loops: bool) -> None:
    radius, sigma, degrees = 6, 3.0, [-45.0, 0.0, 17.3, -100.0]
    given = pixels(31, count=4)
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    blurred = motion_blurred(given, radius, sigma, torch.tensor(degrees, dtype=torch.float64))
    for image, result, angle in zip(given.double().numpy(), blurred, degrees, strict=True):
        expected = np.zeros_like(image)
        for i, weight in enumerate(weights):
            down, right = math.sin(math.radians(angle)), math.cos(math.radians(angle))
            rows = (np.arange(31) + math.ceil(i * down - 0.5)).clip(0, 30)
            columns = (np.arange(31) + math.ceil(i * right - 0.5)).clip(0, 30)
            expected += weight * image[:, rows][:, :, columns]
        np.testing.assert_allclose(result, expected, atol=1e-3)
