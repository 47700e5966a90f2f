"""Model sources and the one kind of network the rest of the house sees: a `Classifier` of [0, 255] pixels."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from cnnsens_bench.utils.errors import UserError, first_line
from cnnsens_bench.utils.registry import Registry


class WeightsUnavailable(Exception):
    """Pretrained weights are neither cached nor downloadable; the message says where they were looked for."""


@dataclass(frozen=True)
class Preprocessing:
    """What an architecture expects: the side of its square input, and mean and deviation of channels in [0, 1]."""

    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class ModelSource:
    """Where architectures come from.

    `names()` lists them; `describe(name)` gives their preprocessing; `build(name, num_classes, input_size)` a
    network with random weights; `pretrained(name)` a state dict (which may download) or `WeightsUnavailable`.
    """

    name: str
    names: Callable[[], list[str]]
    describe: Callable[[str], Preprocessing]
    build: Callable[[str, int, int], nn.Module]
    pretrained: Callable[[str], dict[str, Tensor]]


model_sources: Registry[ModelSource] = Registry("model source")


class Classifier(nn.Module):
    """A network with its normalisation inside: gradients are per unit of [0, 255] pixel.

    `forward`: (N, 3, H, W) float in [0, 255] → (N, classes) logits. `input_dropout`: the probability of a dropout layer
    between the normalised input and the network (paper, section 3); like every dropout it is off in eval mode.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, input_dropout: float = 0.0) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing
        self.input_dropout = nn.Dropout(input_dropout)
        scale = 1 / (255 * torch.tensor(preprocessing.std, dtype=torch.float64))
        shift = -torch.tensor(preprocessing.mean, dtype=torch.float64) / torch.tensor(preprocessing.std)
        self.register_buffer("scale", scale.float().view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", shift.float().view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(self.input_dropout(pixels * self.scale + self.shift))


def split_name(model: str) -> tuple[ModelSource, str]:
    """`<source>/<architecture>` → its source and the architecture; an unknown one is a `UserError`."""
    source_name, slash, architecture = model.partition("/")
    if not slash:
        raise UserError(f"model '{model}' lacks its source: write torchvision/{model} or timm/{model}")
    source = model_sources[source_name]
    names = source.names()
    # timm's names may carry a tag of the weights: resnet18.a1_in1k
    if architecture not in names and architecture.partition(".")[0] not in names:
        from cnnsens_bench.utils.registry import near

        raise UserError(f"unknown model '{model}'{near(architecture, names)}")
    return source, architecture


UNBUILDABLE = (AssertionError, TypeError, RuntimeError, ValueError)
"""What libraries raise for an input size that an architecture does not take."""

LONGEST = 160
"""Letters of a library's message that a sentence quotes."""


def preprocessing_of(model: str, input_size: int | None) -> Preprocessing:
    """The architecture's, but for the input size where one is given."""
    source, architecture = split_name(model)
    preprocessing = source.describe(architecture)
    return preprocessing if input_size is None else replace(preprocessing, input_size=input_size)


def build_network(model: str, classes: int, input_size: int) -> nn.Module:
    """With random weights. Raises `UserError` when it cannot be built for the input size."""
    source, architecture = split_name(model)
    try:
        return source.build(architecture, classes, input_size)
    except UNBUILDABLE as error:
        reason = first_line(error, LONGEST)
        raise UserError(f"model '{model}' cannot be built for inputs of {input_size} px: {reason}") from None


def num_parameters(network: nn.Module) -> int:
    """Trainable and frozen weights, without buffers."""
    return sum(parameter.numel() for parameter in network.parameters())


def logits_of(output: Any) -> Tensor:
    """The main logits of a forward pass; GoogLeNet and Inception give auxiliary ones beside them in training."""
    return output if isinstance(output, Tensor) else output[0]


def best_device() -> torch.device:
    """The first GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
