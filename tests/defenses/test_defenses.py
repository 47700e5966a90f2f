"""Test-time defenses: every registered one keeps its contract; filters against scipy."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from cnnsens_bench.defenses import defenses, parse_defense
from cnnsens_bench.errors import UserError


@pytest.mark.parametrize("name", defenses)
def test_shape_and_range_are_kept(name: str) -> None:
    defense = parse_defense(name)
    pixels = torch.rand(2, 3, 20, 24) * 255
    if defense.prefilter is not None:
        result = defense.prefilter(pixels)
        assert result.shape == pixels.shape
        assert result.min() >= 0
        assert result.max() <= 255.001
    assert parse_defense(defense.name).name == defense.name


@pytest.mark.parametrize(("size", "sigma"), [(3, 0.5), (5, 1.0), (7, 2.0)])
def test_gaussian_filter_equals_scipy(size: int, sigma: float) -> None:
    pixels = torch.rand(2, 3, 30, 26, dtype=torch.float32) * 255
    ours = parse_defense(f"gaussian_filter(size={size}, sigma={sigma})").prefilter(pixels).numpy()
    radius = size // 2
    expected = ndimage.gaussian_filter(pixels.double().numpy(), (0, 0, sigma, sigma), mode="mirror", radius=(0, 0, radius, radius))  # fmt: skip  # noqa: E501
    np.testing.assert_allclose(ours, expected, atol=1e-3)


def test_names_are_canonical() -> None:
    assert parse_defense("gaussian_filter").name == "gaussian_filter(size=3, sigma=0.5)"
    assert parse_defense(" gaussian_filter( sigma=0.5,size=3 )").name == "gaussian_filter(size=3, sigma=0.5)"
    assert parse_defense("none").name == "none"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("gausian_filter", "did you mean 'gaussian_filter'"),
        ("gaussian_filter(size=4)", "size must be odd"),
        ("gaussian_filter(sigma=0)", "sigma must be above 0"),
        ("gaussian_filter(width=3)", "no argument 'width'"),
        ("gaussian_filter(3)", "need their names"),
        ("gaussian_filter(size='big')", "defense"),
        ("gaussian_filter(size=__import__('os'))", "cannot be read"),
        ("gaussian_filter(", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_what_is_no_defense(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        parse_defense(text)
