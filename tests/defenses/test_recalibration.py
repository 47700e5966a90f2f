"""Batch-norm recalibration against the formula computed by hand, layer by layer, in numpy."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

from cnnsens_bench.defenses.recalibration import batch_norm_layers, recalibrate, set_statistics, statistics


def small() -> nn.Sequential:
    """Return two convolutions and a head, each with batch norm whose statistics differ from its input's."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 3),
    ).eval()  # fmt: skip
    for layer in batch_norm_layers(network):
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2)
    return network


def by_hand(network: nn.Sequential, pixels: torch.Tensor, prior: float) -> list[np.ndarray]:
    """Compute the formula in float64, running the network layer by layer with the statistics found so far."""
    found = []
    values = pixels.double()
    n = len(pixels)
    for layer in network.double():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            flat = values.transpose(0, 1).flatten(1).numpy()
            mean = prior / (prior + n) * layer.running_mean.numpy() + n / (prior + n) * flat.mean(1)
            variance = prior / (prior + n) * layer.running_var.numpy() + n / (prior + n) * flat.var(1, ddof=1)
            found += [mean, variance]
            shape = (1, -1) + (1,) * (values.ndim - 2)
            values = (values - torch.from_numpy(mean).view(shape)) / torch.from_numpy(variance + layer.eps).view(
                shape
            ).sqrt()
            values = values * layer.weight.view(shape) + layer.bias.view(shape)
        else:
            values = layer(values)
    return found


@pytest.mark.parametrize("prior", [0, 16, 1000])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_it_is_the_papers_formula(prior: int, memory: torch.memory_format) -> None:
    pixels = torch.rand(7, 3, 19, 17) * 4 + 30
    network = small()
    with torch.inference_mode():
        recalibrate(network, pixels.contiguous(memory_format=memory), prior)
    with torch.no_grad():
        expected = by_hand(small(), pixels, prior)
    for ours, exact in zip(statistics(batch_norm_layers(network)), expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), exact, rtol=2e-4, atol=1e-5)


def test_without_a_prior_it_is_torchs_batch_norm() -> None:
    pixels = torch.rand(8, 3, 20, 20) * 9
    network, theirs = small(), small()
    for layer in batch_norm_layers(theirs):
        layer.train().momentum = 1.0
    with torch.no_grad():
        theirs(pixels)
        recalibrate(network, pixels, 0)
    # While training, torch normalises with the biased variance, so later layers differ by the factor n / (n − 1).
    for ours, other in zip(statistics(batch_norm_layers(network)), statistics(batch_norm_layers(theirs)), strict=True):
        torch.testing.assert_close(ours, other, rtol=2e-2, atol=2e-3)


def test_an_infinite_prior_no_images_and_setting_back_change_nothing() -> None:
    network = small()
    layers = batch_norm_layers(network)
    before = statistics(layers)
    pixels = torch.rand(4, 3, 12, 12)
    recalibrate(network, pixels[:0], 16)
    assert all(map(torch.equal, statistics(layers), before))
    with torch.no_grad():
        recalibrate(network, pixels, 16)
        assert not any(map(torch.equal, statistics(layers), before))
        set_statistics(layers, before)
    assert all(map(torch.equal, statistics(layers), before))
    assert not any(layer._forward_pre_hooks for layer in network)


def test_one_image_of_one_value_is_no_number_lost() -> None:
    network = nn.Sequential(nn.BatchNorm1d(3)).eval()
    with torch.no_grad():
        recalibrate(network, torch.rand(1, 3), 1)
    assert all(values.isfinite().all() for values in statistics(batch_norm_layers(network)))


def test_bits_do_not_depend_on_threads() -> None:
    network = timm.create_model("test_resnet", num_classes=3).eval().to(memory_format=torch.channels_last)
    layers = batch_norm_layers(network)
    before = statistics(layers)
    pixels = torch.rand(13, 3, 57, 57).contiguous(memory_format=torch.channels_last)
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            set_statistics(layers, before)
            with torch.inference_mode():
                recalibrate(network, pixels, 16)
            found.append(statistics(layers))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_networks_without_batch_norm_have_no_layers() -> None:
    assert not batch_norm_layers(nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.LayerNorm(4)))
    assert not batch_norm_layers(nn.BatchNorm2d(4, track_running_stats=False))
