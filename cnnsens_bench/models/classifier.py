"""`Classifier`: a network of pixels in [0, 255], with its normalisation inside and its outputs matched with classes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cnnsens_bench.models.preprocessing import Preprocessing


class Classifier(nn.Module):
    """A network with its normalisation inside, so that a gradient is per unit of a pixel in [0, 255].

    Parameters
    ----------
    network
        The network, which maps normalised images to logits.
    preprocessing
        What the network expects of its input.
    input_dropout
        The probability of a dropout layer between the normalised input and the network (section 3 of the paper). Like
        every dropout it acts in training mode only.
    outputs
        The positions of the outputs that are kept, in the order of the data set's classes; None for all.

    Examples
    --------
    >>> preprocessing = Preprocessing(4, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    >>> classifier = Classifier(nn.Flatten(), preprocessing)
    >>> classifier(torch.full((1, 3, 4, 4), 255.0)).unique()
    tensor([2.])
    """

    scale: Tensor
    shift: Tensor
    outputs: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        input_dropout: float = 0.0,
        outputs: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing
        self.input_dropout = nn.Dropout(input_dropout)
        scale = 1 / (255 * torch.tensor(preprocessing.std, dtype=torch.float64))
        shift = -torch.tensor(preprocessing.mean, dtype=torch.float64) / torch.tensor(preprocessing.std)
        self.register_buffer("scale", scale.float().view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", shift.float().view(1, 3, 1, 1), persistent=False)
        self.register_buffer("outputs", None if outputs is None else torch.tensor(outputs), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits (N, classes) of pixels (N, 3, H, W), which are floats in [0, 255]."""
        logits = self.network(self.input_dropout(pixels * self.scale + self.shift))
        return logits if self.outputs is None else logits[:, self.outputs]

    def gives_gradients(self) -> bool:
        """Return whether logits have a gradient by the pixels: the network's attribute `differentiable`, or a trial."""
        known = getattr(self.network, "differentiable", None)
        if known is not None:
            return bool(known)
        size, device = self.preprocessing.input_size, self.scale.device
        return has_gradient(self, torch.full((1, 3, size, size), 127.0, device=device))

    def compilable(self) -> bool:
        """Return whether its code is torch's own, which `torch.compile` can take.

        The code of other libraries, of functions and of TorchScript is not. A network's attribute `compilable` says so.
        """
        scripted = any(isinstance(module, torch.jit.ScriptModule) for module in self.network.modules())
        return bool(getattr(self.network, "compilable", True)) and not scripted


def has_gradient(function: Callable[[Tensor], Tensor], images: Tensor) -> bool:
    """Return whether the outputs of a function for some images have a gradient by these images."""
    with torch.enable_grad():
        given = images.clone().requires_grad_()
        try:
            return torch.autograd.grad(function(given).sum(), given, allow_unused=True)[0] is not None
        except RuntimeError:  # as NumPy's functions do to a tensor with a gradient
            return False


def num_parameters(network: nn.Module) -> int:
    """Return the number of trainable and frozen parameters of a network, without its buffers.

    Where the weights of a network are no parameters of torch, its attribute `hidden_parameters` counts them.

    Examples
    --------
    >>> num_parameters(nn.Linear(10, 3))
    33
    """
    hidden = sum(getattr(module, "hidden_parameters", 0) for module in network.modules())
    return hidden + sum(parameter.numel() for parameter in network.parameters())


def logits_of(output: Any) -> Tensor:
    """Return the main logits of a forward pass. In training, GoogLeNet and Inception also return auxiliary ones."""
    return output if isinstance(output, Tensor) else output[0]


def best_device() -> torch.device:
    """Return the first GPU where there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
