"""A network ready to use from what a person has: a checkpoint of a run, weights of their own, or published ones."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cnnsens_bench.models.base import LONGEST, UNBUILDABLE, Classifier, build_network, preprocessing_of, split_name
from cnnsens_bench.models.checkpoint import NoDraws, checkpoint_of, is_checkpoint
from cnnsens_bench.models.weights import class_count, fit, load_safely, starting_weights, state_of
from cnnsens_bench.utils.errors import UserError, first_line

FIRST_GUESS = 1000
"""Classes of the network that weights are held against to see how many they have."""


@dataclass(frozen=True)
class Ready:
    """A classifier in eval mode on the CPU; `classes[label]` names its outputs, at least two."""

    model: str
    classifier: Classifier
    classes: tuple[str, ...]

    @property
    def input_size(self) -> int:
        """Side of its inputs in pixels."""
        return self.classifier.preprocessing.input_size


def ready(
    model: str | None = None,
    checkpoint: Path | None = None,
    input_size: int | None = None,
    classes: Sequence[str] | None = None,
) -> Ready:
    """The network of a `checkpoint`, or `model` with its published weights.

    `checkpoint`: one of this program, which knows its model, or a state dict (torch or safetensors) for `model`.
    `input_size`: None for the checkpoint's or the architecture's; `classes`: None for the checkpoint's, or numbers.
    Raises `UserError` where that cannot be had, does not fit together, or does not run at that input size.
    """
    if model is not None:
        split_name(model)
    if checkpoint is None:
        if model is None:
            raise UserError(
                "no network is named: give checkpoint=<file> (a run prints where its own are) or model=<name>"
            )
        state, _ = starting_weights(model, "auto", "or give a file of weights with checkpoint=<path>")
        assert state is not None
        made = _of_state(model, state, input_size)
    else:
        if not checkpoint.is_file():
            raise UserError(f"there is no checkpoint {checkpoint}: a run prints where its own are")
        content = load_safely(checkpoint)
        if is_checkpoint(content):
            made = _of_run(content, checkpoint, model, input_size)
        elif model is None:
            raise UserError(
                f"{checkpoint} is not a checkpoint of this program: say whose weights it has with model=<name>"
            )
        else:
            made = _of_state(model, state_of(content, checkpoint), input_size)
    return _tried(made, classes)


def _of_run(content: object, path: Path, model: str | None, input_size: int | None) -> Ready:
    made = checkpoint_of(content, str(path))
    # A tag names other weights of the same architecture: resnet18.a1_in1k
    if model is not None and model.partition(".")[0] != made.model.partition(".")[0]:
        raise UserError(f"{path} is a checkpoint of '{made.model}', not of '{model}': leave model= out")
    trained = made.preprocessing.input_size
    if input_size in (None, trained):
        return Ready(made.model, made.classifier(), made.classes)
    preprocessing = dataclasses.replace(made.preprocessing, input_size=input_size)
    try:
        classifier = dataclasses.replace(made, preprocessing=preprocessing).classifier()
    except (UserError, *UNBUILDABLE):
        raise UserError(f"{path} cannot be used at input_size={input_size}: it was trained at {trained} px") from None
    return Ready(made.model, classifier, made.classes)


def _of_state(model: str, state: dict[str, Tensor], input_size: int | None) -> Ready:
    preprocessing = preprocessing_of(model, input_size)

    def built(count: int) -> nn.Module:
        with NoDraws():
            return build_network(model, count, preprocessing.input_size)

    network, classes = built(FIRST_GUESS), FIRST_GUESS
    count = class_count(network, state)
    if count is not None:
        network, classes = built(count), count
    if not fit(network, state, model):
        raise UserError(f"these weights are not of '{model}': their head has another form")
    return Ready(model, Classifier(network, preprocessing).eval(), tuple(f"class {i}" for i in range(classes)))


def _tried(made: Ready, classes: Sequence[str] | None) -> Ready:
    """Once run on a black image: too small an input, or a head of another size, shows here and not on a photograph."""
    size = made.input_size
    try:
        with torch.inference_mode():
            count = made.classifier(torch.zeros(1, 3, size, size)).shape[1]
    except UNBUILDABLE as error:
        raise UserError(f"model '{made.model}' fails on inputs of {size} px: {first_line(error, LONGEST)}") from None
    if count != len(made.classes):
        raise UserError(f"the checkpoint names {len(made.classes)} classes, but its network has {count}")
    if count < 2:
        raise UserError(f"'{made.model}' has one class only: there is no other label to change to")
    if classes is None:
        return made
    if len(classes) != count:
        raise UserError(f"classes= names {len(classes)} classes, but the network has {count}")
    return dataclasses.replace(made, classes=tuple(classes))
