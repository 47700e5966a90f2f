"""The two defenses in training are a dropout layer at the input and Gaussian noise on half of the images."""

import copy

import pytest
import torch
from torch import nn

from cnnsens_bench.models import Classifier, Preprocessing
from cnnsens_bench.training.trainer import with_noise


def classifier(p: float) -> Classifier:
    return Classifier(nn.Identity(), Preprocessing(16, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)), p)


def test_input_dropout_is_off_at_test_time() -> None:
    pixels = torch.rand(4, 3, 16, 16) * 255
    assert torch.equal(classifier(0.3).eval()(pixels), classifier(0.0).eval()(pixels))
    assert torch.equal(classifier(0.0).train()(pixels), classifier(0.0).eval()(pixels))


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_input_dropout_is_torchs_dropout_of_the_normalised_input(p: float) -> None:
    pixels = torch.rand(8, 3, 64, 64) * 255
    normalised = classifier(0.0).eval()(pixels)
    torch.manual_seed(1)
    ours = classifier(p).train()(pixels)
    torch.manual_seed(1)
    assert torch.equal(ours, nn.Dropout(p)(normalised))
    kept = ours != 0
    torch.testing.assert_close(ours[kept], normalised[kept] / (1 - p))
    assert abs((~kept).float().mean() - p) < 0.01
    torch.testing.assert_close(ours.mean(), normalised.mean(), rtol=0, atol=0.05)


def test_noise_is_gaussian_on_half_of_the_images_and_clamped() -> None:
    pixels = torch.full((400, 3, 16, 16), 128.0)
    before = copy.deepcopy(pixels)
    noisy = with_noise(pixels, 8.0)
    assert torch.equal(pixels, before)
    changed = (noisy != pixels).flatten(1).any(1)
    assert 150 < changed.sum() < 250
    assert noisy[changed].std() == pytest.approx(8, rel=0.03)
    assert torch.equal(with_noise(pixels, 0.0), pixels)
    wild = with_noise(pixels, 1e4)
    assert (wild.min(), wild.max()) == (0, 255)
