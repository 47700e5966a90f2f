"""Checkpoints: a state dict with all that is needed to use it (class count, input size, normalisation)."""

import dataclasses
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from cnnsens_bench.models.base import Classifier, Preprocessing, num_parameters, split_name
from cnnsens_bench.models.weights import load_safely, state_digest
from cnnsens_bench.utils.errors import UserError

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """`state_dict` of the bare network, with the model's name, its classes and what its inputs must be."""

    model: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    state_dict: dict[str, Tensor]
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        """The model's name without its source."""
        return self.model.partition("/")[2]

    def digest(self) -> str:
        """SHA-256 of the weights."""
        return state_digest(self.state_dict)

    def classifier(self) -> Classifier:
        """The network, in eval mode on the CPU. Raises `UserError` when the weights do not fit it."""
        source, architecture = split_name(self.model)
        with NoDraws():
            network = source.build(architecture, len(self.classes), self.preprocessing.input_size)
        try:
            network.load_state_dict(self.state_dict)
        except RuntimeError:
            raise UserError(
                f"the checkpoint does not fit '{self.model}': it was made by another version or network"
            ) from None
        return Classifier(network, self.preprocessing).eval()

    def num_parameters(self) -> int:
        """Of the network as it is used."""
        return num_parameters(self.classifier())

    def to_bytes(self) -> bytes:
        """As a file would hold it."""
        buffer = BytesIO()
        torch.save(self._content(), buffer)
        return buffer.getvalue()

    def save(self, path: Path) -> None:
        """Write to `path`, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not a NamedTemporaryFile, which its owner alone could read: a shared cache is for colleagues too.
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.partial")
        try:
            with partial.open("xb") as file:
                torch.save(self._content(), file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "model": self.model,
            "classes": list(self.classes),
            "preprocessing": dataclasses.asdict(self.preprocessing),
            "state_dict": self.state_dict,
            "extra": self.extra,
        }


class NoDraws(TorchFunctionMode):
    """Leaves new parameters undrawn: a strict load overwrites them all, and drawing AlexNet's takes 0.4 s."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ("uniform_", "normal_"):
            return args[0] if args else kwargs["tensor"]  # nn.init names its argument
        return func(*args, **kwargs)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a file that `Checkpoint.save` wrote. Raises `UserError` if it is none."""
    return checkpoint_of(load_safely(path), str(path))


class CheckpointFiles(Mapping[str, Checkpoint]):
    """Checkpoints by key, each read from its file when it is asked for: a lineup need not fit in memory."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self.paths = dict(paths)

    def __getitem__(self, key: str) -> Checkpoint:
        return load_checkpoint(self.paths[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)


def checkpoint_from_bytes(data: bytes) -> Checkpoint:
    """The inverse of `Checkpoint.to_bytes`."""
    return checkpoint_of(torch.load(BytesIO(data), map_location="cpu", weights_only=True), "the checkpoint")


def is_checkpoint(content: Any) -> bool:
    """Whether what a file held is a checkpoint of this program, and not a plain state dict."""
    return isinstance(content, dict) and content.get("format") == FORMAT


def checkpoint_of(content: Any, origin: str) -> Checkpoint:
    """What `load_safely` gave for `origin` as a checkpoint. Raises `UserError` if it is none."""
    if not is_checkpoint(content):
        raise UserError(f"{origin} is not a checkpoint of this program: give it as weights=<path> to start from it")
    try:
        expected = content["preprocessing"]
        preprocessing = Preprocessing(expected["input_size"], tuple(expected["mean"]), tuple(expected["std"]))
        classes, state = tuple(content["classes"]), content["state_dict"]
        return Checkpoint(content["model"], classes, preprocessing, state, content.get("extra", {}))
    except (KeyError, TypeError):
        raise UserError(f"{origin} is a checkpoint of this program that lacks a part: make it anew") from None
