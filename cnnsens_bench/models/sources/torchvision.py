"""The model source `torchvision`."""

import functools
from typing import Any

import torch
import torchvision.models
from torch import Tensor, nn

from cnnsens_bench.models.base import LONGEST, Preprocessing, WeightsUnavailable, model_source
from cnnsens_bench.utils.errors import first_line


@functools.cache
def names() -> list[str]:
    """Return torchvision's classification networks."""
    return torchvision.models.list_models(module=torchvision.models)


def describe(name: str) -> Preprocessing:
    """Return the preprocessing of an architecture's default weights."""
    transforms = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    return Preprocessing(transforms.crop_size[0], tuple(transforms.mean), tuple(transforms.std))


def pretrained(name: str) -> dict[str, Tensor]:
    """Return the default weights, which torchvision downloads, or has in its cache."""
    weights = torchvision.models.get_model_weights(name).DEFAULT
    try:
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        folder = f"{torch.hub.get_dir()}/checkpoints"
        raise WeightsUnavailable(
            f"{weights.url} ({first_line(error, LONGEST)}); a copy of that file in {folder} is used"
        ) from None


@model_source("torchvision", names=names, describe=describe, pretrained=pretrained)
def build(name: str, num_classes: int, input_size: int) -> nn.Module:
    """Build a network in the form that its published weights fit."""
    arguments: dict[str, Any] = {"num_classes": num_classes}
    if name in ("googlenet", "inception_v3"):
        # The published networks take inputs scaled to [-1, 1]. Auxiliary heads serve only training from scratch.
        arguments |= {"aux_logits": False, "transform_input": True, "init_weights": False}
    elif name.startswith("vit_"):
        arguments["image_size"] = input_size
    return torchvision.models.get_model_builder(name)(weights=None, **arguments)
