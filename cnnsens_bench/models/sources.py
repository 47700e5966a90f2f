"""The two libraries of architectures: torchvision and timm."""

import functools
from typing import Any

import timm
import torch
import torchvision.models
from torch import Tensor, nn

from cnnsens_bench.models.base import LONGEST, ModelSource, Preprocessing, WeightsUnavailable, model_sources
from cnnsens_bench.utils.errors import UserError, first_line

IMAGENET = Preprocessing(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@functools.cache
def torchvision_names() -> list[str]:
    """torchvision's classification networks."""
    return torchvision.models.list_models(module=torchvision.models)


def torchvision_describe(name: str) -> Preprocessing:
    """From the transforms that come with the default weights."""
    transforms = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    return Preprocessing(transforms.crop_size[0], tuple(transforms.mean), tuple(transforms.std))


def torchvision_build(name: str, num_classes: int, input_size: int) -> nn.Module:
    builder = torchvision.models.get_model_builder(name)
    arguments: dict[str, Any] = {"num_classes": num_classes}
    if name in ("googlenet", "inception_v3"):
        # The pretrained ones take inputs scaled to [-1, 1]; auxiliary heads serve only training from scratch.
        arguments |= {"aux_logits": False, "transform_input": True, "init_weights": False}
    elif name.startswith("vit_"):
        arguments["image_size"] = input_size
    return builder(weights=None, **arguments)


def torchvision_pretrained(name: str) -> dict[str, Tensor]:
    weights = torchvision.models.get_model_weights(name).DEFAULT
    try:
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        folder = f"{torch.hub.get_dir()}/checkpoints"
        raise WeightsUnavailable(
            f"{weights.url} ({first_line(error, LONGEST)}); a copy of that file in {folder} is used"
        ) from None


@functools.cache
def timm_names() -> list[str]:
    """timm's architectures, without weight tags."""
    return timm.list_models()


def timm_describe(name: str) -> Preprocessing:
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None:
        raise UserError(f"model 'timm/{name}': timm knows no such weights tag; `timm.list_pretrained()` lists them")
    mean, std = config.mean, config.std
    return Preprocessing(config.input_size[-1], (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def timm_build(name: str, num_classes: int, input_size: int) -> nn.Module:
    arguments: dict[str, Any] = {"pretrained": False, "num_classes": num_classes}
    if input_size != timm_describe(name).input_size and "vit" in name:
        arguments["img_size"] = input_size
    return timm.create_model(name, **arguments)


def timm_pretrained(name: str) -> dict[str, Tensor]:
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # the hub client raises a dozen kinds when it cannot be reached
        raise WeightsUnavailable(
            f"timm's hub ({first_line(error, LONGEST)}); weights that the hub's client has cached on this machine are "
            "used"
        ) from None


model_sources.add(
    "torchvision",
    ModelSource("torchvision", torchvision_names, torchvision_describe, torchvision_build, torchvision_pretrained),
)
model_sources.add("timm", ModelSource("timm", timm_names, timm_describe, timm_build, timm_pretrained))
