"""Checkpoints: a state dict with the class names, input size and normalisation that are needed to use it."""

import contextlib
import copy
import dataclasses
import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnnsens_bench.models.base import architecture_of, split_name
from cnnsens_bench.models.classes import ClassMatch
from cnnsens_bench.models.classifier import Classifier
from cnnsens_bench.models.preprocessing import Preprocessing
from cnnsens_bench.models.uninitialised import UninitialisedWeights
from cnnsens_bench.models.weights import state_digest
from cnnsens_bench.models.weights_file import FORMAT, is_checkpoint, load_safely
from cnnsens_bench.utils.atomic import replacing
from cnnsens_bench.utils.errors import UserError


@dataclass(frozen=True)
class Checkpoint:
    """A trained network.

    Attributes
    ----------
    model : str
        `<source>/<architecture>`.
    classes : tuple of str
        The names of the outputs, in their order.
    preprocessing : Preprocessing
        The input size and the normalisation of the training.
    state_dict : dict of str to torch.Tensor
        The weights of the network, without the normalisation.
    extra : dict
        What else is kept about the training, of types that `torch.load(weights_only=True)` reads.
    match : ClassMatch or None
        Which of the network's outputs are kept, where they are not the classes as they stand.
    """

    model: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    state_dict: dict[str, Tensor]
    extra: dict[str, Any] = field(default_factory=dict)
    match: ClassMatch | None = None

    @property
    def architecture(self) -> str:
        """The model's name without its source."""
        return architecture_of(self.model)

    @property
    def num_outputs(self) -> int:
        """The number of the network's outputs, with those that are no class of the data set."""
        return self.match.count if self.match else len(self.classes)

    def digest(self) -> str:
        """Return the SHA-256 of the weights, and of what the code around them computes where `extra` tells of it."""
        weights = state_digest(self.state_dict)
        computes = self.extra.get("computes")
        return hashlib.sha256(f"{weights}+{computes}".encode()).hexdigest() if computes else weights

    def classifier(self, *, share_weights: bool = False) -> Classifier:
        """Return the network in eval mode on the CPU.

        Parameters
        ----------
        share_weights
            Whether the network may hold the tensors of `state_dict` themselves, which nobody then changes in place.
            Copies of large networks take tenths of a second and as much memory again.

        Raises
        ------
        UserError
            If the weights do not fit the model.
        """
        source, architecture = split_name(self.model)
        count, size = self.num_outputs, self.preprocessing.input_size
        # A user's own function may fill more than weights.
        with UninitialisedWeights() if not source.fixed_outputs else contextlib.nullcontext():
            if source.restore:
                network = source.restore(self.state_dict, count, size)
            else:
                network = source.build(architecture, count, size)
        try:
            # Shared tensors keep their type; copies take that of the network.
            types = {key: tensor.dtype for key, tensor in network.state_dict().items()}
            shared = share_weights and all(tensor.dtype == types.get(key) for key, tensor in self.state_dict.items())
            network.load_state_dict(_with_own_metadata(self.state_dict), assign=shared)
        except RuntimeError:
            raise UserError(
                f"the checkpoint does not fit '{self.model}': it was made by another version or network"
            ) from None
        outputs = self.match.outputs if self.match else None
        return Classifier(network, self.preprocessing, outputs=outputs).eval()

    def to_bytes(self) -> bytes:
        """Return the content of the file that `save` writes."""
        buffer = BytesIO()
        torch.save(self._content(), buffer)
        return buffer.getvalue()

    def save(self, path: Path) -> None:
        """Write a file that `load_checkpoint` reads, whole or not at all. Missing folders are made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, sync=True) as partial, partial.open("xb") as file:
            torch.save(self._content(), file)

    def _content(self) -> dict[str, Any]:
        plain: dict[str, Any] = {"classes": list(self.classes), "preprocessing": self.preprocessing.as_dict()}
        plain["match"] = dataclasses.asdict(self.match) if self.match else None
        return {"format": FORMAT, **vars(self), **plain}


def _with_own_metadata(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of the same tensors, because torch notes in its metadata for later calls that it assigns."""
    own = OrderedDict(state)
    own._metadata = copy.deepcopy(getattr(state, "_metadata", OrderedDict()))  # type: ignore[attr-defined]
    return own


def load_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint in a file that `Checkpoint.save` wrote.

    Raises
    ------
    UserError
        If the file is absent, damaged, or not a checkpoint of this program.
    """
    return parse_checkpoint(load_safely(path), str(path))


class CheckpointFiles(Mapping[str, Checkpoint]):
    """Checkpoints by key, each read from its file when it is asked for, so that they need not fit in memory together.

    Parameters
    ----------
    paths
        The file of each key.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self.paths = dict(paths)

    def __getitem__(self, key: str) -> Checkpoint:
        return load_checkpoint(self.paths[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)


def checkpoint_from_bytes(data: bytes) -> Checkpoint:
    """Return the checkpoint of which `Checkpoint.to_bytes` gave the bytes."""
    return parse_checkpoint(torch.load(BytesIO(data), map_location="cpu", weights_only=True), "the checkpoint")


def parse_checkpoint(content: Any, origin: str) -> Checkpoint:
    """Return the checkpoint that the content of a file describes.

    Parameters
    ----------
    content
        What `load_safely` returned.
    origin
        The file, for the error.

    Raises
    ------
    UserError
        If the content is not a checkpoint of this program, or lacks a part of one.
    """
    if not is_checkpoint(content):
        raise UserError(f"{origin} is not a checkpoint of this program: give it as weights=<path> to start from it")
    try:
        preprocessing = Preprocessing.from_dict(content["preprocessing"])
        classes, state = tuple(content["classes"]), content["state_dict"]
        match = ClassMatch.from_dict(content["match"]) if content.get("match") else None
        return Checkpoint(content["model"], classes, preprocessing, state, content.get("extra", {}), match)
    except (KeyError, TypeError):
        raise UserError(f"{origin} is a checkpoint of this program that lacks a part: make it anew") from None
