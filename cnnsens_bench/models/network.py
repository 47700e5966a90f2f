"""Networks of a user's own: `Network` says what is known of one, and `adapted` makes a module of it that is checked."""

import copy
import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cnnsens_bench.images.published import PublishedView
from cnnsens_bench.models.base import LONGEST
from cnnsens_bench.models.classes import OutputClasses
from cnnsens_bench.models.classifier import best_device, has_gradient
from cnnsens_bench.models.preprocessing import UNKNOWN_COLOURS, GivenInput, Preprocessing
from cnnsens_bench.models.sources import hf, timm
from cnnsens_bench.utils.errors import UserError, first_line

PROBE_SIZES = (224, 64, 32, 128, 299, 384, 28)
"""Sides in pixels of the inputs that a network of unknown input size is tried with."""
DIGITS, DIRECTIONS = 4, 4
"""A network is identified by that many significant digits of its outputs, projected on that many directions."""


@dataclass(frozen=True)
class Network:
    """A network of one's own, and what cannot be seen from the outside.

    Parameters
    ----------
    function
        A `torch.nn.Module`, or any function from normalised images (N, 3, S, S) float32 to outputs (N, classes), a
        tensor or a numpy array. A module is copied, and never changed.
    input_size
        The side S of its square input in pixels, 16 to 4096.
    mean, std
        The mean and the standard deviation of each RGB channel that it expects, for values in [0, 1]. (0, 0, 0) and
        (1, 1, 1) give it pixels in [0, 1].
    classes
        The names of its outputs. None where they are not known.
    view
        How its evaluation resizes and crops an image. None: the shorter side is resized to the input size, and the
        middle is cropped.
    name
        The name that results have. None: the name of its class or function.

    Raises
    ------
    UserError
        If one of them is impossible.

    Notes
    -----
    All of this is known for a network of timm, and for one of transformers whose image processor lies beside its
    weights.

    Examples
    --------
    >>> def red_or_not(images):
    ...     red = images[:, 0].mean((1, 2))
    ...     return torch.stack([red, 1 - red], dim=1)
    >>> Network(red_or_not, input_size=32, mean=(0, 0, 0), std=(1, 1, 1), classes=["red", "other"]).title
    'red_or_not'
    """

    function: nn.Module | Callable[[Tensor], Any]
    input_size: int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    classes: Sequence[str] | None = None
    view: PublishedView | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if not callable(self.function):
            raise UserError(f"a {type(self.function).__name__} is no network: give a torch.nn.Module or a function")
        if self.input_size is not None and not (isinstance(self.input_size, int) and 16 <= self.input_size <= 4096):
            raise UserError(
                f"input_size of '{self.title}' is {self.input_size!r}: it must be a whole number of pixels, "
                "between 16 and 4096"
            )
        for key, least in (("mean", -math.inf), ("std", 0.0)):
            given = getattr(self, key)
            if given is not None and _three_numbers(given, 1.0):
                raise UserError(
                    f"{key} of '{self.title}' is {given!r}, for pixels in [0, 255]: divide it by 255, for pixels in "
                    "[0, 1]"
                )
            if given is not None and not _three_numbers(given, least):
                what = "three numbers above 0" if key == "std" else "three numbers"
                raise UserError(f"{key} of '{self.title}' is {given!r}: it must be {what}, for pixels in [0, 1]")
        if self.classes is not None and (isinstance(self.classes, str) or len(self.classes) < 2):
            raise UserError(f"classes of '{self.title}' are {self.classes!r}: name its outputs, at least two")

    @property
    def title(self) -> str:
        """Its name, or that of its class, function or architecture."""
        found = self.name or getattr(self.function, "__name__", None) or type(self.function).__name__
        config = getattr(self.function, "pretrained_cfg", None)
        if not self.name and isinstance(config, Mapping):
            found = config.get("architecture") or found
        return str(found).replace("<lambda>", "lambda")

    def viewed(self, resize: int | None, interpolation: str | None) -> "Network":
        """Return the network with another resize before the crop; None leaves what is known. See `GivenInput`."""
        if resize is None and interpolation is None:
            return self
        known = self.described()
        given = GivenInput(resize=resize, interpolation=interpolation)
        return dataclasses.replace(self, view=given.over(known).view)

    def described(self, input_size: int | None = None) -> Preprocessing:
        """Return the input that it expects, its view included; what is unknown has the size 0 or `UNKNOWN_COLOURS`.

        `input_size` stands in for the network's own.
        """
        known = _known_of(self.function) or Preprocessing(0, UNKNOWN_COLOURS, UNKNOWN_COLOURS)
        size = input_size or self.input_size or known.input_size
        view = self.view or known.view
        colours = [tuple(map(float, given)) if given is not None else None for given in (self.mean, self.std)]
        mean, std = colours[0] or known.mean, colours[1] or known.std
        return Preprocessing(size, mean, std, _resized(view, size) if size else None)  # type: ignore[arg-type]


def _three_numbers(given: Any, least: float) -> bool:
    try:
        values = [float(value) for value in given]
    except (TypeError, ValueError):
        return False
    return len(values) == 3 and all(math.isfinite(value) and value > least for value in values)


def _known_of(function: Any) -> Preprocessing | None:
    """Return what a network of timm or transformers expects of its input, None where that is not known."""
    if location := _transformers_location(function):
        try:
            return hf.published(location, None)
        except UserError:
            return None
    config = getattr(function, "pretrained_cfg", None)
    if not isinstance(config, Mapping) or not {"input_size", "mean", "std"} <= set(config):
        return None
    return timm.preprocessing_of_config(dict(config), None, type(function).__name__)


def _transformers_location(function: Any) -> str | None:
    """Return the folder or id that a network of transformers was loaded from, None for other networks."""
    config = getattr(function, "config", None)
    location = getattr(config, "_name_or_path", None) if hasattr(config, "id2label") else None
    return location if isinstance(location, str) and location else None


def _resized(view: PublishedView | None, size: int) -> PublishedView:
    """Return a view at another input size: the share that it crops stays."""
    if view is None or view.size == size:
        return view or PublishedView(size)
    return dataclasses.replace(view, size=size, resize_to=view.resize_to * size // view.size)


@dataclass(frozen=True)
class Findings:
    """What one pass of a network over two generated images shows.

    Attributes
    ----------
    outputs : OutputClasses
        The number of its outputs, and their names where they are known.
    trainable : bool
        Whether it is a module with parameters.
    differentiable : bool
        Whether a gradient with respect to its input can be computed.
    """

    outputs: OutputClasses
    trainable: bool
    differentiable: bool


class OwnNetwork(nn.Module):
    """A network of a user's as a module whose outputs are checked to be a tensor (N, classes).

    Parameters
    ----------
    network
        The network. A function has the buffer `probe`, which identifies it in place of weights.
    title
        Its name, for errors.
    """

    probe: Tensor

    def __init__(self, network: nn.Module | Callable[[Tensor], Any], title: str) -> None:
        super().__init__()
        self.title = title
        self.network = network
        self.works_on: torch.device | None = None
        """Where a function wants its images; None for a module, which is moved to them."""

    @property
    def is_module(self) -> bool:
        """Whether it is a module, and no other function."""
        return isinstance(self.network, nn.Module)

    @property
    def compilable(self) -> bool:
        """Whether it is torch's code, as far as that is known."""
        return self.is_module

    def forward(self, images: Tensor) -> Tensor:
        """Return the outputs (N, classes) of normalised images. Raises `UserError` where they are something else."""
        given = images if self.works_on is None else images.to(self.works_on)
        return self._checked(self.network(given), images)

    def _checked(self, output: Any, images: Tensor) -> Tensor:
        if isinstance(output, Mapping):  # transformers returns a mapping
            output = output.get("logits", output)
        if isinstance(output, tuple | list) and output:  # a module in training may return auxiliary outputs too
            output = output[0]
        if isinstance(output, np.ndarray):
            output = torch.from_numpy(np.ascontiguousarray(output))
        if not isinstance(output, Tensor):
            kind = "None" if output is None else f"a {type(output).__name__}"
            raise UserError(f"network '{self.title}' returned {kind}: it must return a tensor or array (N, classes)")
        if output.ndim != 2 or len(output) != len(images) or output.shape[1] < 2:
            raise UserError(
                f"network '{self.title}' returned {tuple(output.shape)} for {len(images)} images: it must return "
                "(N, classes), a row for each image and at least two classes"
            )
        output = output if output.is_floating_point() else output.float()
        if output.device == images.device:
            return output
        if self.is_module or output.device.type == "meta":
            raise UserError(
                f"network '{self.title}' returned its outputs on '{output.device}' for images on '{images.device}': it "
                "must compute where its images are"
            )
        return output.to(images.device)


def adapted(network: Network) -> OwnNetwork:
    """Return a copy of a network as a module in eval mode on the CPU.

    Raises
    ------
    UserError
        If it cannot be copied or run, or returns something else than outputs (N, classes).
    """
    function = network.function
    if not isinstance(function, nn.Module):
        made = OwnNetwork(function, network.title).eval()
        made.register_buffer("probe", _identifying(made, network))
        return made
    try:
        with torch.no_grad():  # the copies of a traced module's weights would be results of a computation
            function = copy.deepcopy(function)
    except Exception as error:  # what a user's attributes raise when they are copied
        raise UserError(
            f"network '{network.title}' cannot be copied ({first_line(error, LONGEST)}): load its weights into another"
        ) from None
    return OwnNetwork(function, network.title).eval().to("cpu")


def findings(network: Network) -> Findings:
    """Run a network once and return what shows.

    Raises
    ------
    UserError
        As `adapted`; also if its outputs are no finite numbers, or its classes are others in number.
    """
    made = adapted(network)
    images, outputs = _tried(made, network.described().input_size)
    if not outputs.isfinite().all():
        raise UserError(
            f"network '{made.title}' gives no finite number on an image of noise: check its weights, mean and std"
        )
    count = outputs.shape[1]
    names = tuple(map(str, network.classes or ()))
    if names and len(names) != count:
        raise UserError(f"classes of '{made.title}' names {len(names)} outputs, and it has {count}")
    known = OutputClasses(count, names=names)
    config = getattr(network.function, "pretrained_cfg", None)
    if not names and isinstance(config, Mapping):
        found = timm.outputs_of_config(dict(config))
        known = found if found and found.count == count else known
    if not names and (own := getattr(getattr(network.function, "config", None), "id2label", None)):
        found = OutputClasses(count, names=tuple(str(own.get(i, i)) for i in range(count)))
        known = found if len(own) == count and not found.names[0].startswith("LABEL_") else known
    trainable = made.is_module and any(True for _ in made.parameters())
    return Findings(known, trainable, made.is_module and has_gradient(made, images))


def _tried(made: OwnNetwork, size: int) -> tuple[Tensor, Tensor]:
    """Return generated images and the outputs for them, on the CPU. A function is tried on the GPU first."""
    devices = [torch.device("cpu")] if made.is_module else list(dict.fromkeys([best_device(), torch.device("cpu")]))
    problem: Exception | None = None
    for side in [size] if size else PROBE_SIZES:
        images = 2 * torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) - 1
        for device in devices:
            made.works_on = None if made.is_module else device
            try:
                with torch.no_grad():
                    return images, made(images)
            except UserError:
                raise
            except Exception as error:  # a user's function raises whatever it likes
                problem = problem or error
    tried = f"{size} px" if size else "several sizes"
    raise UserError(
        f"network '{made.title}' fails on two images of {tried} ({type(problem).__name__}: "
        f"{first_line(problem or ValueError(), LONGEST)}): check its input_size, and that it takes (N, 3, S, S) float32"
    )


def behaviour(network: Network) -> str:
    """Return a digest of what a network computes, by which modules of equal weights and other code are told apart.

    Raises
    ------
    UserError
        As `adapted`.
    """
    made = adapted(network)
    probe = _identifying(made, network) if made.is_module else made.probe
    return hashlib.sha256(probe.numpy().tobytes()).hexdigest()[:16]


def _identifying(made: OwnNetwork, network: Network) -> Tensor:
    """Return a few numbers (images, directions) that the outputs for generated images give.

    They are few, and rounded, so that machines whose sums differ in the last digits agree.
    """
    outputs = _tried(made, network.described().input_size)[1].double()
    generator = torch.Generator().manual_seed(0)
    outputs = outputs @ torch.rand(outputs.shape[1], DIRECTIONS, generator=generator, dtype=torch.float64)
    largest = float(outputs.abs().max())
    scale = 10.0 ** (DIGITS - 1 - math.floor(math.log10(largest))) if 0 < largest < math.inf else 1.0
    return ((outputs * scale).round() / scale + 0.0).float()
