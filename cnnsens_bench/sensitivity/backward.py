"""A backward pass to the pixels that costs about as much as the forward pass, for any network.

Libraries are optimised for gradients of weights. For gradients of pixels alone, two operations are slow. One is the
gradient of a strided convolution of few channels with respect to its input: AlexNet's first convolution takes 5 times
its forward pass on a CPU, ResNet's 3 times. The other is batch normalisation in eval mode, which is an affine map but
has the backward pass of a training step.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

FEW = 4
"""The number of input channels up to which a convolution is taken for the first one of a network."""


class CheapBackward(TorchFunctionMode):
    """A context in which networks give the same gradients with respect to their inputs, up to rounding, but faster.

    Gradients with respect to weights stay as they are, and as slow.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cheaper = {F.batch_norm: _batch_norm, F.conv2d: _conv2d, torch.conv2d: _conv2d}
        return cheaper.get(func, func)(*args, **(kwargs or {}))


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if training or running_mean is None or running_var is None:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    scale = (running_var + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -running_mean * scale
    shift = shift if bias is None else shift + bias
    shape = (1, -1, *[1] * (input.ndim - 2))
    return torch.addcmul(shift.view(shape), input, scale.view(shape))


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    strides, dilations = _pair(stride), _pair(dilation)
    plain = groups == 1 and dilations == (1, 1) and not isinstance(padding, str) and input.ndim == 4
    if plain and weight.shape[1] <= FEW and strides[0] == strides[1] > 1 and not weight.requires_grad:
        result: Tensor = _StridedConvolution.apply(input, weight, bias, strides[0], _pair(padding))
        return result
    return F.conv2d(input, weight, bias, stride, padding, dilation, groups)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value * 2 if len(value) == 1 else tuple(value))


class _StridedConvolution(torch.autograd.Function):
    """A convolution whose gradient with respect to the input is a convolution at the resolution of the output.

    A pixel can have stride² positions relative to the kernel, and at each it meets another part of the weights. The
    gradients at these positions are computed as channels, and shuffled to where they belong.
    """

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: Any) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.stride, ctx.padding, ctx.size = stride, padding, input.shape[-2:]
        return F.conv2d(input, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        stride, (top, left), (height, width) = ctx.stride, ctx.padding, ctx.size
        out, channels, *kernel = weight.shape
        down, across = (-(-side // stride) for side in kernel)  # the size of each part of the kernel
        whole = F.pad(weight, (0, across * stride - kernel[1], 0, down * stride - kernel[0]))
        parts = whole.view(out, channels, down, stride, across, stride).permute(1, 3, 5, 0, 2, 4)
        parts = parts.reshape(channels * stride**2, out, down, across).flip(2, 3)
        parts = parts.contiguous(memory_format=torch.channels_last)
        spread = F.pixel_shuffle(F.conv2d(gradient, parts, padding=(down - 1, across - 1)), stride)
        # Rows and columns that no window reached have no gradient.
        missing = (max(0, left + width - spread.shape[-1]), max(0, top + height - spread.shape[-2]))
        if any(missing):
            spread = F.pad(spread, (0, missing[0], 0, missing[1]))
        inner = spread[..., top : top + height, left : left + width]
        return inner.contiguous(memory_format=torch.channels_last), None, None, None, None
