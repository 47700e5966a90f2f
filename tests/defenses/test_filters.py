"""The filters against scipy and OpenCV on images of any shape, in both implementations."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cnnsens_bench.defenses import parse_defense
from cnnsens_bench.defenses.filters import closing_of_batch, median_of_batch
from cnnsens_bench.engine.dry_run import probe
from cnnsens_bench.engine.sweep import Condition
from cnnsens_bench.utils.errors import UserError

SHAPES = st.tuples(st.integers(1, 3), st.just(3), st.integers(6, 24), st.integers(6, 24))
SIZES = st.sampled_from([1, 3, 5, 7])


def filtered(text: str, pixels: torch.Tensor) -> np.ndarray:
    prefilter = parse_defense(text).prefilter
    assert prefilter is not None
    return prefilter(pixels).numpy()


def batch(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Return a batch in which half of the values are whole, so that there are ties."""
    values = np.random.default_rng(seed).uniform(0, 255, shape).astype(np.float32)
    return torch.from_numpy(np.where(values < 128, values.round(), values))


@pytest.mark.parametrize(("size", "sigma"), [(3, 0.5), (5, 1.0), (7, 2.0)])
def test_gaussian_filter(size: int, sigma: float) -> None:
    pixels = batch((2, 3, 30, 26))
    ours = filtered(f"gaussian_filter(size={size}, sigma={sigma})", pixels)
    radius = (0, 0, size // 2, size // 2)
    exact = ndimage.gaussian_filter(pixels.double().numpy(), (0, 0, sigma, sigma), mode="mirror", radius=radius)
    np.testing.assert_allclose(ours, exact, atol=1e-3)
    for image, result in zip(pixels.permute(0, 2, 3, 1).numpy(), ours.transpose(0, 2, 3, 1), strict=True):
        np.testing.assert_allclose(result, cv2.GaussianBlur(image, (size, size), sigma), atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(shape=SHAPES, size=SIZES, seed=st.integers(0, 2**31))
def test_morphological_closing(shape: tuple[int, ...], size: int, seed: int) -> None:
    pixels = batch(shape, seed)
    ours = filtered(f"morphological_closing(size={size})", pixels)
    assert np.array_equal(ours, ndimage.grey_closing(pixels.numpy(), (1, 1, size, size), mode="reflect"))
    for image, result in zip(pixels.permute(0, 2, 3, 1).numpy(), ours.transpose(0, 2, 3, 1), strict=True):
        assert np.array_equal(result, cv2.morphologyEx(image, cv2.MORPH_CLOSE, np.ones((size, size), np.uint8)))
    assert np.array_equal(filtered(f"morphological_closing(size={size})", torch.from_numpy(ours)), ours)
    assert (ours >= pixels.numpy()).all()
    assert np.array_equal(closing_of_batch(pixels, size).numpy(), ours)


@settings(max_examples=40, deadline=None)
@given(shape=SHAPES, size=SIZES, seed=st.integers(0, 2**31))
def test_median_filter(shape: tuple[int, ...], size: int, seed: int) -> None:
    pixels = batch(shape, seed)
    ours = filtered(f"median_filter(size={size})", pixels)
    assert np.array_equal(ours, ndimage.median_filter(pixels.numpy(), (1, 1, size, size), mode="reflect"))
    if size in (3, 5):
        inner = slice(0, None) if size == 3 else slice(2, -2)
        for image, result in zip(pixels.permute(0, 2, 3, 1).numpy(), ours.transpose(0, 2, 3, 1), strict=True):
            assert np.array_equal(result[inner, inner], cv2.medianBlur(image, size)[inner, inner])
    assert np.array_equal(median_of_batch(pixels, size).numpy(), ours)


def test_a_filter_larger_than_the_image_is_one_sentence_before_the_sweep() -> None:
    conditions = [Condition("flip_lr", (0.0,), 1)]
    good = [parse_defense(text) for text in ("gaussian_filter", "median_filter", "none", "input_dropout")]
    probe(conditions, [32], good)
    with pytest.raises(UserError, match=r"defense 'gaussian_filter\(size=99, sigma=0.5\)' fails on inputs of 32 px"):
        probe(conditions, [32], [parse_defense("gaussian_filter(size=99)")])
