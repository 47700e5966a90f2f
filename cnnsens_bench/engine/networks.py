"""Networks that are ready to use: with their defense, on their device, in a precision."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cnnsens_bench.defenses import Defense
from cnnsens_bench.images import PublishedView
from cnnsens_bench.models import Classifier


class NetworkInput(NamedTuple):
    """The side of a network's input in pixels, and how its library views an image (None: the image's box)."""

    size: int
    view: PublishedView | None = None


def inputs_of(entrants: Iterable["LoadedEntrant"]) -> list[NetworkInput]:
    """Return the inputs of networks, each once, the smallest first."""
    return sorted({entrant.input for entrant in entrants}, key=lambda one: (one.size, str(one.view)))


@dataclass(frozen=True)
class LoadedEntrant:
    """A network that is ready to use, and its defense."""

    classifier: Classifier
    defense: Defense

    @property
    def input_size(self) -> int:
        """The side of the network's input in pixels."""
        return self.classifier.preprocessing.input_size

    @property
    def view(self) -> PublishedView | None:
        """How its library views an image; None for the image's box."""
        return self.classifier.preprocessing.view

    @property
    def input(self) -> "NetworkInput":
        """What images it sees. Networks of equal inputs share rendered and degraded images."""
        return NetworkInput(self.input_size, self.view)

    def network(self) -> Callable[[Tensor], Tensor]:
        """Return the function from pixels (N, 3, S, S) in [0, 255] through the pre-filter to logits (N, classes)."""
        prefilter, classifier = self.defense.prefilter, self.classifier
        return (lambda pixels: classifier(prefilter(pixels))) if prefilter else classifier


def to_device(classifier: Classifier, device: torch.device) -> Classifier:
    """Move a classifier to the device, in the memory layout that convolutions are fastest in, without inexact modes."""
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
    return classifier.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Return the context in which networks compute in a precision. A lower one flips labels on its own."""
    return nullcontext() if precision == "float32" else torch.autocast(device.type, dtype=getattr(torch, precision))
