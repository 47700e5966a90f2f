"""The model source `torchvision`."""

import functools
import re
from typing import Any

import torch
import torchvision.models
from timm.data import ImageNetInfo
from torch import Tensor, nn
from torchvision.models import VisionTransformer, WeightsEnum
from torchvision.models.vision_transformer import interpolate_embeddings

from cnnsens_bench.images.published import PublishedView
from cnnsens_bench.models.base import LONGEST, WeightsUnavailable, model_source
from cnnsens_bench.models.classes import OutputClasses
from cnnsens_bench.models.preprocessing import Preprocessing
from cnnsens_bench.utils.errors import UserError, first_line

OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)")
"""The names of tensors in the published weights of DenseNets, which torchvision changes when it loads them."""


@functools.cache
def names() -> list[str]:
    """Return torchvision's classification networks."""
    return torchvision.models.list_models(module=torchvision.models)


def describe(name: str) -> Preprocessing:
    """Return the preprocessing of an architecture's default weights, or of those that a tag in `name` means."""
    transforms = _weights(name).transforms()
    return Preprocessing(transforms.crop_size[0], tuple(transforms.mean), tuple(transforms.std))


def published(name: str, input_size: int | str | None) -> Preprocessing:
    """Return the transform of an architecture's weights. At another size the share that is cropped stays.

    Raises `UserError` for `train`, since torchvision does not say which size its weights were trained at.
    """
    if input_size == "train":
        raise UserError(
            f"model 'torchvision/{name}': torchvision does not say at which size its weights were trained: take "
            "input_size=test, or a number of pixels"
        )
    transforms = _weights(name).transforms()
    [crop], [resize] = transforms.crop_size, transforms.resize_size
    size = input_size if isinstance(input_size, int) else crop
    view = PublishedView(size, "shorter", resize * size // crop, transforms.interpolation.value)
    return Preprocessing(size, tuple(transforms.mean), tuple(transforms.std), view)


def outputs(name: str) -> OutputClasses:
    """Return ImageNet's classes, which all published weights are of."""
    names = tuple(_weights(name).meta["categories"])
    return OutputClasses(len(names), tuple(ImageNetInfo("imagenet-1k").label_names()), names)


def _weights(name: str) -> WeightsEnum:
    """Return the weights of an architecture that a tag means, as in `resnet50.IMAGENET1K_V1`, or its default ones."""
    architecture, _, tag = name.partition(".")
    known = torchvision.models.get_model_weights(architecture)
    if tag and tag not in known.__members__:
        raise UserError(f"model 'torchvision/{name}': its weights are {', '.join(known.__members__)}")
    return known[tag] if tag else known.DEFAULT


def pretrained(name: str) -> dict[str, Tensor]:
    """Return published weights, which torchvision downloads, or has in its cache."""
    weights = _weights(name)
    try:
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        folder = f"{torch.hub.get_dir()}/checkpoints"
        raise WeightsUnavailable(
            f"{weights.url} ({first_line(error, LONGEST)}); a copy of that file in {folder} is used"
        ) from None


def adapt(name: str, network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with the position embeddings of a network's input size, and its names of tensors."""
    if isinstance(network, VisionTransformer):
        return interpolate_embeddings(network.image_size, network.patch_size, state)
    return {OLD_DENSENET.sub(r"\1\2", key): value for key, value in state.items()}


@model_source(
    "torchvision",
    names=names,
    describe=describe,
    pretrained=pretrained,
    published=published,
    outputs=outputs,
    adapt=adapt,
)
def build(name: str, num_classes: int, input_size: int) -> nn.Module:
    """Build a network in the form that its published weights fit."""
    arguments: dict[str, Any] = {"num_classes": num_classes}
    name = name.partition(".")[0]
    if name in ("googlenet", "inception_v3"):
        # The published networks take inputs scaled to [-1, 1]. Auxiliary heads serve only training from scratch.
        arguments |= {"aux_logits": False, "transform_input": True, "init_weights": False}
    elif name.startswith("vit_"):
        arguments["image_size"] = input_size
    elif name.startswith("maxvit_"):
        arguments["input_size"] = (input_size, input_size)
    return torchvision.models.get_model_builder(name)(weights=None, **arguments)
