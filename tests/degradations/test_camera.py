"""Degradations by cheap cameras against the physics that their definitions name."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from cnnsens_bench.degradations import Streams, degradations
from cnnsens_bench.degradations.camera.light import DAYLIGHT, LIGHT, PIXEL, STEPS, illuminant_gains, planckian
from cnnsens_bench.degradations.camera.sensor import (
    ACROSS,
    BESIDE,
    GREEN,
    area_weights,
    demosaiced,
    exposed,
    linear_weights,
    mosaic,
)
from cnnsens_bench.degradations.kernels.filters import gaussian_blur
from cnnsens_bench.degradations.kernels.resizing import resize
from cnnsens_bench.utils.errors import UserError


def decoded(pixel: np.ndarray) -> np.ndarray:
    value = np.asarray(pixel, float) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def noise(size: int = 40, count: int = 2) -> Tensor:
    return (torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 255).round()


def test_the_curve_is_srgbs_and_its_own_inverse() -> None:
    np.testing.assert_allclose(LIGHT, decoded(np.arange(256)), atol=1e-7)
    light = np.random.default_rng(0).random(100_000)
    exact = 255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    interpolated = np.interp(light * STEPS, np.arange(STEPS + 1), PIXEL)
    assert np.abs(interpolated - exact).max() < 2e-3
    given = torch.arange(256.0).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    torch.testing.assert_close(exposed(given, torch.ones(1, 1, 1, 1)), given, atol=3e-3, rtol=0)


@pytest.mark.parametrize(
    ("kelvin", "x", "y"),
    # The values are from Planck's law and the CIE 1931 observer.
    [
        (2000, 0.5267, 0.4133),
        (2856, 0.4476, 0.4074),
        (4000, 0.3805, 0.3768),
        (6500, 0.3135, 0.3237),
        (10000, 0.2807, 0.2884),
    ],
)
def test_black_bodies_have_their_colour(kelvin: float, x: float, y: float) -> None:
    assert planckian(kelvin) == pytest.approx((x, y), abs=1.5e-3)


def test_white_balance_multiplies_linear_light() -> None:
    given = noise()
    for level in (-4000.0, -500.0, 3000.0, 18_000.0):
        result = degradations["white_balance"].apply(given, None, level)
        gains = illuminant_gains(DAYLIGHT + level)
        expected = (decoded(given.numpy()) * gains[:, None, None]).clip(0, 1)
        np.testing.assert_allclose(decoded(result.numpy()), expected, atol=2e-5)
        assert gains[1] == 1
        assert (gains[0] > gains[2]) == (level < 0)
    assert torch.equal(degradations["white_balance"].apply(given, None, 0.0), given)


def test_white_balance_has_the_range_of_the_locus() -> None:
    white_balance = degradations["white_balance"]
    for level in (white_balance.low, white_balance.high):
        assert (illuminant_gains(DAYLIGHT + level) > 0).all()
        white_balance.check_level(level)
    assert illuminant_gains(1900.0).min() < 0
    for wrong in (-4604.0, 19_000.0):
        with pytest.raises(UserError, match="white_balance"):
            white_balance.check_level(wrong)


def test_flicker_swings_by_its_per_cent_about_the_mean() -> None:
    d = degradations["rolling_exposure"]
    given = torch.full((3, 3, 240, 8), 120.0)
    draw = d.draw(Streams(0, "data", ["a", "b", "c"], 0), 240)
    light = decoded(d.apply(given, draw, 40.0).numpy()) / decoded(120)
    assert np.ptp(light, axis=3).max() < 1e-6  # lines are exposed whole
    rows = light[:, 0, :, 0]
    assert (rows.max(1) - rows.min(1)) / (rows.max(1) + rows.min(1)) == pytest.approx(0.4, abs=1e-3)
    np.testing.assert_allclose(rows[:, :72].mean(1), 1, atol=1e-3)  # 100 Hz over 1/30 s: 72 of 240 lines a cycle
    np.testing.assert_allclose(rows[:, 72:144], rows[:, :72], atol=1e-5)
    assert len({round(float(row[0]), 4) for row in rows}) == 3
    still = d.apply(given, draw, 0.0)
    torch.testing.assert_close(still, given, atol=3e-3, rtol=0)


def masks(size: int) -> np.ndarray:
    """Return which pixels of an RGGB sensor see each colour: (3, size, size)."""
    red, green, blue = np.zeros((3, size, size), bool)
    red[::2, ::2] = blue[1::2, 1::2] = green[::2, 1::2] = green[1::2, ::2] = True
    return np.stack([red, green, blue])


def test_demosaicing_is_malvar_he_and_cutlers() -> None:
    """Compare with masks and convolutions over the whole picture, as the method is described."""
    given = noise(30)[0].double().numpy()
    red, green, blue = masks(30)
    raw = np.where(red, given[0], np.where(green, given[1], given[2]))
    at_green, in_row, in_column, opposite = (
        ndimage.correlate(raw, kernel, mode="mirror") for kernel in (GREEN, BESIDE, BESIDE.T, ACROSS)
    )
    red_rows, blue_rows = np.zeros_like(red), np.zeros_like(red)
    red_rows[::2], blue_rows[1::2] = True, True
    expected = np.stack(
        [
            np.select([red, green & red_rows, green & blue_rows, blue], [raw, in_row, in_column, opposite]),
            np.where(green, raw, at_green),
            np.select([blue, green & blue_rows, green & red_rows, red], [raw, in_row, in_column, opposite]),
        ]
    ).clip(0, 255)
    ours = demosaiced(mosaic(noise(30)))[0]
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    assert np.isclose([GREEN.sum(), BESIDE.sum(), ACROSS.sum()], 1).all()


def test_bayer_keeps_flat_colours_and_loses_detail_with_its_pitch() -> None:
    d = degradations["bayer"]
    flat = torch.tensor([200.0, 40.0, 90.0]).view(1, 3, 1, 1).expand(1, 3, 40, 40).contiguous()
    given, losses = gaussian_blur(noise(), 1.0), []
    for level in (1.0, 2.0, 2.5, 4.0):
        torch.testing.assert_close(d.apply(flat, None, level), flat, atol=1e-3, rtol=0)
        losses.append(((d.apply(given, None, level) - given) ** 2).mean().item())
    assert losses == sorted(losses)


@pytest.mark.parametrize(("source", "result"), [(40, 20), (40, 16), (224, 75), (33, 33)])
def test_area_means_keep_the_light(source: int, result: int) -> None:
    indices, weights = area_weights(source, result)
    dense = np.zeros((result, source))
    np.add.at(dense, (np.arange(result)[None].repeat(len(indices), 0), indices), weights)
    np.testing.assert_allclose(dense.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(dense.sum(0), result / source, atol=1e-5)


@pytest.mark.parametrize(("source", "result"), [(20, 40), (75, 224), (7, 33)])
def test_enlarging_is_torchs_bilinear(source: int, result: int) -> None:
    given = noise(source)
    expected = torch.nn.functional.interpolate(given, size=result, mode="bilinear")
    torch.testing.assert_close(resize(given, result, linear_weights), expected, atol=3e-3, rtol=0)


@pytest.mark.parametrize("quality", [1, 5, 50, 100])
def test_jpeg_is_pillows(quality: int) -> None:
    given = noise()
    result = degradations["jpeg"].apply(given, None, float(quality))
    for ours, image in zip(result, given, strict=True):
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).byte().numpy()).save(file, "JPEG", quality=quality)
        np.testing.assert_array_equal(ours.permute(1, 2, 0), np.asarray(Image.open(file)))


def test_jpeg_takes_whole_qualities_and_rounds_its_input() -> None:
    for wrong in (0, 101, 55.5):
        with pytest.raises(UserError, match="jpeg"):
            degradations["jpeg"].check_level(wrong)
    jpeg = degradations["jpeg"].apply
    assert torch.equal(jpeg(noise() + 0.3, None, 50.0), jpeg(noise().clamp(0, 255), None, 50.0))
