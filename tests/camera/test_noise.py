"""Noise: known noise is found in drawn and in real photographs, whole or resized, by brightness, and from pairs."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cnnsens_bench.camera import noise
from cnnsens_bench.camera.noise import noise_between, noise_of, resizing_factor, wavelet_variance
from cnnsens_bench.camera.photon_transfer import photon_transfer
from cnnsens_bench.degradations.camera.light import LIGHT, PIXEL, STEPS
from cnnsens_bench.images import Decoded, render
from tests.camera.drawn import eight_bit, photographs, scene, with_noise


def median_sigma(pictures: list[np.ndarray]) -> float:
    found = [noise_of(picture) for picture in pictures]
    return float(np.median([math.sqrt(one.fine[:3].mean()) for one in found if one]))


@pytest.mark.parametrize("sigma", [2, 8, 16])
def test_known_noise_is_found_in_drawn_photographs(sigma: float) -> None:
    assert median_sigma(photographs(range(5), with_noise(sigma))) == pytest.approx(sigma, rel=0.08)


def test_a_picture_without_noise_has_none() -> None:
    assert median_sigma(photographs(range(3))) < 0.3


@pytest.mark.parametrize("sigma", [2, 8, 16])
def test_known_noise_is_found_in_real_photographs(sigma: float, data_root: Path) -> None:
    """They have noise of their own and texture; the median of seven photographs is within 15 % nevertheless."""
    rng = np.random.default_rng(int(sigma))
    files = sorted((data_root / "oxford-iiit-pet" / "images").glob("*.jpg"))[::1000][:7]
    pixels = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    noisy = [eight_bit(picture + rng.normal(0, sigma, picture.shape)) for picture in pixels]
    assert median_sigma(noisy) == pytest.approx(sigma, rel=0.15)


def test_channels_and_intensity_are_told_apart() -> None:
    picture, rng = scene(1), np.random.default_rng(1)
    shared = noise_of(eight_bit(picture + rng.normal(0, 8, picture.shape[:2])[..., None]))
    assert shared
    assert np.sqrt(shared.fine) == pytest.approx([8] * 4, rel=0.1)
    own = noise_of(eight_bit(picture + rng.normal(0, (2, 6, 12), picture.shape)))
    assert own
    assert np.sqrt(own.fine) == pytest.approx([2, 6, 12, math.sqrt(4 + 36 + 144) / 3], rel=0.12)


def test_rounding_is_no_noise() -> None:
    """Noise of one gray level, rounded, has the variance 1 + 1/12."""
    found = noise_of(photographs([2], with_noise(1))[0])
    assert found
    assert math.sqrt(found.fine[:3].mean()) == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("picture", [np.full((64, 64, 3), 255, np.uint8), np.zeros((64, 64, 3), np.uint8)])
def test_nothing_is_told_where_all_is_clipped(picture: np.ndarray) -> None:
    assert noise_of(picture) is None
    assert noise_between(picture, picture) is None


@pytest.mark.parametrize("shape", [(3, 300, 3), (7, 7, 3), (1, 1, 3), (31, 90, 3)])
def test_tiny_pictures_tell_nothing(shape: tuple[int, ...]) -> None:
    assert noise_of(np.full(shape, 100, np.uint8)) is None


def test_the_share_of_blocks_without_noise() -> None:
    half = np.full((160, 160, 3), 90, np.uint8)
    half[:, 80:] = eight_bit(np.random.default_rng(0).normal(120, 10, (160, 80, 3)))
    found = noise_of(half)
    assert found
    assert found.constant == pytest.approx(0.48, abs=0.03)  # positions from 0 to 152, of which 0 to 72 are flat


def test_the_wavelet_estimator_on_noise_alone() -> None:
    pixels = eight_bit(np.random.default_rng(0).normal(128, 10, (200, 300, 3)))
    assert math.sqrt(wavelet_variance(pixels)) == pytest.approx(10, rel=0.02)


def test_pairs_tell_smoothed_noise_whole() -> None:
    """A camera that smooths leaves little fine noise, which a single photograph is measured by."""
    rng, picture = np.random.default_rng(3), scene(3)
    shots = [
        eight_bit(picture + gain + cv2.GaussianBlur(rng.normal(0, 20, picture.shape), (0, 0), 1.0)) for gain in (0, 2)
    ]
    true = cv2.GaussianBlur(rng.normal(0, 20, (400, 400)), (0, 0), 1.0).std()
    pair, single = noise_between(*shots), noise_of(shots[0])
    assert pair
    assert single
    assert math.sqrt(pair.fine[:3].mean()) == pytest.approx(true, rel=0.08)
    assert math.sqrt(single.fine[:3].mean()) < 0.5 * true


def test_pairs_leave_out_what_moved() -> None:
    rng, picture = np.random.default_rng(4), scene(4)
    moved = picture.copy()
    moved[40:90, 60:120] = moved[40:90, 70:130]
    pair = noise_between(*(eight_bit(one + rng.normal(0, 6, one.shape)) for one in (picture, moved)))
    assert pair
    assert math.sqrt(pair.fine[:3].mean()) == pytest.approx(6, rel=0.08)


@pytest.mark.parametrize(("height", "width", "size"), [(360, 480, 128), (300, 300, 200)])
def test_noise_of_resized_pictures_is_corrected(height: int, width: int, size: int) -> None:
    picture, rng = scene(5, height, width), np.random.default_rng(5)

    def shown(pixels: np.ndarray) -> np.ndarray:
        image = Decoded(eight_bit(pixels), 0, 0, width, height, (0, 0, width, height))
        return render(image, size)

    noisy = shown(picture + rng.normal(0, 16, picture.shape))
    true = math.sqrt((noisy.astype(float) - shown(picture)).var() - 2 / 12)
    found = noise_of(noisy)
    assert found
    corrected = math.sqrt(found.fine[:3].mean() * resizing_factor(width / size, height / size))
    assert corrected == pytest.approx(true, rel=0.12)
    assert abs(math.sqrt(found.fine[:3].mean()) / true - 1) > abs(corrected / true - 1)


@pytest.mark.parametrize("electrons", [100, 1000])
def test_counted_electrons_are_found_by_brightness(electrons: float) -> None:
    def counted(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        light = rng.poisson(LIGHT[picture.astype(int)] * electrons) / electrons
        return np.interp(light, np.arange(STEPS + 1) / STEPS, PIXEL)

    found = [noise_of(picture) for picture in photographs(range(8), counted)]
    fitted = photon_transfer(np.stack([one.by_brightness[:, :3].mean(1) for one in found if one]))
    assert fitted
    assert fitted.electrons
    assert fitted.electrons.value == pytest.approx(electrons, rel=0.15)
    low, high = fitted.electrons.span
    assert 0.5 * electrons < low <= high < 2 * electrons


def test_photon_transfer_finds_a_line_and_needs_three_brightnesses() -> None:
    brightness = (np.arange(noise.RANGES) + 0.5) * 32
    curves = np.tile(3 + 0.05 * brightness, (6, 1))
    fitted = photon_transfer(curves)
    assert fitted
    assert (fitted.offset.value, fitted.slope.value) == pytest.approx((3, 0.05), rel=1e-3)
    curves[:, 2:] = np.nan
    assert photon_transfer(curves) is None


def test_the_same_picture_is_measured_alike() -> None:
    picture = photographs([1], with_noise(5))[0]
    first, second = noise_of(picture), noise_of(picture)
    assert first
    assert second
    assert first.fine.tolist() == second.fine.tolist()
