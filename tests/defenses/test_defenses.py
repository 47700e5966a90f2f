"""What every registered defense must fulfil, and how their texts are read or refused."""

import pytest
import torch

from cnnsens_bench.defenses import defenses, parse_defense
from cnnsens_bench.utils.errors import UserError

JOINED = "input_dropout(p=0.1) + gaussian_filter(size=3, sigma=0.5) + median_filter(size=3)"


def batch(*shape: int) -> torch.Tensor:
    return (torch.rand(shape, generator=torch.manual_seed(0)) * 255).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", [*defenses, JOINED])
def test_the_contract(name: str) -> None:
    """Shape, range, memory layout and the input are kept, and an image's bits depend on that image alone."""
    defense = parse_defense(name)
    assert parse_defense(defense.name).name == defense.name
    if defense.prefilter is None:
        return
    pixels = batch(5, 3, 20, 24)
    before = pixels.clone()
    result = defense.prefilter(pixels)
    assert torch.equal(pixels, before)
    assert (result.shape, result.dtype) == (pixels.shape, torch.float32)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert result.min() >= 0
    assert result.max() <= 255.001
    for i in range(5):
        assert torch.equal(defense.prefilter(pixels[i : i + 1])[0], result[i])
    assert torch.equal(defense.prefilter(pixels.flip(0)).flip(0), result)


def test_names_are_canonical() -> None:
    assert parse_defense("gaussian_filter").name == "gaussian_filter(size=3, sigma=0.5)"
    assert parse_defense(" gaussian_filter( sigma=0.5,size=3 )").name == "gaussian_filter(size=3, sigma=0.5)"
    assert parse_defense("none").name == "none"
    assert parse_defense("noise_training(sigma=8)").name == "noise_training(sigma=8.0)"
    assert parse_defense("batch_norm_recalibration(prior=8.0)").name == "batch_norm_recalibration(images=64, prior=8)"
    assert parse_defense("input_dropout+ gaussian_filter + median_filter()").name == JOINED


def test_what_is_joined_is_one_defense() -> None:
    joined = parse_defense(f"{JOINED} + noise_training(sigma=4) + batch_norm_recalibration(images=8)")
    assert joined.training == {"input_dropout": 0.1, "input_noise": 4.0}
    assert joined.recalibration is not None
    assert (joined.recalibration.images, joined.recalibration.prior) == (8, 16)
    pixels = batch(2, 3, 9, 9)
    assert joined.prefilter is not None
    blurred = parse_defense("gaussian_filter").prefilter(pixels)  # type: ignore[misc]
    assert torch.equal(joined.prefilter(pixels), parse_defense("median_filter").prefilter(blurred))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("gausian_filter", "did you mean 'gaussian_filter'"),
        ("gaussian_filter(size=4)", "size must be odd"),
        ("gaussian_filter(sigma=0)", "sigma must be above 0"),
        ("gaussian_filter(width=3)", "no argument 'width'"),
        ("gaussian_filter(3)", "need their names"),
        ("gaussian_filter(size='big')", "size must be odd"),
        ("gaussian_filter(sigma='big')", "sigma must be above 0"),
        ("gaussian_filter(sigma=1e999)", "sigma must be above 0"),
        ("morphological_closing(size=2)", "size must be odd"),
        ("morphological_closing(size=-3)", "size must be odd"),
        ("median_filter(size=3.5)", "size must be odd"),
        ("input_dropout(p=1)", r"p must be in \[0, 1\)"),
        ("input_dropout(p=-0.1)", "p must be in"),
        ("input_dropout(p=True)", "p must be in"),
        ("noise_training(sigma=0)", "sigma must be above 0"),
        ("batch_norm_recalibration(images=0)", "images must be a whole number and at least 1"),
        ("batch_norm_recalibration(images=2.5)", "images must be a whole number"),
        ("batch_norm_recalibration(prior=-1)", "prior must be at least 0"),
        ("none + gaussian_filter", "'none' cannot be joined"),
        ("input_dropout + input_dropout(p=0.2)", "sets the same key of the training twice"),
        ("batch_norm_recalibration + batch_norm_recalibration", "recalibrates twice"),
        ("gaussian_filter + ", "cannot be read"),
        ("gaussian_filter - median_filter", "unknown defense"),
        ("gaussian_filter(size=__import__('os'))", "cannot be read"),
        ("gaussian_filter(", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_what_is_no_defense(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        parse_defense(text)
