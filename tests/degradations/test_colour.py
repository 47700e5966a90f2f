"""Noise on HSI equals the textbook's conversion there and back."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cnnsens_bench.degradations import Streams, degradations

CORNERS = [[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)]
EDGES = [[0, 0, 1], [255, 254, 255], [1, 1, 1], [128, 128, 128], [254, 255, 255], [200, 200, 199], [0, 255, 1]]


def colours(count: int = 1_000_000) -> Tensor:
    """Return random colours, whole and fractional, with corners, black, gray and white: (1, 3, 1000, 1000)."""
    rng = np.random.default_rng(5)
    random = rng.uniform(0, 255, (count, 3))
    random[::2] = random[::2].round()
    special = np.array(CORNERS + EDGES + [[v, v, v] for v in range(256)], float)
    random[: len(special)] = special
    side = int(count**0.5)
    return torch.from_numpy(random.T.reshape(1, 3, side, side)).float()


def textbook_hsi(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return H in radians, S and I of colours in [0, 1] as in Gonzalez & Woods, in float64."""
    r, g, b = np.moveaxis(rgb, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        # This is the arc tangent of the same triangle, because their arc cosine loses half its digits near its ends.
        hue = np.arctan2(np.sqrt(3) * (g - b), 2 * r - g - b) % (2 * np.pi)
        return hue, 1 - 3 * rgb.min(-1) / rgb.sum(-1), rgb.mean(-1)


def textbook_rgb(hue: np.ndarray, saturation: np.ndarray, intensity: np.ndarray) -> np.ndarray:
    """Return the colours of H, S and I, sector by sector."""
    sector = np.floor(hue / (2 * np.pi / 3)).astype(int) % 3
    inner = hue - sector * 2 * np.pi / 3
    low = intensity * (1 - saturation)
    high = intensity * (1 + saturation * np.cos(inner) / np.cos(np.pi / 3 - inner))
    rest = 3 * intensity - low - high
    stacked = np.stack([high, rest, low], -1)
    return np.take_along_axis(stacked, (np.arange(3) - sector[..., None]) % 3, axis=-1)


def test_the_arc_tangent_is_the_textbooks_arc_cosine() -> None:
    rgb = np.random.default_rng(0).random((1000, 3))
    r, g, b = rgb.T
    angle = np.arccos(0.5 * ((r - g) + (r - b)) / np.sqrt((r - g) ** 2 + (r - b) * (g - b)))
    np.testing.assert_allclose(textbook_hsi(rgb)[0], np.where(b <= g, angle, 2 * np.pi - angle), atol=1e-7)


@pytest.mark.parametrize("level", [1.0, 16.0, 64.0])
@pytest.mark.parametrize("name", ["gaussian_intensity", "saturation", "hue_global", "hue_local"])
def test_a_million_colours_equal_the_textbooks(name: str, level: float) -> None:
    given = colours()
    d = degradations[name]
    draw = d.draw(Streams(0, "data", ["a"], 0), given.shape[-1])
    ours = d.apply(given, draw, level).clamp(0, 255)[0].permute(1, 2, 0).double().numpy()
    rgb = given[0].permute(1, 2, 0).double().numpy() / 255
    noise = draw.expand(1, 1, *given.shape[-2:])[0, 0].double().numpy() * level
    hue, saturation, intensity = textbook_hsi(rgb)
    black, gray = rgb.max(-1) == 0, rgb.max(-1) == rgb.min(-1)
    # Black and gray have no hue and black has no saturation; the definition names these limits.
    saturation = np.where(gray, 0.0, saturation)
    if name == "gaussian_intensity":
        intensity = np.clip(intensity + noise / 255, 0, 1)
    elif name == "saturation":
        saturation = np.where(gray, 0.0, np.clip(saturation + noise / 255, 0, 1))
    else:
        hue = (hue + noise * 2 * np.pi / 256) % (2 * np.pi)
    expected = (255 * textbook_rgb(np.where(gray, 0.0, hue), saturation, intensity)).clip(0, 255)
    np.testing.assert_allclose(ours, expected, atol=1e-4, rtol=0)
    if name != "gaussian_intensity":
        assert (ours[black] == 0).all()
        assert np.abs(ours[gray] - 255 * rgb[gray]).max() < 1e-4
    else:
        assert (np.ptp(ours[black], axis=-1) == 0).all()


def test_intensity_of_black_is_gray_of_the_new_intensity() -> None:
    black = torch.zeros(1, 3, 16, 16)
    d = degradations["gaussian_intensity"]
    draw = d.draw(Streams(0, "data", ["a"], 0), 16)
    noisy = d.apply(black, draw, 20.0)
    assert torch.equal(noisy, (draw * 20.0).clamp(0, 255).expand_as(noisy))
    assert noisy.max() > 0


def test_a_full_turn_of_hue_changes_nothing() -> None:
    given = colours(10_000)
    for turn in (256.0, -512.0):
        turned = degradations["hue_global"].apply(given, torch.ones(1, 1, 1, 1), turn)
        torch.testing.assert_close(turned, given, atol=1e-4, rtol=0)
    third = degradations["hue_global"].apply(given, torch.ones(1, 1, 1, 1), 256 / 3)
    torch.testing.assert_close(third, given[:, [2, 0, 1]], atol=2e-3, rtol=0)  # 256/3 is rounded to float32


def test_a_turn_of_hue_keeps_intensity_and_saturation() -> None:
    given = colours(10_000)
    d = degradations["hue_local"]
    turned = d.apply(given, d.draw(Streams(0, "data", ["a"], 0), 100), 40.0)
    _, s0, i0 = textbook_hsi(given[0].permute(1, 2, 0).double().numpy())
    _, s1, i1 = textbook_hsi(turned[0].permute(1, 2, 0).double().numpy())
    np.testing.assert_allclose(i1, i0, atol=1e-4)
    np.testing.assert_allclose(s1[i0 > 1], s0[i0 > 1], atol=1e-4)
