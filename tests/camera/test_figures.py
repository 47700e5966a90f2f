"""Blur, light, JPEG quality and defective pixels: each known change of a photograph is found."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from cnnsens_bench.camera.blur import blur_of
from cnnsens_bench.camera.defects import (
    DefectFinder,
    black_counts,
    surroundings,
    value_share,
    without_zeros,
    zeros_in_light,
)
from cnnsens_bench.camera.exposure import exposure_of, white_balance_level
from cnnsens_bench.camera.jpeg_quality import jpeg_quality
from cnnsens_bench.camera.noise import noise_of
from cnnsens_bench.camera.shots import repeated_pairs, thumbnail
from cnnsens_bench.degradations.camera.light import DAYLIGHT, LIGHT, PIXEL, STEPS, illuminant_gains
from cnnsens_bench.images.file_facts import file_facts
from cnnsens_bench.utils.errors import ImageError
from tests.camera.drawn import eight_bit, photographs, scene, with_noise


@pytest.mark.parametrize(("sigma", "noise"), [(1.0, 0), (2.0, 0), (2.0, 6), (3.0, 0)])
def test_blur_of_edges_is_found(sigma: float, noise: float) -> None:
    rng = np.random.default_rng(0)
    pictures = [cv2.GaussianBlur(scene(seed), (0, 0), sigma) for seed in range(5)]
    found = [blur_of(eight_bit(picture + rng.normal(0, noise, picture.shape))) for picture in pictures]
    assert np.median(found) == pytest.approx(np.hypot(sigma, 0.6), rel=0.15)  # the edges are a little soft themselves


def test_blur_needs_edges() -> None:
    assert np.isnan(blur_of(np.full((90, 90, 3), 120, np.uint8)))
    assert np.isnan(blur_of(np.full((9, 90, 3), 120, np.uint8)))


def lit(picture: np.ndarray, gains: object) -> np.ndarray:
    return np.interp(np.clip(LIGHT[picture.astype(int)] * gains, 0, 1), np.arange(STEPS + 1) / STEPS, PIXEL)


@pytest.mark.parametrize("kelvin", [-3000, -1500, 3000])
def test_white_balance_is_found(kelvin: float) -> None:
    gray = scene(0).mean(2, keepdims=True).repeat(3, axis=2) * 0.7
    found = exposure_of(eight_bit(lit(gray, illuminant_gains(DAYLIGHT + kelvin))))
    assert white_balance_level(found.red, found.blue) == pytest.approx(kelvin, rel=0.1)


def test_exposure_is_in_stops_and_gray_levels() -> None:
    picture = scene(2) * 0.6
    normal, longer = exposure_of(eight_bit(picture)), exposure_of(eight_bit(lit(picture, 2)))
    assert longer.stops - normal.stops == pytest.approx(1, abs=0.02)
    assert normal.intensity == pytest.approx(eight_bit(picture).mean(), abs=0.01)
    assert (normal.highlights, normal.shadows) == (0, 0)


def test_clipped_pixels_are_counted() -> None:
    picture = np.full((10, 10, 3), 100, np.uint8)
    picture[:2] = (255, 30, 30)
    picture[9] = 0
    found = exposure_of(picture)
    assert (found.highlights, found.shadows) == (0.2, 0.1)


def test_gray_and_black_pictures_have_no_white_balance() -> None:
    for picture in (np.full((20, 20, 3), 90, np.uint8), np.zeros((20, 20, 3), np.uint8)):
        assert np.isnan(exposure_of(picture).red)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_quality_is_exact(mode: str) -> None:
    picture = Image.fromarray(photographs([0])[0]).convert(mode)
    for quality in range(1, 101):
        file = io.BytesIO()
        picture.save(file, "jpeg", quality=quality)
        found = jpeg_quality(file_facts("photo.jpg", file.getvalue()).quantization or ())
        assert (found.quality, found.exact) == (quality, True)


def test_other_tables_have_the_nearest_quality() -> None:
    file = io.BytesIO()
    tables = [[4 + (i % 8) + i // 8 for i in range(64)]] * 2
    Image.fromarray(photographs([0])[0]).save(file, "jpeg", qtables=tables)
    found = jpeg_quality(file_facts("photo.jpg", file.getvalue()).quantization or ())
    assert not found.exact
    assert 80 <= found.quality <= 92


def counted(picture: np.ndarray) -> tuple[float, float]:
    """The shares of black pixels and of zeros, as a photograph is measured."""
    around = surroundings(picture)
    noise = noise_of(without_zeros(picture, zeros_in_light(picture, around)))
    assert noise
    counts = black_counts(picture, around, float(np.sqrt(noise.fine.max())))
    return counts.pixels / counts.looked_at, counts.values / counts.looked_at / 3


@pytest.mark.parametrize("share", [0.001, 0.01, 0.04, 0.16])
@pytest.mark.parametrize("sigma", [0, 8])
def test_black_pixels_and_values_are_counted(share: float, sigma: float) -> None:
    [picture], rng = photographs([6], with_noise(sigma)), np.random.default_rng(6)
    pixels, values = picture.copy(), picture.copy()
    pixels[rng.random(picture.shape[:2]) < share] = 0
    values[rng.random(picture.shape) < share] = 0
    black, zeros = counted(pixels)
    assert black == pytest.approx((pixels == 0).all(2).mean(), abs=0.002)
    assert value_share(black, zeros) == pytest.approx(0, abs=0.002)
    assert value_share(*counted(values)) == pytest.approx((values == 0).mean(), abs=0.002)


def test_strong_noise_makes_no_black_pixels() -> None:
    black, zeros = counted(photographs([7], with_noise(25))[0])
    assert black < 0.0001
    assert zeros < 0.001


def test_noise_is_measured_beside_black_pixels() -> None:
    [picture], rng = photographs([8], with_noise(8)), np.random.default_rng(8)
    picture[rng.random(picture.shape[:2]) < 0.1] = 0
    found = noise_of(without_zeros(picture, zeros_in_light(picture, surroundings(picture))))
    assert found
    assert np.sqrt(found.fine[:3].mean()) == pytest.approx(8, rel=0.1)


def test_defective_pixels_are_those_of_all_photographs() -> None:
    finder, rng = DefectFinder(), np.random.default_rng(0)
    for picture in photographs(range(6), with_noise(4)):
        picture[rng.random(picture.shape[:2]) < 0.01] = 0  # black in this photograph alone
        picture[50, 60], picture[70:72, 20], picture[100, 100] = 0, 255, (255, 20, 255)
        finder.add(picture, "upright")
    turned = photographs([9])[0]
    finder.add(turned, "turned")
    assert finder.shares() == (6, turned[..., 0].size, 1, 2)
    assert DefectFinder().shares() is None


def test_shots_of_one_scene_are_paired() -> None:
    shots = [photographs([seed], with_noise(6))[0] for seed in (0, 1, 2)]
    again = photographs([1], lambda picture, rng: picture + 1 + rng.normal(0, 6, picture.shape))[0]
    thumbnails = [thumbnail(picture) for picture in (*shots, again)]
    assert repeated_pairs(thumbnails, ["a"] * 4) == [(1, 3)]
    assert repeated_pairs(thumbnails, ["a", "a", "a", "b"]) == []


def exif_file(**tags: object) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x010F], exif[0x0110], exif[0x0112] = tags["make"], tags["model"], 6
    exif.get_ifd(0x8769).update({0xA002: 4000, 0xA003: 3000})
    Image.fromarray(photographs([0])[0]).save(file, "jpeg", exif=exif)
    return file.getvalue()


def test_files_say_which_camera_took_them() -> None:
    facts = file_facts("a.jpg", exif_file(make="Canon\0", model="Canon EOS 5D"))
    assert (facts.camera, facts.orientation, facts.stated_size, facts.size) == (
        "Canon EOS 5D",
        6,
        (4000, 3000),
        (240, 180),
    )
    assert file_facts("a.jpg", exif_file(make="SONY Corp", model="ILCE-7")).camera == "SONY Corp ILCE-7"
    assert facts.lossy


def test_files_say_how_deep_they_are() -> None:
    deep = cv2.imencode(".png", np.full((20, 20, 3), 30_000, np.uint16))[1].tobytes()
    flat = cv2.imencode(".png", np.full((20, 20, 3), 100, np.uint8))[1].tobytes()
    assert (file_facts("deep.png", deep).bits, file_facts("flat.png", flat).bits) == (16, 8)
    assert file_facts("flat.png", flat).quantization is None
    with pytest.raises(ImageError, match="not an image"):
        file_facts("text.png", b"no image")
