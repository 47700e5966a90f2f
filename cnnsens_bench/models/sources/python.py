"""The model source `python`: networks that a function of the user's own module returns, or that are in memory.

A function is named `module:function`, without a source. A network in memory is `python/<name>` within `held`.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from cnnsens_bench.models.base import PYTHON, model_source
from cnnsens_bench.models.classes import OutputClasses
from cnnsens_bench.models.network import Findings, Network, OwnNetwork, adapted, behaviour, findings
from cnnsens_bench.models.preprocessing import Preprocessing
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.plugins import complaint, find_in_working_folder, import_own
from cnnsens_bench.utils.registry import near

_held: ContextVar[Mapping[str, Network]] = ContextVar("_held")


@contextlib.contextmanager
def held(networks: Mapping[str, Network]) -> Iterator[None]:
    """Let `python/<name>` mean these networks, in this thread, until the block ends."""
    token = _held.set({**_held.get({}), **networks})
    try:
        yield
    finally:
        _held.reset(token)


def is_held(model: str) -> bool:
    """Return whether a model is a network in memory, which no other process has."""
    return model.startswith(f"{PYTHON}/") and ":" not in model


def network_of(architecture: str) -> Network:
    """Return the network that `module:function` or the name of a network in memory stands for.

    Raises
    ------
    UserError
        If there is none, or the user's code fails.
    """
    if ":" in architecture:
        return _returned(architecture)
    known = _held.get({})
    if architecture not in known:
        raise UserError(
            f"'{PYTHON}/{architecture}' was a network in the memory of another process: hand it to benchmark() again, "
            f"or name a function that returns it, as module:function{near(architecture, known, 'in memory are')}"
        )
    return known[architecture]


def _returned(model: str) -> Network:
    """Call `module:function` and return what it gives."""
    module_name, _, path = model.partition(":")
    find_in_working_folder()
    found: Any = import_own(module_name, f"module '{module_name}' of model '{model}'")
    for name in path.split("."):
        if not hasattr(found, name):
            known = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
            raise UserError(f"model '{model}': {module_name} has no '{name}'{near(name, known, 'it has')}")
        found = getattr(found, name)
    if not isinstance(found, nn.Module | Network):
        found = _called(model, found)
    if isinstance(found, Network):
        return found
    if not callable(found):
        kind = "None" if found is None else f"a {type(found).__name__}"
        raise UserError(f"model '{model}' returned {kind}: it must return a torch.nn.Module, a function or a Network")
    return Network(found, name=model)


def _called(model: str, function: Callable[[], Any]) -> Any:
    """Call a user's function without arguments. Torch's random numbers are the same each time."""
    if not callable(function):
        raise UserError(f"model '{model}' is a {type(function).__name__}: name a function that returns a network")
    with contextlib.suppress(TypeError, ValueError):  # some built-in functions have no signature
        parameters = inspect.signature(function).parameters.values()
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        needed = [p.name for p in parameters if p.default is p.empty and p.kind not in kinds]
        if needed:
            raise UserError(
                f"model '{model}' needs {', '.join(needed)}: it is called without arguments and returns the network, "
                "so name a function that does"
            )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            return function()
    except Exception as error:  # a user's function raises whatever it likes
        raise UserError(complaint(f"model '{model}'", error)) from None


def findings_of(architecture: str) -> Findings:
    """Return what one pass of a network shows. Functions of modules are asked once in a process."""
    return _findings(architecture) if ":" in architecture else findings(network_of(architecture))


@functools.lru_cache(maxsize=64)
def _findings(architecture: str) -> Findings:
    return findings(network_of(architecture))


def describe(architecture: str) -> Preprocessing:
    """Return what a network expects of its input, as far as it is known."""
    return network_of(architecture).described()


def published(architecture: str, input_size: int | str | None) -> Preprocessing:
    """Return the view that a network or its timm configuration has, else a crop from the middle."""
    return network_of(architecture).described(input_size if isinstance(input_size, int) else None)


def outputs(architecture: str) -> OutputClasses:
    """Return the number of a network's outputs, and their names where they are known."""
    return findings_of(architecture).outputs


def pretrained(architecture: str) -> dict[str, Tensor]:
    """Return the weights of a network; those of a function are what its outputs for generated images show."""
    return adapted(network_of(architecture)).state_dict()


def identify(architecture: str) -> str:
    """Return a text that tells a network from others of equal name and weights whose code computes something else."""
    return behaviour(network_of(architecture))


def require_trainable(architecture: str, classes: int) -> None:
    """Raise `UserError` unless a network is a module with parameters and as many outputs as there are classes."""
    found = findings_of(architecture)
    if not found.trainable:
        raise UserError(f"'{architecture}' has no weights to fine-tune: evaluate it as it is, with fine_tune=never")
    if found.outputs.count != classes:
        raise UserError(
            f"'{architecture}' has {found.outputs.count} outputs, and the data set {classes} classes: to fine-tune it, "
            "give it as many outputs"
        )


@model_source(
    PYTHON,
    names=None,
    describe=describe,
    pretrained=pretrained,
    published=published,
    outputs=outputs,
    fixed_outputs=True,
    require_trainable=require_trainable,
    identify=identify,
)
def build(architecture: str, num_classes: int, input_size: int) -> OwnNetwork:
    """Return a copy of a network, whose number of outputs is its own."""
    return adapted(network_of(architecture))
