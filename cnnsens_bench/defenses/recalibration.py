"""Mixing batch-norm statistics of degraded images into those of the training (Schneider et al. 2020, section 3).

With n images of statistics (m, s²) and a prior that counts for N images of the training's statistics (μ, σ²), the mean
becomes N/(N+n)·μ + n/(N+n)·m and the variance N/(N+n)·σ² + n/(N+n)·s². This is done layer by layer: each layer sees the
output of those before it with their new statistics.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cnnsens_bench.defenses.base import Recalibration, checked_number, defense


@defense("batch_norm_recalibration")
def batch_norm_recalibration(images: int = 64, prior: int = 16) -> Recalibration:
    """Take batch-norm statistics from degraded test images.

    They are the first `images` test images by the hash of their id, under the degradation, level and trial of the image
    that is predicted. The set is the same for every image, so that no prediction depends on its batch.
    """
    if isinstance(images, bool) or not isinstance(images, int) or images < 1:
        raise ValueError("images must be a whole number and at least 1")
    checked_number("prior", prior, lambda n: 0 <= n < float("inf"), "at least 0")
    return Recalibration(images, prior)


def batch_norm_layers(network: nn.Module) -> list[_BatchNorm]:
    """Return the layers of a network that hold statistics of their input."""
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
    return [layer for layer in layers if layer.running_mean is not None and layer.running_var is not None]


def statistics(layers: list[_BatchNorm]) -> list[Tensor]:
    """Return copies of all means and variances, layer by layer."""
    return [tensor.clone() for layer in layers for tensor in _held(layer)]


def set_statistics(layers: list[_BatchNorm], values: list[Tensor]) -> None:
    """Set all means and variances to what `statistics` returned."""
    held = [tensor for layer in layers for tensor in _held(layer)]
    torch._foreach_copy_(held, values)


def recalibrate(network: nn.Module, pixels: Tensor, prior: float) -> None:
    """Mix the statistics of images into a network that has those of the training, in one forward pass.

    Parameters
    ----------
    network
        Changed in place.
    pixels
        (n, 3, H, W) in [0, 255]; with n = 0 nothing changes.
    prior
        How many images the statistics of the training count for. Variances are unbiased, as torch's running ones are.
    """
    if not len(pixels):
        return
    weight = len(pixels) / (prior + len(pixels))

    def renew(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, _BatchNorm)
        mean, variance = _held(layer)
        batch_mean, batch_variance = _moments(inputs[0], mean)
        mean.copy_((1 - weight) * mean.double() + weight * batch_mean)
        variance.copy_((1 - weight) * variance.double() + weight * batch_variance)

    hooks = [layer.register_forward_pre_hook(renew) for layer in batch_norm_layers(network)]
    try:
        network(pixels)
    finally:
        for hook in hooks:
            hook.remove()


def _moments(values: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the unbiased variance, (C,) float64, of `values` (n, C, …).

    Each image is summed in float32 about `near` (C,), a guess of the mean, so that nothing cancels, and the images'
    sums are added in float64. A float64 copy of the activations would not fit into memory beside them, and torch's own
    sums for batch norm depend on the number of threads.
    """
    around = near.float().view(-1, *[1] * max(1, values.ndim - 2))
    count = values.numel() // values.shape[1]
    sums, squares = [], []
    for few in values.split(4):  # few images at a time stay in the processor's cache, and are read twice
        centred = few.float().reshape(*few.shape[:2], *few.shape[2:] or (1,)) - around
        over = list(range(2, centred.ndim))
        sums.append(centred.sum(over))
        squares.append(centred.square_().sum(over))
    offset, square = (torch.cat(parts).double().sum(0) / count for parts in (sums, squares))
    variance = (square - offset.square()).clamp(min=0) * (count / max(1, count - 1))
    return near.double() + offset, variance


def _held(layer: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return a layer's running mean and variance."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return layer.running_mean, layer.running_var
