"""What all model sources share: their registry, the names of models, and how their networks are built."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePath

import torch
from torch import Tensor, nn

from cnnsens_bench.images.published import PublishedView
from cnnsens_bench.models.classes import OutputClasses
from cnnsens_bench.models.classifier import logits_of
from cnnsens_bench.models.preprocessing import AS_KNOWN, BOX, GivenInput, Preprocessing
from cnnsens_bench.utils.errors import UserError, first_line
from cnnsens_bench.utils.registry import Registry, near


class WeightsUnavailable(Exception):
    """Pretrained weights are neither on this machine nor can be downloaded.

    The message is the end of the sentence "the pretrained weights cannot be had from …".
    """


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
    identify: Callable[[str], str] | None = None

    @property
    def function(self) -> Callable[[str, int, int], nn.Module]:
        """The decorated function, by which the registry knows the same definition again."""
        return self.build


model_sources: Registry[ModelSource] = Registry("model source")


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
    identify: Callable[[str], str] | None = None,
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
    identify
        A function that returns a text which differs where an architecture of the same name and weights computes
        something else. Without it, the name and the weights identify a network.

    Examples
    --------
    >>> from cnnsens_bench.models.classifier import Classifier
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
        model_sources.add(name, ModelSource(name, *found, require_trainable, adapt, identify))
        return build

    return decorate


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
    given: GivenInput = AS_KNOWN,
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
    given
        What a user says in place of what the source knows.
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
    found = given.over(replace(found, view=None if view == BOX else found.view))
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
    # Only the weights of some sources know the size that a network was made for.
    if source.restore or input_size != source.describe(architecture).input_size:
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
