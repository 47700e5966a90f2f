"""The model source `hf`: image classifiers of the package transformers, from a folder, the hub's cache or the hub.

A checkpoint carries the network's configuration beside its weights, so that a process without the folder can build it.
"""

import functools
import inspect
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cnnsens_bench.images.published import INTERPOLATIONS, PublishedView, render_published
from cnnsens_bench.models.base import LONGEST, WeightsUnavailable, model_source
from cnnsens_bench.models.classes import OutputClasses, named_outputs
from cnnsens_bench.models.preprocessing import UNKNOWN_COLOURS, Preprocessing
from cnnsens_bench.utils.errors import UserError, first_line

CONFIG = "config"
"""The name under which a state dict has the configuration, as JSON in bytes."""

NAMES = ("id2label", "label2id", "num_labels")
"""Keys of a configuration that the checkpoint leaves out, because its classes are those of the data set."""

FILES = ["config.json", "preprocessor_config.json", "processor_config.json", "model*.safetensors*"]
"""What is taken from a repository of the hub."""

PROBES = ((397, 331), (517, 742))
"""Widths and heights of the noise images on which a view is compared with the image processor."""

COLOUR = (200, 90, 30)
"""The colour of the plain image by which an image processor shows its normalisation."""

ImageProcessor = Any
"""An image processor of transformers."""


class TransformersNetwork(nn.Module):
    """A classifier of transformers as a function of pixels to logits.

    Parameters
    ----------
    network
        The classifier.
    config
        Its configuration, as JSON in bytes: (n,) uint8.
    input_size
        The side of the square input in pixels. Position embeddings are interpolated where it is not the network's own.
    """

    config: Tensor

    def __init__(self, network: nn.Module, config: Tensor, input_size: int) -> None:
        super().__init__()
        self.network = network
        self.register_buffer(CONFIG, config)
        own = getattr(network.config, "image_size", None)
        known = inspect.signature(network.forward).parameters
        other = own is not None and own not in (input_size, [input_size] * 2)
        self.options = {"interpolate_pos_encoding": True} if other and "interpolate_pos_encoding" in known else {}

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits (N, classes) of normalised pixels (N, 3, H, W)."""
        return self.network(pixels, **self.options).logits


def _transformers() -> ModuleType:
    try:
        import transformers
    except ImportError:
        raise UserError(
            "models named hf/… need the package transformers: pip install 'cnnsens-bench[hf]', on the workers too"
        ) from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def _folder(location: str) -> Path:
    """Return the folder of a network: the user's, or that of a repository in the cache of the hub, or a download."""
    _transformers()
    path = Path(location).expanduser()
    if location.startswith(("/", ".", "~")) or (path / "config.json").is_file():
        if not (path / "config.json").is_file():
            raise UserError(f"{path} holds no network of transformers: name a folder that save_pretrained wrote")
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import HFValidationError

    try:
        cached = Path(snapshot_download(location, local_files_only=True))
        if any(cached.glob("model*.safetensors")):
            return cached
    except HFValidationError:
        raise UserError(
            f"'hf/{location}' is neither the name of a repository, such as hf/microsoft/resnet-50, nor the path of a "
            "folder, such as hf//nets/mine or hf/./mine"
        ) from None
    except OSError:
        pass
    try:
        return Path(snapshot_download(location, allow_patterns=FILES))
    except Exception as error:  # the client of the hub raises errors of a dozen types when it cannot reach the hub
        raise UserError(
            f"'hf/{location}' cannot be had from the Hugging Face hub ({first_line(error, LONGEST)}): copy its folder "
            "here and name it, as in models=[hf//nets/mine], or download it once where the hub can be reached"
        ) from None


def _config(location: str) -> Any:
    """Return the configuration of a network."""
    folder = _folder(location)
    try:
        return _transformers().AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers raises errors of many types for damaged or unknown configurations
        raise UserError(f"{folder} has no configuration that is understood ({first_line(error, LONGEST)})") from None


def _state(location: str) -> tuple[Path, tuple[int, ...]]:
    """Return the folder of a network, and when its configurations were written: what is kept of it holds until then."""
    folder = _folder(location).absolute()
    return folder, tuple(path.stat().st_mtime_ns for path in sorted(folder.glob("*.json")))


def _processor(location: str) -> ImageProcessor:
    """Return the image processor of a network."""
    return _processor_in(location, *_state(location))


@functools.lru_cache(maxsize=64)
def _processor_in(location: str, folder: Path, changed: tuple[int, ...]) -> ImageProcessor:
    try:
        processors = _transformers().AutoImageProcessor
        return processors.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # as above; a folder may also lack the file
        raise UserError(
            f"the image processor of 'hf/{location}' cannot be read from {folder} ({first_line(error, LONGEST)}): save "
            "it beside the network with its save_pretrained"
        ) from None


def describe(location: str) -> Preprocessing:
    """Return the normalisation of a network's image processor, and the size of the square that it gives.

    Raises
    ------
    UserError
        If the processor does anything else to colours, such as changing the order of the channels.
    """
    processor = _processor(location)
    mean, std = processor.image_mean, processor.image_std
    colours = [UNKNOWN_COLOURS, UNKNOWN_COLOURS] if mean is None or std is None else [tuple(mean), tuple(std)]
    plain = np.full((PROBES[0][1], PROBES[0][0], 3), COLOUR, np.uint8)
    found = _processed(processor, plain)
    if not processor.do_normalize:
        colours = [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0)]
    expected = (np.array(COLOUR) / 255 - colours[0]) / colours[1]
    centre = found[:, found.shape[1] // 2, found.shape[2] // 2]
    if np.isfinite(expected).all() and not np.allclose(centre, expected, atol=1e-3):
        raise UserError(
            f"the image processor of 'hf/{location}' ({type(processor).__name__}) does more to colours than a mean and "
            "std: export the network with that step inside, to ONNX for example"
        )
    return Preprocessing(found.shape[-1], *colours)


def _processed(processor: ImageProcessor, pixels: np.ndarray, **options: bool) -> np.ndarray:
    """Return what an image processor makes of an image (h, w, 3) uint8: (3, H, W)."""
    return np.asarray(processor(pixels, return_tensors="pt", **options)["pixel_values"][0])


def published(location: str, input_size: int | str | None) -> Preprocessing:
    """Return what a network's image processor does, as a view that gives the same pixels.

    The rule is found by trying: noise images of odd sizes must come out equal. At another input size the share that is
    cropped stays.

    Raises
    ------
    UserError
        If the processor does more than to resize and crop.
    """
    return _published_by(_processor(location), location, input_size)


@functools.lru_cache(maxsize=64)
def _published_by(processor: ImageProcessor, location: str, input_size: int | str | None) -> Preprocessing:
    described = describe(location)
    noise = [np.random.default_rng(side).integers(0, 256, (side, width, 3), np.uint8) for width, side in PROBES]
    results = [_processed(processor, image, do_rescale=False, do_normalize=False) for image in noise]
    for view in _candidates(processor, described.input_size):
        made = (render_published(image, view).transpose(2, 0, 1) for image in noise)
        if all(np.array_equal(*pair) for pair in zip(made, results, strict=True)):
            break
    else:
        raise UserError(
            f"the image processor of 'hf/{location}' ({type(processor).__name__}) does more than to resize and to crop "
            "to a square: take view=box, or the network in another library's form"
        )
    size = input_size if isinstance(input_size, int) else view.size
    scaled = PublishedView(
        size, view.resize, view.resize_to * size // view.size, view.interpolation, tensors=view.tensors, floor=True
    )
    return Preprocessing(size, described.mean, described.std, scaled)


def _candidates(processor: ImageProcessor, size: int) -> list[PublishedView]:
    """Return the views that an image processor may mean."""
    named = {int(value): name for name, value in INTERPOLATIONS.items()}
    interpolation = "bilinear" if processor.resample is None else named[int(processor.resample)]
    given = processor.size or {}
    sides = [given[key] for key in ("shortest_edge", "height") if given.get(key)] or [size]
    shares = [1.0, 224 / 256, getattr(processor, "crop_pct", None) or 1.0]
    to = dict.fromkeys(length for side in [*sides, size] for share in shares for length in (int(side / share),))
    tensors = getattr(processor, "backend", "pil") == "torchvision"
    return [
        PublishedView(size, resize, length, interpolation, tensors=tensors, floor=True)
        for length in to
        for resize in ("both", "shorter", "longer")
    ]  # fmt: skip


def outputs(location: str) -> OutputClasses:
    """Return the classes of a network's configuration, with WordNet ids where they are ImageNet's 1000."""
    labels = _config(location).id2label
    names = tuple(str(labels[position]) for position in sorted(labels))
    if all(name == f"LABEL_{position}" for position, name in enumerate(names)):
        return OutputClasses(len(names))
    return named_outputs(names)


def pretrained(location: str) -> dict[str, Tensor]:
    """Return the weights and the configuration of a network. Files that would run code are not read."""
    folder, auto = _folder(location), _transformers().AutoModelForImageClassification
    options = {"use_safetensors": True, "trust_remote_code": False, "local_files_only": True, "dtype": torch.float32}
    try:
        network, info = auto.from_pretrained(folder, output_loading_info=True, **options)
    except Exception as error:  # as above
        raise WeightsUnavailable(
            f"{folder} ({first_line(error, LONGEST)}); an image classifier in safetensors files, as save_pretrained "
            "writes them, is read"
        ) from None
    missing = set(info["missing_keys"])  # which transformers fills with random numbers
    state = {f"network.{key}": value for key, value in network.state_dict().items() if key not in missing}
    return {CONFIG: _packed(_config(location)), **state}


def _packed(config: Any) -> Tensor:
    """Return a configuration as a tensor of bytes, without its classes."""
    values = {key: value for key, value in config.to_dict().items() if key not in NAMES}
    text = json.dumps(values, sort_keys=True, default=str)
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)


def restore(state: dict[str, Tensor], num_classes: int, input_size: int) -> nn.Module:
    """Build the network that a state dict describes, with random weights."""
    if CONFIG not in state:
        raise UserError("these weights are not of a network of transformers: name a folder that save_pretrained wrote")
    transformers = _transformers()
    values = json.loads(bytes(state[CONFIG].tolist()))
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    config.num_labels = num_classes
    network = transformers.AutoModelForImageClassification.from_config(config, dtype=torch.float32)
    return TransformersNetwork(network.eval(), state[CONFIG].clone(), input_size)


@model_source(
    "hf", names=None, describe=describe, pretrained=pretrained, published=published, outputs=outputs, restore=restore
)
def build(name: str, num_classes: int, input_size: int) -> nn.Module:
    """Build a network from its configuration."""
    return restore({CONFIG: _packed(_config(name))}, num_classes, input_size)
