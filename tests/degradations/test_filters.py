"""Filters and samplers against scipy, skimage, OpenCV and Pillow."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats
from skimage.filters import gaussian
from torch import Tensor

from cnnsens_bench.degradations.kernels import filters, poisson, resizing
from cnnsens_bench.degradations.kernels.pixelwise import TENSORS, valuewise
from cnnsens_bench.degradations.kernels.plasma import map_size, plasma


def noise(height: int = 33, width: int = 33, count: int = 2) -> Tensor:
    values = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)) * 255
    return values.round().contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("border", "mode"), [("edge", "nearest"), ("reflect", "mirror"), ("symmetric", "reflect")])
@pytest.mark.parametrize("shape", [(3, 3), (1, 7), (9, 1), (21, 21), (5, 81)])
def test_correlate_equals_scipys(border: str, mode: str, shape: tuple[int, int]) -> None:
    kernel = np.random.default_rng(0).normal(size=shape)
    result = filters.correlate(noise(), kernel, border)
    expected = ndimage.correlate(noise().double().numpy(), kernel[None, None], mode=mode)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-2 if shape[0] * shape[1] > 200 else 1e-3)


@pytest.mark.parametrize("sigma", [0.7, 1.5])
def test_gaussian_blur_equals_skimages(sigma: float) -> None:
    expected = gaussian(noise()[0].permute(1, 2, 0).double().numpy(), sigma, channel_axis=2)
    np.testing.assert_allclose(filters.gaussian_blur(noise(), sigma)[0].permute(1, 2, 0), expected, atol=2e-4)


@pytest.mark.parametrize(("radius", "alias_blur"), [(3, 0.1), (6, 0.5), (8, 0.5), (10, 0.5)])
def test_disk_is_the_published_one(radius: int, alias_blur: float) -> None:
    side = max(8, radius)
    steps = np.arange(-side, side + 1)
    x, y = np.meshgrid(steps, steps)
    aliased = ((x**2 + y**2) <= radius**2).astype(np.float32)
    aliased /= aliased.sum()
    size = (3, 3) if radius <= 8 else (5, 5)
    published = cv2.GaussianBlur(aliased, ksize=size, sigmaX=alias_blur)
    np.testing.assert_allclose(filters.disk(radius, alias_blur), published, atol=1e-7)


@pytest.mark.parametrize(("border", "mode"), [("reflect", "mirror"), ("symmetric", "reflect")])
@pytest.mark.parametrize("shared", [True, False])
def test_sample_equals_scipys_near_and_far(border: str, mode: str, shared: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    rows, columns = (torch.rand(1 if shared else 2, 20, 30, generator=generator) * 200 - 80 for _ in range(2))
    result = filters.sample(noise(40, 25), rows, columns, border)
    assert torch.equal(result, filters._sample_tensors(noise(40, 25), rows, columns, border))
    for i in range(2):
        points = [part[0 if shared else i].double().numpy() for part in (rows, columns)]
        for c in range(3):
            expected = ndimage.map_coordinates(noise(40, 25)[i, c].double().numpy(), points, order=1, mode=mode)
            np.testing.assert_allclose(result[i, c], expected, atol=2e-3)


@pytest.mark.parametrize("size", [1, 7, 16, 20, 33])
def test_box_weights_are_pillows(size: int) -> None:
    image = noise()[0].permute(1, 2, 0).numpy().astype(np.uint8)
    small = Image.fromarray(image).resize((size, size), Image.Resampling.BOX)
    result = resizing.resize(noise(), size, resizing.box_weights)[0].permute(1, 2, 0)
    np.testing.assert_allclose(result, np.asarray(small), atol=1.01)  # Pillow rounds after each axis
    large = small.resize((33, 33), Image.Resampling.BOX)
    ours = resizing.resize(torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float(), 33, resizing.box_weights)
    np.testing.assert_array_equal(ours[0].permute(1, 2, 0), np.asarray(large))


@valuewise
def counts(maths):  # type: ignore[no-untyped-def]
    quantile = maths.function(poisson.quantile(maths))

    def value(rate, uniform, level):  # type: ignore[no-untyped-def]
        return quantile(rate * level, uniform)

    return value


@pytest.mark.parametrize("rate", [0.0, 1e-6, 0.02, 0.5, 3.0, 15.9, 16.0, 30.0, 300.0, 1e5])
def test_poisson_quantiles_are_scipys(rate: float) -> None:
    uniform = ((torch.arange(3 << 16).view(1, 3, 256, 256) + 0.5) * (2**24 / (3 << 16))).floor() * 2**-24
    rates = torch.full_like(uniform, rate)
    ours = counts(rates, uniform, 1.0)
    assert torch.equal(ours, poisson.quantile(TENSORS)(rates, uniform))
    expected = stats.poisson.ppf(uniform.double().numpy(), rate)
    assert (ours.numpy() == expected).mean() > (0.998 if rate < 1e4 else 0.95)
    assert abs(ours.mean(dtype=torch.float64) - expected.mean()) < 1e-4 * max(rate, 1)
    assert abs(ours.double().std() - expected.std()) < 1e-3 * max(rate**0.5, 0.1)
    # Normal draws come from 65,536 bins, which shows in the tails.
    inner = np.abs(uniform.numpy() - 0.5) < 0.49
    assert np.abs(ours.numpy() - expected)[inner].max() <= max(1, 2e-3 * rate**0.5)


def published_plasma(numbers: np.ndarray, decay: float, mapsize: int = 256) -> np.ndarray:
    """Compute the diamond-square algorithm point by point, as it is defined, in float64."""
    heights = np.zeros((mapsize, mapsize))
    step, wobble, used = mapsize, 100.0, 0

    def displaced(mean: float) -> float:
        nonlocal used
        used += 1
        return mean + wobble * (2 * numbers[used - 1] - 1) * wobble

    def mean_of(points: list[tuple[int, int]]) -> float:
        return sum(heights[y % mapsize, x % mapsize] for y, x in points) / 4

    while step >= 2:
        half = step // 2
        for y in range(half, mapsize, step):
            for x in range(half, mapsize, step):
                heights[y, x] = displaced(mean_of([(y + a, x + b) for a in (-half, half) for b in (-half, half)]))
        for first_y, first_x in ((0, half), (half, 0)):
            for y in range(first_y, mapsize, step):
                for x in range(first_x, mapsize, step):
                    heights[y, x] = displaced(mean_of([(y - half, x), (y + half, x), (y, x - half), (y, x + half)]))
        step, wobble = half, wobble / decay
    heights -= heights.min()
    return heights / heights.max()


@pytest.mark.parametrize("decay", [1.4, 2.0])
def test_plasma_is_the_diamond_square_algorithm(decay: float) -> None:
    draw = torch.rand(2, 256**2 - 1, generator=torch.Generator().manual_seed(0))
    ours = plasma(draw, 200, decay)
    assert ours.shape == (2, 1, 200, 200)
    expected = published_plasma(draw[1].double().numpy(), decay)[:200, :200]
    np.testing.assert_allclose(ours[1, 0], expected, atol=2e-6)


@pytest.mark.parametrize(("size", "side"), [(17, 256), (256, 256), (257, 512), (600, 1024)])
def test_textures_are_large_enough(size: int, side: int) -> None:
    assert map_size(size) == side
