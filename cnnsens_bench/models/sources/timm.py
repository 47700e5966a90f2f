"""The model source `timm`."""

import functools
from typing import Any

import timm
from torch import Tensor, nn

from cnnsens_bench.models.base import LONGEST, Preprocessing, WeightsUnavailable, model_source
from cnnsens_bench.utils.errors import UserError, first_line


@functools.cache
def names() -> list[str]:
    """Return timm's architectures, without the tags of their weights."""
    return timm.list_models()


def describe(name: str) -> Preprocessing:
    """Return the preprocessing of an architecture's default weights, or of the weights that the tag in `name` means.

    Raises `UserError` for an unknown tag.
    """
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None:
        raise UserError(f"model 'timm/{name}': timm knows no such weights tag; `timm.list_pretrained()` lists them")
    mean, std = config.mean, config.std
    return Preprocessing(config.input_size[-1], (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def pretrained(name: str) -> dict[str, Tensor]:
    """Return the weights that timm downloads, or has on this machine."""
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # the client of the hub raises errors of a dozen types when it cannot reach the hub
        raise WeightsUnavailable(
            f"timm's hub ({first_line(error, LONGEST)}); weights that the hub's client has cached on this machine are "
            "used"
        ) from None


@model_source("timm", names=names, describe=describe, pretrained=pretrained)
def build(name: str, num_classes: int, input_size: int) -> nn.Module:
    """Build a network, and tell vision transformers their input size where it is not the default."""
    arguments: dict[str, Any] = {"pretrained": False, "num_classes": num_classes}
    if input_size != describe(name).input_size and "vit" in name:
        arguments["img_size"] = input_size
    return timm.create_model(name, **arguments)
