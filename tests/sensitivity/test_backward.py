"""The cheap backward pass gives the gradients of the plain one."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cnnsens_bench.models import split_name
from cnnsens_bench.sensitivity.backward import CheapBackward


def gradient_of(network: nn.Module, pixels: Tensor, cheap: bool) -> tuple[Tensor, Tensor]:
    leaf = pixels.clone().requires_grad_()
    if cheap:
        with CheapBackward():
            output = network(leaf)
    else:
        output = network(leaf)
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(7), dtype=output.dtype)
    return output.detach(), torch.autograd.grad((output * weight).sum(), leaf)[0]


@given(
    size=st.tuples(st.integers(8, 21), st.integers(8, 21)),
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    stride=st.integers(1, 5),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    channels=st.integers(1, 5),
    bias=st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_any_strided_convolution(
    size: tuple, kernel: tuple, stride: int, padding: tuple, channels: int, bias: bool
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, 6, kernel, stride, padding, bias=bias).double().requires_grad_(False)
    pixels = torch.randn(2, channels, *size).double()
    for cheap, plain in zip(gradient_of(layer, pixels, True), gradient_of(layer, pixels, False), strict=True):
        torch.testing.assert_close(cheap, plain)


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm2d(3),
        nn.BatchNorm2d(3, affine=False),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.Conv2d(3, 4, 3, 2, dilation=2),
        nn.Conv2d(3, 6, 3, 2, groups=3),
        nn.Conv2d(3, 4, 3, (2, 1)),
        nn.Conv2d(3, 4, 3, padding="same"),
        nn.Conv2d(3, 4, 3, 2, padding=1, padding_mode="reflect"),
    ],
    ids=str,
)
def test_other_layers_are_as_they_were(layer: nn.Module) -> None:
    torch.manual_seed(1)
    if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2)
    layer = layer.double().eval().requires_grad_(False)
    pixels = torch.randn(4, 3, 12, 12).double()
    for cheap, plain in zip(gradient_of(layer, pixels, True), gradient_of(layer, pixels, False), strict=True):
        torch.testing.assert_close(cheap, plain)


@pytest.mark.parametrize(
    "model",
    ["torchvision/alexnet", "torchvision/resnet18", "torchvision/googlenet", "timm/tf_efficientnet_lite0",
     "timm/test_vit", "timm/test_convnext", "timm/test_resnet"],
)  # fmt: skip
def test_whole_networks(model: str) -> None:
    torch.manual_seed(2)
    source, name = split_name(model)
    size = source.describe(name).input_size if "vit" in name else 64
    network = source.build(name, 5, size).double().eval().requires_grad_(False)
    pixels = torch.randn(2, 3, size, size).double()
    for cheap, plain in zip(gradient_of(network, pixels, True), gradient_of(network, pixels, False), strict=True):
        torch.testing.assert_close(cheap, plain)


def test_weights_that_are_trained_have_their_gradients() -> None:
    layer = nn.Conv2d(3, 4, 3, 2)
    pixels = torch.randn(2, 3, 9, 9)
    with CheapBackward():
        layer(pixels).sum().backward()
    expected = torch.autograd.grad(F.conv2d(pixels, layer.weight, layer.bias, 2).sum(), layer.weight)[0]
    torch.testing.assert_close(layer.weight.grad, expected)
