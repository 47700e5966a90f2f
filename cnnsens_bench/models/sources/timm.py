"""The model source `timm`."""

import functools
import math
from typing import Any

import timm
from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_data_config
from timm.models import PretrainedCfg
from torch import Tensor, nn

from cnnsens_bench.images.published import PublishedView
from cnnsens_bench.models.base import LONGEST, Preprocessing, WeightsUnavailable, model_source
from cnnsens_bench.models.classes import OutputClasses
from cnnsens_bench.utils.errors import UserError, first_line


@functools.cache
def names() -> list[str]:
    """Return timm's architectures, without the tags of their weights."""
    return timm.list_models()


def describe(name: str) -> Preprocessing:
    """Return the preprocessing of an architecture's default weights, or of the weights that the tag in `name` means.

    Raises `UserError` for an unknown tag.
    """
    config = _config(name)
    mean, std = config.mean, config.std
    return Preprocessing(config.input_size[-1], (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def _config(name: str) -> PretrainedCfg:
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None:
        raise UserError(f"model 'timm/{name}': timm knows no such weights tag; `timm.list_pretrained()` lists them")
    return config


def published(name: str, input_size: int | str | None) -> Preprocessing:
    """Return what timm's own validation script evaluates an architecture with, at its test size unless told otherwise.

    Raises `UserError` where the input is no square.
    """
    return preprocessing_of_config(_config(name).to_dict(), input_size, f"timm/{name}")


def preprocessing_of_config(config: dict[str, Any], input_size: int | str | None, model: str) -> Preprocessing:
    """Return what timm's own validation script evaluates a network with.

    The rule is that of `timm.data.transforms_imagenet_eval`.

    Parameters
    ----------
    config
        The network's `pretrained_cfg`.
    input_size
        Pixels, `train`, `test`, or None for `test`.
    model
        The network's name, for errors.

    Raises
    ------
    UserError
        Where the input is no square.
    """
    given = {"input_size": (3, input_size, input_size)} if isinstance(input_size, int) else {}
    found = resolve_data_config(given, pretrained_cfg=config, use_test_size=input_size != "train")
    height, width = found["input_size"][-2:]
    if height != width:
        raise UserError(f"model '{model}' takes inputs of {height}×{width} px: only square ones are evaluated")
    mode = found["crop_mode"]
    view = PublishedView(
        size=height,
        resize={"squash": "both", "border": "longer"}.get(mode, "shorter"),  # type: ignore[arg-type]
        resize_to=math.floor(height / found["crop_pct"]),
        interpolation=found["interpolation"],
        fill=tuple(round(255 * part) for part in found["mean"]) if mode == "border" else (0, 0, 0),
    )
    return Preprocessing(height, tuple(found["mean"]), tuple(found["std"]), view)


def outputs(name: str) -> OutputClasses | None:
    """Return the classes of an architecture's weights, where they are ImageNet's or one of its supersets'."""
    return outputs_of_config(_config(name).to_dict())


def outputs_of_config(config: dict[str, Any]) -> OutputClasses | None:
    """Return the classes of the weights that a `pretrained_cfg` describes, None where nothing is known of them."""
    if names := config.get("label_names"):
        return OutputClasses(len(names), names=tuple(names))
    subset = infer_imagenet_subset(config)
    if subset is None:
        return OutputClasses(config["num_classes"]) if config.get("num_classes") else None
    info = ImageNetInfo(subset)
    wnids = tuple(info.label_names())
    return OutputClasses(len(wnids), wnids, tuple(map(info.index_to_description, range(len(wnids)))))


def pretrained(name: str) -> dict[str, Tensor]:
    """Return the weights that timm downloads, or has on this machine."""
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # the client of the hub raises errors of a dozen types when it cannot reach the hub
        raise WeightsUnavailable(
            f"timm's hub ({first_line(error, LONGEST)}); weights that the hub's client has cached on this machine are "
            "used"
        ) from None


@model_source("timm", names=names, describe=describe, pretrained=pretrained, published=published, outputs=outputs)
def build(name: str, num_classes: int, input_size: int) -> nn.Module:
    """Build a network, and tell vision transformers their input size where it is not the default."""
    arguments: dict[str, Any] = {"pretrained": False, "num_classes": num_classes}
    if input_size != describe(name).input_size and "vit" in name:
        arguments["img_size"] = input_size
    return timm.create_model(name, **arguments)
