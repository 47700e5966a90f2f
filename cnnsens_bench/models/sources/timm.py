"""The model source `timm`."""

import functools
import inspect
import math
import sys
from dataclasses import dataclass, field
from typing import Any

import huggingface_hub.constants
import timm
from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_data_config
from timm.models import PretrainedCfg, load_model_config_from_hf, model_entrypoint
from torch import Tensor, nn

from cnnsens_bench.images.published import INTERPOLATIONS, PublishedView
from cnnsens_bench.models.base import LONGEST, WeightsUnavailable, model_source
from cnnsens_bench.models.classes import WNID, OutputClasses
from cnnsens_bench.models.preprocessing import Preprocessing
from cnnsens_bench.utils.errors import UserError, first_line
from cnnsens_bench.utils.registry import near

HUB, FOLDER = "hf-hub:", "local-dir:"
"""What timm's names of a repository on the Hugging Face hub, and of a folder with the same files, begin with."""


@functools.cache
def names() -> list[str]:
    """Return timm's architectures, without the tags of their weights."""
    return [*timm.list_models(), HUB, FOLDER]


@dataclass(frozen=True)
class _Variant:
    """What timm knows of a name: its architecture, how it is built, and the config of its weights."""

    architecture: str
    config: PretrainedCfg
    arguments: dict[str, Any] = field(default_factory=dict)


def _variant(name: str) -> _Variant:
    """Return what timm knows of a name. Raises `UserError` for an unknown tag, and for a config that cannot be read."""
    if name.startswith(FOLDER):
        return _saved_variant(name)  # each time, since it may have changed
    return _known_variant(name)


@functools.cache
def _known_variant(name: str) -> _Variant:
    if name.startswith(HUB):
        return _saved_variant(name)
    architecture = name.partition(".")[0]
    known = timm.list_models(architecture, include_tags=True)
    if name != architecture and name not in known:
        tags = ", ".join(full.partition(".")[2] for full in known if "." in full)
        has = f"the tags of its weights are {tags}" if tags else "it has no tags of weights"
        raise UserError(f"model 'timm/{name}': timm knows no such weights: {has}")
    # An architecture without a config of its own is built with timm's defaults.
    return _Variant(architecture, timm.get_pretrained_cfg(name, allow_unregistered=True) or PretrainedCfg())


def _saved_variant(name: str) -> _Variant:
    """Return what the config of a repository or a folder says."""
    try:
        load = load_model_config_from_hf if name.startswith(HUB) else timm.models._hub.load_model_config_from_path
        values, architecture, arguments = load(name.partition(":")[2])
        known = {key: value for key, value in values.items() if key in inspect.signature(PretrainedCfg).parameters}
        variant = _Variant(architecture, PretrainedCfg(**{**known, "architecture": architecture}), arguments or {})
    except Exception as error:  # the client of the hub and the parsers raise errors of a dozen types
        reason = first_line(error, LONGEST)
        if name.startswith(FOLDER):
            raise UserError(
                f"model 'timm/{name}': the folder has no config.json that timm reads ({reason}): give one that "
                "timm.models.save_for_hf has made"
            ) from None
        raise UserError(
            f"model 'timm/{name}': its config cannot be had from the hub ({reason}): copy the "
            f"repository into the hub's cache ({huggingface_hub.constants.HF_HUB_CACHE}), or its files into a folder "
            f"and name that timm/{FOLDER}<folder>"
        ) from None
    if not timm.is_model(variant.architecture):
        raise UserError(
            f"model 'timm/{name}': its config names '{variant.architecture}', which timm {timm.__version__} has not"
            f"{near(variant.architecture, timm.list_models())}"
        )
    return variant


def describe(name: str) -> Preprocessing:
    """Return the preprocessing of an architecture's default weights, or of the weights that the tag in `name` means.

    Raises `UserError` for an unknown tag.
    """
    config = _variant(name).config
    mean, std = config.mean, config.std
    return Preprocessing(config.input_size[-1], (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def published(name: str, input_size: int | str | None) -> Preprocessing:
    """Return what timm's own validation script evaluates an architecture with, at its test size unless told otherwise.

    Raises `UserError` where the input is no square.
    """
    return preprocessing_of_config(_variant(name).config.to_dict(), input_size, f"timm/{name}")


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
    if found["interpolation"] not in INTERPOLATIONS:
        raise UserError(
            f"model '{model}' is evaluated with the interpolation '{found['interpolation']}', which is none of "
            f"{', '.join(INTERPOLATIONS)}: take view=box, or another model"
        )
    mode, mean, std = found["crop_mode"], tuple(found["mean"]), tuple(found["std"])
    view = PublishedView(
        size=height,
        resize={"squash": "both", "border": "longer"}.get(mode, "shorter"),  # type: ignore[arg-type]
        resize_to=math.floor(height / found["crop_pct"]),
        interpolation=found["interpolation"],
        fill=tuple(round(255 * part) for part in mean) if mode == "border" else (0, 0, 0),
    )
    return Preprocessing(height, mean, std, view)


def outputs(name: str) -> OutputClasses | None:
    """Return the classes of an architecture's weights, where its config names them or they are ImageNet's."""
    return outputs_of_config(_variant(name).config.to_dict())


def outputs_of_config(config: dict[str, Any]) -> OutputClasses | None:
    """Return the classes of the weights that a `pretrained_cfg` describes, None where nothing is known of them."""
    if config.get("label_names"):
        labels = tuple(config["label_names"])
        if not all(WNID.fullmatch(label) for label in labels):
            return OutputClasses(len(labels), names=labels)
        described = config.get("label_descriptions") or {}
        return OutputClasses(len(labels), labels, tuple(described.get(label, label) for label in labels))
    subset = infer_imagenet_subset(config)
    if subset is None:
        return OutputClasses(config["num_classes"]) if config.get("num_classes") else None
    info = ImageNetInfo(subset)
    wnids = tuple(info.label_names())
    return OutputClasses(len(wnids), wnids, tuple(map(info.index_to_description, range(len(wnids)))))


def pretrained(name: str) -> dict[str, Tensor]:
    """Return the weights that timm downloads, or has on this machine. Raises `UserError` for an unknown tag."""
    _variant(name)
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # the client of the hub raises errors of a dozen types when it cannot reach the hub
        reason = first_line(error, LONGEST)
        if name.startswith(FOLDER):
            raise WeightsUnavailable(f"that folder ({reason})") from None
        raise WeightsUnavailable(
            f"timm's hub ({reason}); weights that the hub's client has cached on this machine are used"
        ) from None


def adapt(name: str, network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict as timm adapts it to a network, by the filter of the architecture's module.

    It resizes position embeddings, and renames the tensors of the architecture's original authors.
    """
    architecture = _variant(name).architecture
    module = sys.modules[model_entrypoint(architecture).__module__]
    fit = getattr(module, "checkpoint_filter_fn", None) or getattr(module, "_filter_fn", None)
    if fit is None:
        return state
    if len(inspect.signature(fit).parameters) == 1:
        return fit(state)
    # FlexiViT resizes its embeddings in another way than all other vision transformers.
    options = {"interpolation": "bilinear", "antialias": False} if architecture.startswith("flexivit") else {}
    return fit(state, network, **options)


@model_source(
    "timm", names=names, describe=describe, pretrained=pretrained, published=published, outputs=outputs, adapt=adapt
)
def build(name: str, num_classes: int, input_size: int) -> nn.Module:
    """Build a network, and tell those of a fixed input size the size where it is not the default."""
    variant = _variant(name)
    arguments = {**variant.arguments, "pretrained": False, "num_classes": num_classes}
    if input_size == variant.config.input_size[-1] or not variant.config.fixed_input_size:
        return _created(name, variant, arguments)
    try:
        return _created(name, variant, {**arguments, "img_size": input_size})
    except TypeError as error:
        if "img_size" not in str(error):
            raise
    return _created(name, variant, arguments)


def _created(name: str, variant: _Variant, arguments: dict[str, Any]) -> nn.Module:
    saved = name.startswith((HUB, FOLDER))
    config = {"pretrained_cfg": variant.config.to_dict()} if saved else {}
    network = timm.create_model(variant.architecture if saved else name, **config, **arguments)
    if getattr(network, "num_classes", arguments["num_classes"]) != arguments["num_classes"]:
        raise UserError(f"model 'timm/{name}' gives features and no classes: take an architecture with a head")
    return network
