"""The hue entropy of pictures with known hues."""

import colorsys

import numpy as np
import pytest

from cnnsens_bench.sensitivity.hue import hue_entropy


def test_one_hue_has_no_entropy_and_gray_has_none() -> None:
    assert hue_entropy(np.full((8, 8, 3), (200, 40, 40), np.uint8)) == 0
    assert hue_entropy(np.full((8, 8, 3), 90, np.uint8)) == 0


@pytest.mark.parametrize("count", [2, 4, 8])
def test_equally_common_hues(count: int) -> None:
    colours = [colorsys.hsv_to_rgb(i / count + 0.01, 1, 1) for i in range(count)]
    pixels = (np.array(colours * 4).reshape(-1, count, 3) * 255).round().astype(np.uint8)
    assert hue_entropy(pixels) == pytest.approx(np.log2(count))
    gray = np.full((50, count, 3), 77, np.uint8)
    assert hue_entropy(np.concatenate([pixels, gray])) == pytest.approx(np.log2(count))


def test_the_mask_decides_what_counts() -> None:
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, :4], pixels[:, 4:] = (255, 0, 0), (0, 0, 255)
    mask = np.zeros((4, 8), bool)
    mask[:, :4] = True
    assert hue_entropy(pixels) == pytest.approx(1)
    assert hue_entropy(pixels, mask) == 0
    assert hue_entropy(pixels, np.zeros_like(mask)) == pytest.approx(1)
