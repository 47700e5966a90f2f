"""Files of weights: what users' trainings save, read without running code. `weights.py` loads them into networks."""

import argparse
import hashlib
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from cnnsens_bench.utils.errors import UserError

FORMAT = 1
"""What the checkpoints of this program have under the key `format`."""

AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema")
"""Keys under which trainings save the moving average of their weights, which their evaluations prefer."""
TRAINED = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "module")
"""Keys under which they save the weights themselves."""

PLAIN_TYPES: list[Any] = [argparse.Namespace]
"""Types that hold values and run no code when they are read. The reference trainings of torchvision and timm save their
arguments as one of them."""

LISTED = 3
"""How many of the Python types in a file an error names."""


@dataclass(frozen=True)
class WeightsFile:
    """A state dict from a file.

    Attributes
    ----------
    state : dict of str to torch.Tensor
        The state dict.
    key : str
        The key of the file that it stands under; empty where the file is the state dict.
    notes : tuple of str
        Sentences about what was chosen among several.
    classes : tuple of str
        The names of the outputs, where the file is a checkpoint of this program that was trained; else empty.
    """

    state: dict[str, Tensor]
    key: str = ""
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


def split_key(text: str) -> tuple[Path, str]:
    """Return the file and the key that `<path>#<key>` names. A file whose name has the sign is taken as it is.

    Examples
    --------
    >>> split_key("mine.pth#model"), split_key("mine.pth")
    ((PosixPath('mine.pth'), 'model'), (PosixPath('mine.pth'), ''))
    """
    path, sign, key = text.rpartition("#")
    if not sign or Path(text).exists():
        return Path(text), ""
    return Path(path), key


def read_weights(text: str) -> WeightsFile:
    """Return the state dict in a file.

    Parameters
    ----------
    text
        The path of a state dict, of a checkpoint of a training that has one, or of a checkpoint of this program;
        `<path>#<key>` for the state dict under a key.

    Raises
    ------
    UserError
        If the file is absent, damaged, or holds no state dict.
    """
    path, key = split_key(text)
    return weights_in(load_safely(path), path, key)


def weights_in(content: Any, path: Path, key: str = "") -> WeightsFile:
    """Return the state dict in what `load_safely` read from a file.

    Where there are several, the moving average is taken, as torchvision's and timm's own evaluations do.

    Parameters
    ----------
    content
        What the file holds.
    path
        The file, for errors and notes.
    key
        The key that is wanted; empty for the one that fits best.

    Raises
    ------
    UserError
        If there is no state dict, none under this key, or several and nothing that tells them apart.
    """
    found = _state_dicts(content)
    if key:
        if key not in found:
            keys = ", ".join(f"'{name}'" for name in found if name)
            has = f"those under {keys}" if keys else "one state dict without a key" if found else "no state dict"
            raise UserError(f"{path} has no weights under the key '{key}': it has {has}")
        return WeightsFile(found[key], key)
    if not found:
        raise UserError(f"{path} holds no state dict of tensors: save one with torch.save(model.state_dict(), …)")
    if is_checkpoint(content) and "state_dict" in found:
        trained = not content.get("match")
        return WeightsFile(found["state_dict"], "state_dict", classes=tuple(content["classes"]) if trained else ())
    known = [name for name in ("", *AVERAGED, *TRAINED) if name in found]
    if not known and len(found) > 1:
        raise UserError(
            f"{path} holds several state dicts, {', '.join(map(repr, found))}: choose one with "
            f"{path}#{next(iter(found))}"
        )
    chosen = known[0] if known else next(iter(found))
    others = [name for name in found if name != chosen]
    notes = []
    if others:
        what = "the moving average of the weights, " if chosen in AVERAGED else ""
        notes.append(f"{path}: {what}'{chosen}', is taken; {path}#{others[0]} takes '{others[0]}'")
    elif not known:
        notes.append(f"{path}: the state dict under its only key that has one, '{chosen}', is taken")
    return WeightsFile(found[chosen], chosen, tuple(notes))


def _state_dicts(content: Any) -> dict[str, dict[str, Tensor]]:
    """Return the state dicts in a file by their keys, "" for the file as a whole."""
    if not isinstance(content, Mapping):
        return {}
    if _is_state_dict(content):
        return {"": dict(content)}
    found = {}
    for key, value in content.items():
        if _is_state_dict(value):
            found[str(key)] = dict(value)
        elif isinstance(value, Mapping):  # such as {"ema": {"module": …, "decay": 0.999}}
            inner = [value[name] for name in TRAINED if _is_state_dict(value.get(name))]
            found |= {str(key): dict(inner[0])} if inner else {}
    return found


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(part, Tensor) for part in value.values())


def is_checkpoint(content: Any) -> bool:
    """Return whether the content of a file is a checkpoint of this program, and not a plain state dict."""
    return isinstance(content, dict) and content.get("format") == FORMAT


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
        with warnings.catch_warnings(), torch.serialization.safe_globals(PLAIN_TYPES):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(_unsafe(path)) from None
    except Exception as error:  # torch raises errors of many types for truncated archives, text files, …
        raise UserError(f"{path} cannot be read as weights ({type(error).__name__}): is it damaged?") from None


def _unsafe(path: Path) -> str:
    """Return the sentence for a file that holds more than tensors and plain values."""
    try:
        with torch.serialization.safe_globals(PLAIN_TYPES):
            types = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # it reads archives only, and raises errors of many types for anything else
        types = []
    if not types:
        return f"{path} is not a plain weights file (it would run code, or is damaged): it is not loaded"
    whole = any(".modules." in name or name.startswith(("torchvision.models.", "timm.models.")) for name in types)
    part, key = (".state_dict()", "") if whole else ("['model']", ", or with its key in place of 'model'")
    named = ", ".join(sorted(types)[:LISTED]) + (", …" if len(types) > LISTED else "")
    return (
        f"{path} is not loaded, since it would run code: it holds Python objects ({named}) beside its tensors; where "
        "you trust it, save its state dict alone, with "
        f"torch.save(torch.load(path, weights_only=False){part}, 'mine.pth'){key}"
    )


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
