"""Loading a network that is ready to use: from a checkpoint of a run, from a user's weights, or with published ones."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnnsens_bench.models.base import (
    BOX,
    LONGEST,
    PYTHON,
    UNBUILDABLE,
    Classifier,
    Colours,
    build_network,
    location_of,
    preprocessing_of,
    split_name,
    split_path,
)
from cnnsens_bench.models.checkpoint import UninitialisedWeights, is_checkpoint, parse_checkpoint
from cnnsens_bench.models.classes import OutputClasses
from cnnsens_bench.models.weights import class_count, load_safely, load_weights, starting_weights, state_dict_of
from cnnsens_bench.utils.errors import UserError, first_line

FIRST_GUESS = 1000
"""How many classes the network has that weights are compared with to see how many they have."""


@dataclass(frozen=True)
class LoadedNetwork:
    """A network that is ready to use.

    Attributes
    ----------
    model : str
        `<source>/<architecture>`.
    classifier : Classifier
        The network in eval mode on the CPU.
    classes : tuple of str
        The names of its outputs, at least two.
    """

    model: str
    classifier: Classifier
    classes: tuple[str, ...]

    @property
    def input_size(self) -> int:
        """The side of its square input in pixels."""
        return self.classifier.preprocessing.input_size


def load_network(
    model: str | None = None,
    checkpoint: Path | None = None,
    input_size: int | None = None,
    classes: Sequence[str] | None = None,
    *,
    view: str = BOX,
    mean: Colours | None = None,
    std: Colours | None = None,
) -> LoadedNetwork:
    """Return the network of a checkpoint, or a model with its published weights.

    Parameters
    ----------
    model
        `<source>/<architecture>`. A checkpoint of this program knows it; a state dict does not.
    checkpoint
        A checkpoint of this program, or a state dict of `model` in the format of torch or safetensors. None for
        published weights.
    input_size
        The side of the square input in pixels. The default is the checkpoint's or the architecture's.
    classes
        The names of the outputs. By default the checkpoint's, or numbers.
    view
        `box` or `published`, for a model without a checkpoint of this program.
    mean, std
        The normalisation of a model without a checkpoint of this program, in place of the one that its source knows.

    Raises
    ------
    UserError
        If the weights are absent or damaged, do not fit the model, or the network fails at this input size.
    """
    weights = "auto"
    if model is not None:
        model, path = split_path(model)
        split_name(model)
        weights = path or weights
    if checkpoint is None:
        if model is None:
            raise UserError(
                "no network is named: give checkpoint=<file> (a run prints where its own are) or model=<name>"
            )
        state, _ = starting_weights(model, weights, "or give a file of weights with checkpoint=<path>")
        assert state is not None
        loaded = _from_state_dict(model, state, input_size, weights, view=view, mean=mean, std=std)
        return _check_by_running(loaded, classes)
    if not checkpoint.is_file():
        raise UserError(f"there is no checkpoint {checkpoint}: a run prints where its own are")
    content = load_safely(checkpoint)
    if is_checkpoint(content):
        loaded = _from_checkpoint(content, checkpoint, model, input_size)
    elif model is None:
        raise UserError(f"{checkpoint} is not a checkpoint of this program: say whose weights it has with model=<name>")
    else:
        state = state_dict_of(content, checkpoint)
        loaded = _from_state_dict(model, state, input_size, view=view, mean=mean, std=std)
    return _check_by_running(loaded, classes)


def _from_checkpoint(content: object, path: Path, model: str | None, input_size: int | None) -> LoadedNetwork:
    """Return the network of a checkpoint of this program."""
    saved = parse_checkpoint(content, str(path))
    # A tag names other weights of the same architecture: resnet18.a1_in1k
    if model is not None and model.partition(".")[0] != saved.model.partition(".")[0]:
        raise UserError(f"{path} is a checkpoint of '{saved.model}', not of '{model}': leave model= out")
    if model is None and split_name(saved.model)[0].name == PYTHON:
        raise UserError(f"{path} is a checkpoint of '{saved.model}', whose code would be run: name it with model=")
    trained_size = saved.preprocessing.input_size
    if input_size in (None, trained_size):
        return LoadedNetwork(saved.model, saved.classifier(), saved.classes)
    preprocessing = dataclasses.replace(saved.preprocessing, input_size=input_size)
    try:
        classifier = dataclasses.replace(saved, preprocessing=preprocessing).classifier()
    except (UserError, *UNBUILDABLE):
        raise UserError(
            f"{path} cannot be used at input_size={input_size}: it was trained at {trained_size} px"
        ) from None
    return LoadedNetwork(saved.model, classifier, saved.classes)


def network_for(model: str, state: dict[str, Tensor], input_size: int) -> tuple[nn.Module, int]:
    """Return a network without weights that has as many outputs as the head in a state dict, and their number."""

    def build(count: int) -> nn.Module:
        with UninitialisedWeights():
            return build_network(model, count, input_size, state)

    source, architecture = split_name(model)
    if source.fixed_outputs and (known := source.outputs(architecture)):
        return build(known.count), known.count
    network = build(FIRST_GUESS)
    count = class_count(network, state)
    return (network, FIRST_GUESS) if count is None else (build(count), count)


def head_of(model: str, state: dict[str, Tensor], input_size: int, weights: str = "auto") -> OutputClasses:
    """Return what the outputs of a state dict mean: the published classes where there are as many, else no names.

    `weights` says where the state dict is from: `auto`, or a path.
    """
    source, location = location_of(model, weights)
    published = source.outputs(location)
    if published and (source.restore or source.fixed_outputs):
        return published
    count = network_for(model, state, input_size)[1]
    return published if published and published.count == count else OutputClasses(count)


def _from_state_dict(
    model: str, state: dict[str, Tensor], input_size: int | None, weights: str = "auto", **known: Any
) -> LoadedNetwork:
    """Return a network with these weights. Its classes are numbers, as many as the head of the weights has."""
    preprocessing = preprocessing_of(model, input_size, weights=weights, **known)
    network, classes = network_for(model, state, preprocessing.input_size)
    if not load_weights(network, state, model):
        raise UserError(f"these weights are not of '{model}': their head has another form")
    return LoadedNetwork(model, Classifier(network, preprocessing).eval(), tuple(f"class {i}" for i in range(classes)))


def _check_by_running(loaded: LoadedNetwork, classes: Sequence[str] | None) -> LoadedNetwork:
    """Run the network once on a black image, and give its outputs the names in `classes`, if any.

    An input that is too small, or a head of another size, shows here and not only on the first photograph.
    """
    size = loaded.input_size
    try:
        with torch.inference_mode():
            count = loaded.classifier(torch.zeros(1, 3, size, size)).shape[1]
    except UNBUILDABLE as error:
        raise UserError(f"model '{loaded.model}' fails on inputs of {size} px: {first_line(error, LONGEST)}") from None
    if count != len(loaded.classes):
        raise UserError(f"the checkpoint names {len(loaded.classes)} classes, but its network has {count}")
    if count < 2:
        raise UserError(f"'{loaded.model}' has one class only: there is no other label to change to")
    if classes is None:
        return loaded
    if len(classes) != count:
        raise UserError(f"classes= names {len(classes)} classes, but the network has {count}")
    return dataclasses.replace(loaded, classes=tuple(classes))
