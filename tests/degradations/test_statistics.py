"""The statistics of random degradations over a million draws, before anything is clamped."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from cnnsens_bench.degradations import Streams, degradations
from cnnsens_bench.degradations.camera.light import LIGHT
from tests.degradations.test_colour import textbook_hsi
from tests.degradations.test_degradations import RANDOM, flat

MILLION = 1_000_000
SIDE = 1000


def degraded(name: str, level: float, colour: tuple[float, float, float], side: int = SIDE) -> np.ndarray:
    """Return the degraded pixels of an image of one colour: (3, side²)."""
    d = degradations[name]
    image = torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, side, side)
    draw = d.draw(Streams(1, "data", ["a"], 0), side)
    return d.apply(image.contiguous(), draw, level)[0].flatten(1).double().numpy()


def agrees(sample: np.ndarray, mean: float, deviation: float) -> None:
    """Check that mean and deviation are within five standard errors of the expected ones."""
    sample = sample.ravel()
    count = sample.size
    assert abs(sample.mean() - mean) < 5 * deviation / count**0.5
    kurtosis = stats.kurtosis(sample)
    assert abs(sample.std() / deviation - 1) < 5 * ((kurtosis + 2) / 4 / count) ** 0.5


GRAY = (128.0, 128.0, 128.0)


@pytest.mark.parametrize("level", [1.0, 16.0, 64.0])
def test_gaussian_rgb(level: float) -> None:
    noise = degraded("gaussian_rgb", level, GRAY) - 128
    for channel in noise:
        agrees(channel, 0, level)
    assert abs(np.corrcoef(noise) - np.eye(3)).max() < 5 / MILLION**0.5


@pytest.mark.parametrize("level", [1.0, 16.0])
def test_gaussian_intensity(level: float) -> None:
    result = degraded("gaussian_intensity", level, (100.0, 160.0, 130.0))
    agrees(result.mean(0) - 130, 0, level)


@pytest.mark.parametrize("level", [1.0, 16.0])
def test_saturation(level: float) -> None:
    colour = (60.0, 180.0, 120.0)
    result = degraded("saturation", level, colour)
    saturation = textbook_hsi(result.T)[1] * 255
    agrees(saturation, 127.5, level)


@pytest.mark.parametrize("level", [1.0, 16.0])
def test_hue_local(level: float) -> None:
    hue = textbook_hsi(degraded("hue_local", level, (60.0, 180.0, 120.0)).T)[0]
    agrees((hue - textbook_hsi(np.array([60.0, 180.0, 120.0]))[0]) * 256 / (2 * np.pi), 0, level)


def million_images(name: str) -> Any:
    """Return the draw for a million images of a degradation that takes one or two numbers per image."""
    streams = Streams(1, "data", [str(i) for i in range(MILLION)], 0, degradation=name)
    streams.on_host = False  # the same bits, of all images at once
    few = degradations[name].draw(Streams(1, "data", streams.image_ids[:99], 0), 8)
    draw = degradations[name].draw_function(streams, 8)  # type: ignore[misc]
    assert torch.equal(draw[:99], few)
    return draw


def test_hue_global() -> None:
    colour = torch.tensor([60.0, 180.0, 120.0]).view(1, 3, 1, 1)
    draw = million_images("hue_global")
    result = degradations["hue_global"].apply(colour.expand(MILLION, -1, -1, -1).contiguous(), draw, 8.0)
    hue = textbook_hsi(result[:, :, 0, 0].double().numpy())[0]
    agrees((hue - textbook_hsi(np.array([60.0, 180.0, 120.0]))[0]) * 256 / (2 * np.pi), 0, 8)


def test_hue_global_is_one_turn_an_image() -> None:
    ids = [str(i) for i in range(1000)]
    d = degradations["hue_global"]
    colour = torch.tensor([60.0, 180.0, 120.0]).view(1, 3, 1, 1).expand(len(ids), 3, 2, 2)
    result = d.apply(colour.contiguous(), d.draw(Streams(1, "data", ids, 0), 2), 8.0)
    assert (result - result[:, :, :1, :1]).abs().max() == 0


def test_translation() -> None:
    motion = degradations["translation"].motion(million_images("translation"), 4.0)
    shifts = torch.stack([motion.dx, motion.dy]).double().numpy()  # type: ignore[list-item]
    for shift in shifts:
        agrees(shift, 0, 4)
        assert stats.kstest(shift[::10], stats.norm(0, 4).cdf).statistic < 1.63 / (MILLION / 10) ** 0.5
        assert np.abs(shift).max() < degradations["translation"].reach(4.0).shift
    assert abs(np.corrcoef(shifts)[0, 1]) < 5 / MILLION**0.5


def test_rotation() -> None:
    angle = np.asarray(degradations["rotation"].motion(million_images("rotation"), 45.0).angle, float)
    agrees(angle, 0, 90 / 12**0.5)
    assert np.abs(angle).max() <= 45
    assert stats.kstest(angle, stats.uniform(-45, 90).cdf).statistic < 1.63 / MILLION**0.5


@pytest.mark.parametrize("p", [0.001, 0.04, 0.32, 1.0, 0.0])
@pytest.mark.parametrize("name", ["pepper", "pepper_pixel"])
def test_pepper_sets_its_share_to_zero_and_nothing_else(name: str, p: float) -> None:
    result = degraded(name, p, (200.0, 200.0, 200.0))
    assert set(np.unique(result)) <= {0.0, 200.0}
    zero = result == 0
    if name == "pepper_pixel":
        assert (zero[0] == zero[1]).all()
        assert (zero[0] == zero[2]).all()
        zero = zero[0]
    elif 0 < p < 1:
        assert abs(np.corrcoef(zero) - np.eye(3)).max() < 5 / MILLION**0.5
    assert abs(zero.mean() - p) <= 5 * (p * (1 - p) / zero.size) ** 0.5


@pytest.mark.parametrize("severity", [1, 5])
def test_common_noise(severity: int) -> None:
    deviation = 255 * [0.08, 0.38][severity // 5]
    agrees(degraded("common:gaussian_noise", severity, GRAY) - 128, 0, deviation)
    photons = [60, 3][severity // 5]
    rate = 100 / 255 * photons
    counts = degraded("common:shot_noise", severity, (100.0, 100.0, 100.0)) * photons / 255
    np.testing.assert_allclose(counts, counts.round(), atol=1e-4)
    agrees(counts, rate, rate**0.5)
    amount = [0.03, 0.27][severity // 5]
    impulses = degraded("common:impulse_noise", severity, GRAY)
    for value in (0, 255):
        share = (impulses == value).mean()
        assert abs(share - amount / 2) < 5 * (amount / 2 / impulses.size) ** 0.5


@pytest.mark.parametrize("electrons", [10.0, 300.0, 10_000.0])
def test_shot_noise_counts_electrons_of_linear_light(electrons: float) -> None:
    """Mean and variance are λ, after the exact curve of IEC 61966-2-1 is undone."""
    result = degraded("shot_noise", electrons, (140.0, 140.0, 140.0)) / 255
    light = np.where(result <= 0.04045, result / 12.92, ((result + 0.055) / 1.055) ** 2.4)
    rate = float(LIGHT[140]) * electrons
    agrees(light * electrons, rate, rate**0.5)


@pytest.mark.parametrize("name", ["common:motion_blur", "rolling_exposure"])
def test_one_number_an_image_is_uniform(name: str) -> None:
    ids = [str(i) for i in range(50_000)]
    draw = degradations[name].draw(Streams(1, "data", ids, 0), 8)
    assert stats.kstest(draw.numpy(), "uniform").statistic < 1.63 / len(ids) ** 0.5


@pytest.mark.parametrize("name", RANDOM)
def test_images_trials_and_degradations_are_uncorrelated(name: str) -> None:
    d = degradations[name]
    ids = ["a", "b"] if flat(d.draw(Streams(1, "data", ["a"], 0), 224)).shape[1] > 1 else [str(i) for i in range(4000)]

    def numbers(trial: int, key: str | None = None) -> Tensor:
        return flat(d.draw(Streams(1, "data", ids, trial), 224, key)).double()

    first = numbers(0)
    pairs = {"trials": (first, numbers(1)), "degradations": (first, numbers(0, "another"))}
    half = len(ids) // 2
    pairs["images"] = (first[:half], first[half:])
    for pair in pairs.values():
        one, other = (part.flatten().numpy() for part in pair)
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / one.size**0.5


@pytest.mark.parametrize("name", ["pepper", "pepper_pixel", "common:impulse_noise"])
def test_impulses_of_one_draw_are_nested(name: str) -> None:
    image = (128.0, 100.0, 60.0)
    hit = [(degraded(name, level, image, 300) != np.array(image)[:, None]) for level in degradations[name].levels]
    for few, many in itertools.pairwise(hit):
        assert not (few & ~many).any()
        assert many.sum() > few.sum()


def test_electrons_of_one_draw_are_nested() -> None:
    levels = sorted(degradations["shot_noise"].levels)
    results = [degraded("shot_noise", level, GRAY, 300) for level in levels]
    light = [np.interp(result, np.arange(256), LIGHT) * level for result, level in zip(results, levels, strict=True)]
    for few, many in itertools.pairwise(light):
        assert (many > few - 0.1).all()


@pytest.mark.parametrize("name", ["gaussian_rgb", "gaussian_intensity"])
def test_gaussian_levels_scale_one_draw(name: str) -> None:
    small, large = (degraded(name, level, GRAY, 64) - 128 for level in (1.0, 8.0))
    np.testing.assert_allclose(large, 8 * small, atol=2e-4, rtol=1e-4)
