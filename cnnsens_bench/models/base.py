"""What all model sources share: their registry, and the `Classifier` of pixels in [0, 255] that a network becomes."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor, nn

from cnnsens_bench.images.published import PublishedView
from cnnsens_bench.models.classes import OutputClasses
from cnnsens_bench.utils.errors import UserError, first_line
from cnnsens_bench.utils.registry import Registry, near


class WeightsUnavailable(Exception):
    """Pretrained weights are neither on this machine nor can be downloaded.

    The message is the end of the sentence "the pretrained weights cannot be had from …".
    """


@dataclass(frozen=True)
class Preprocessing:
    """What an architecture expects of its input.

    Attributes
    ----------
    input_size : int
        The side of its square input in pixels.
    mean, std : tuple of float
        The mean and the standard deviation of each RGB channel, for values in [0, 1]. A source that cannot know them
        describes a network with `UNKNOWN_COLOURS`, and an unknown input size is 0: the user must then say them.
    view : PublishedView or None
        How the network's own library resizes and crops an image; None for its box, resized to the square.
    """

    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    view: PublishedView | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values by name. A view of the box is left out, as it was before there was another."""
        values = dataclasses.asdict(self)
        return values if self.view else {key: values[key] for key in values if key != "view"}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        """Return the preprocessing of which `as_dict` gave the values. Raises `KeyError` or `TypeError`."""
        view = values.get("view")
        if view is not None:
            view = PublishedView(**{**view, "fill": tuple(view["fill"])})
        return cls(values["input_size"], tuple(values["mean"]), tuple(values["std"]), view)


Colours = tuple[float, float, float]
"""A mean or a standard deviation of each RGB channel, for values in [0, 1]."""

UNKNOWN_COLOURS: Colours = (math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class ModelSource:
    """A registered model source; `model_source` explains the attributes."""

    name: str
    names: Callable[[], list[str]] | None
    describe: Callable[[str], Preprocessing]
    build: Callable[[str, int, int], nn.Module]
    pretrained: Callable[[str], dict[str, Tensor]]
    published: Callable[[str, int | str | None], Preprocessing] | None = None
    outputs: Callable[[str], OutputClasses | None] = lambda architecture: None
    restore: Callable[[dict[str, Tensor], int, int], nn.Module] | None = None
    trainable: bool = True
    fixed_outputs: bool = False
    require_trainable: Callable[[str, int], None] = lambda architecture, classes: None
    adapt: Callable[[str, nn.Module, dict[str, Tensor]], dict[str, Tensor]] | None = None

    @property
    def function(self) -> Callable[[str, int, int], nn.Module]:
        """The decorated function, by which the registry knows the same definition again."""
        return self.build


model_sources: Registry[ModelSource] = Registry("model source")

BOX, PUBLISHED = "box", "published"
"""The two ways to view an image: its box, or what the network's own library evaluates with."""


def _no_weights(architecture: str) -> dict[str, Tensor]:
    """Stand in for `pretrained` of a source that has no weights."""
    raise WeightsUnavailable("its source, which has none")


def model_source(
    name: str,
    *,
    names: Callable[[], list[str]] | None,
    describe: Callable[[str], Preprocessing],
    pretrained: Callable[[str], dict[str, Tensor]] = _no_weights,
    published: Callable[[str, int | str | None], Preprocessing] | None = None,
    outputs: Callable[[str], OutputClasses | None] = lambda architecture: None,
    restore: Callable[[dict[str, Tensor], int, int], nn.Module] | None = None,
    trainable: bool = True,
    fixed_outputs: bool = False,
    require_trainable: Callable[[str, int], None] = lambda architecture, classes: None,
    adapt: Callable[[str, nn.Module, dict[str, Tensor]], dict[str, Tensor]] | None = None,
) -> Callable[[Callable[[str, int, int], nn.Module]], Callable[[str, int, int], nn.Module]]:
    """Register a function that builds the networks of a model source.

    The function is called as `build(architecture, num_classes, input_size)` and returns a `torch.nn.Module` with random
    weights, which maps normalised images (N, 3, input_size, input_size) to logits (N, num_classes). A network of the
    source is named `<source>/<architecture>`.

    Parameters
    ----------
    name
        The name of the source.
    names
        A function without arguments that lists the architectures; one that ends with a colon stands for all that begin
        with it. None where their number has no end, and `describe` raises `UserError` for one that there is not.
    describe
        A function that returns the `Preprocessing` of an architecture.
    pretrained
        A function that returns the state dict of an architecture's published weights, which it may download, or raises
        `WeightsUnavailable`. Without it, networks start from random weights or from a file.
    published
        A function that returns the `Preprocessing` that the source itself evaluates an architecture's weights with, its
        `view` included, for an input size: pixels, `train`, `test`, or None for what the source prefers. Without it,
        the shorter side is resized to the input size, and the middle is cropped.
    outputs
        A function that returns what the outputs of an architecture's published weights mean, or None where that is
        unknown.
    restore
        A function that builds a network from a state dict which describes it, for a number of classes and an input
        size, for sources whose networks are files of a user. Where `weights` names a path, the other functions of such
        a source are called with that path in place of the architecture; `build` is not needed for them.
    trainable
        Whether its networks can be fine-tuned.
    fixed_outputs
        Whether a network has its own number of outputs, which `outputs` says, whatever `num_classes` is.
    require_trainable
        A function of an architecture and a number of classes that raises `UserError` where the network cannot be
        fine-tuned for them.
    adapt
        A function of an architecture, a network and a state dict that returns the state dict in the network's names and
        shapes, such as position embeddings for its input size. It is called where they do not fit as they are.

    Examples
    --------
    >>> SIZES = {"small": 8, "large": 64}
    >>> @model_source(
    ...     "lab", names=lambda: list(SIZES), describe=lambda name: Preprocessing(16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    ... )
    ... def build(architecture, num_classes, input_size):
    ...     width = SIZES[architecture]
    ...     pooled = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    ...     return nn.Sequential(pooled, nn.Linear(width, num_classes))
    >>> source, architecture = split_name("lab/small")
    >>> Classifier(build_network("lab/small", 5, 16), source.describe(architecture))(torch.zeros(2, 3, 16, 16)).shape
    torch.Size([2, 5])
    """

    def decorate(build: Callable[[str, int, int], nn.Module]) -> Callable[[str, int, int], nn.Module]:
        found = (names, describe, build, pretrained, published, outputs, restore, trainable, fixed_outputs)
        model_sources.add(name, ModelSource(name, *found, require_trainable, adapt))
        return build

    return decorate


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
        with torch.enable_grad():
            pixels = torch.full((1, 3, size, size), 127.0, device=device, requires_grad=True)
            try:
                return self(pixels).requires_grad
            except RuntimeError:  # as NumPy's functions do to a tensor with a gradient
                return False


def split_name(model: str) -> tuple[ModelSource, str]:
    """Return the source and the architecture of a model's name.

    Parameters
    ----------
    model
        `<source>/<architecture>`. The architecture may end with a dot and a tag of its weights, as timm writes it.

    Raises
    ------
    UserError
        If the source or the architecture is unknown. The sentence names those that are spelt alike.

    Examples
    --------
    >>> source, architecture = split_name("timm/resnet18.a1_in1k")
    >>> source.name, architecture
    ('timm', 'resnet18.a1_in1k')
    """
    source_name, slash, architecture = model.partition("/")
    if not slash and ":" in model:  # module:function
        source_name, slash, architecture = PYTHON, "/", model
    if not slash:
        raise UserError(f"model '{model}' lacks its source: write torchvision/{model} or timm/{model}")
    source = model_sources[source_name]
    names = source.names() if source.names else [architecture]
    if any(architecture.startswith(name) for name in names if name.endswith(":")):
        return source, architecture
    if architecture not in names and architecture.partition(".")[0] not in names:
        raise UserError(f"unknown model '{model}'{near(architecture, names)}")
    return source, architecture


def split_path(model: str) -> tuple[str, str | None]:
    """Return the short name that a model is stored by, and the path in its name, None where there is none.

    Parameters
    ----------
    model
        `<source>/<path>` of a source of files, where the path begins with `/`, `./`, `../` or `~`, or ends with
        `.onnx`; any other name is returned as it is.

    Examples
    --------
    >>> split_path("onnx//weights/net.onnx"), split_path("hf/microsoft/resnet-50")
    (('onnx/net', '/weights/net.onnx'), ('hf/microsoft/resnet-50', None))
    """
    source, _, path = model.partition("/")
    of_files = source in model_sources and model_sources[source].restore
    if not of_files or not (path.startswith(("/", "./", "../", "~")) or path.endswith(".onnx")):
        return model, None
    return f"{source}/{PurePath(path).name.removesuffix('.onnx')}", path


PYTHON = "python"
"""The source of models that are named `module:function`, without a source."""


def architecture_of(model: str) -> str:
    """Return a model's name without its source.

    Examples
    --------
    >>> architecture_of("timm/resnet18"), architecture_of("my_networks:small")
    ('resnet18', 'my_networks:small')
    """
    return model.partition("/")[2] if "/" in model else model


UNBUILDABLE = (AssertionError, TypeError, RuntimeError, ValueError)
"""The errors that libraries raise for an input size that an architecture does not take."""

LONGEST = 160
"""How many characters of a library's message a sentence quotes."""


def location_of(model: str, weights: str) -> tuple[ModelSource, str]:
    """Return the source of a model, and what its functions take: the architecture, or the path that `weights` names.

    The latter is for sources whose networks are files of a user; see `restore` of `model_source`.
    """
    source, architecture = split_name(model)
    return source, weights if source.restore and weights not in ("auto", "random") else architecture


def preprocessing_of(
    model: str,
    input_size: int | str | None,
    view: str = BOX,
    *,
    mean: Colours | None = None,
    std: Colours | None = None,
    weights: str = "auto",
) -> Preprocessing:
    """Return what a model expects of its input.

    Parameters
    ----------
    model
        `<source>/<architecture>`.
    input_size
        The side of the input in pixels; `train` or `test` for the size that the library trained or tests with; None for
        the size that the view prefers: `test` for a published one.
    view
        `box` or `published`.
    mean, std
        The normalisation, in place of the one that the source knows.
    weights
        `auto`, `random` or a path, for sources whose networks are files of a user.

    Raises
    ------
    UserError
        If the model is unknown, its library's transform is not one that can be followed, or what the source cannot know
        is not given.
    """
    source, location = location_of(model, weights)
    described = source.describe(location)
    if view == BOX and not isinstance(input_size, str):
        found = described if input_size is None else replace(described, input_size=input_size)
    elif source.published:
        found = source.published(location, input_size)
    else:
        size = input_size if isinstance(input_size, int) else described.input_size
        found = replace(described, input_size=size, view=PublishedView(size))
    found = replace(found, mean=mean or found.mean, std=std or found.std, view=None if view == BOX else found.view)
    if not found.input_size:
        raise UserError(f"'{model}' takes inputs of any size: give one with input_size=<pixels>")
    if any(map(math.isnan, (*found.mean, *found.std))):
        path = "" if weights in ("auto", "random") else f", weights: {weights}"
        raise UserError(
            f"the mean and std that '{model}' expects of pixels in [0, 1] cannot be known: name them, as in "
            f"models=[{{name: {model}{path}, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}}]; "
            "mean: [0, 0, 0], std: [1, 1, 1] where it normalises its input itself"
        )
    return found


def build_network(model: str, classes: int, input_size: int, state: dict[str, Tensor] | None = None) -> nn.Module:
    """Return a network of a model with random weights.

    Parameters
    ----------
    model
        `<source>/<architecture>`.
    classes
        The number of its outputs.
    input_size
        The side of its square input in pixels.
    state
        The state dict that it gets later, which some sources build their networks from.

    Raises
    ------
    UserError
        If the model is unknown, cannot be built for this input size, or fails on inputs of a size that is not its own.
    """
    source, architecture = split_name(model)
    try:
        if source.restore and state is not None:
            network = source.restore(state, classes, input_size)
        else:
            network = source.build(architecture, classes, input_size)
    except UNBUILDABLE as error:
        reason = first_line(error, LONGEST)
        raise UserError(f"model '{model}' cannot be built for inputs of {input_size} px: {reason}") from None
    if input_size != source.describe(architecture).input_size:
        check_by_running(model, network, input_size)
    return network


def check_by_running(model: str, network: nn.Module, input_size: int) -> int:
    """Run a network once on a black image, in evaluation mode, and return the number of its outputs.

    Some networks can be built for inputs of a size that they cannot be run on.

    Raises
    ------
    UserError
        If the network fails.
    """
    training = network.training
    try:
        with torch.no_grad():  # some networks keep what a pass computes, which gradients need later
            return logits_of(network.eval()(torch.zeros(1, 3, input_size, input_size))).shape[1]
    except UNBUILDABLE as error:
        reason = first_line(error, LONGEST)
        raise UserError(f"model '{model}' fails on inputs of {input_size} px: {reason}") from None
    finally:
        network.train(training)


def num_parameters(network: nn.Module) -> int:
    """Return the number of trainable and frozen parameters of a network, without its buffers.

    Of a network whose weights are no parameters of torch, the attribute `hidden_parameters` counts them.

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
