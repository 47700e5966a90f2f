"""One benchmark from Python: networks and data as they come become a config, and a run in this process."""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from cnnsens_bench.config.compose import compose, sentence
from cnnsens_bench.config.reference import config_keys
from cnnsens_bench.config.schema import Config, check
from cnnsens_bench.datasets import Samples
from cnnsens_bench.experiment.own_data import named_dataset, samples_of
from cnnsens_bench.experiment.placement import over_ray
from cnnsens_bench.experiment.prepare import load_samples
from cnnsens_bench.experiment.resolve import resolve_models
from cnnsens_bench.experiment.runner import run_suite
from cnnsens_bench.experiment.stored_pictures import settle_pictures
from cnnsens_bench.models.base import PYTHON, location_of
from cnnsens_bench.models.network import Network
from cnnsens_bench.models.sources.python import held
from cnnsens_bench.models.weights import starting_weights
from cnnsens_bench.runtime.compiled_code import CODE_FOLDER
from cnnsens_bench.utils.cache import cache_dir
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.plugins import load_plugins
from cnnsens_bench.utils.progress import say
from cnnsens_bench.utils.registry import near
from cnnsens_bench.utils.storage import StoragePath

SECTIONS = ("tracking", "sensitivity")
"""Sections that `on` and `off` are short for the key `enabled` of."""


@dataclasses.dataclass(frozen=True)
class NamedNetworks:
    """Networks as entries of a config's `models`, and those among them that are in memory, by their names."""

    entries: tuple[Any, ...]
    in_memory: Mapping[str, Network]


def named_networks(networks: Any, given: Mapping[str, Any]) -> NamedNetworks:
    """Name networks as a config does.

    Parameters
    ----------
    networks
        One network or several, as `cnnsens_bench.benchmark` takes them.
    given
        `mean`, `std`, `input_size`, `resize`, `interpolation` and `classes` of all of them, None for what each knows.

    Raises
    ------
    UserError
        If something is no network.
    """
    if isinstance(networks, Mapping):
        several = list(networks.items())
    elif isinstance(networks, list | tuple):
        several = [(None, network) for network in networks]
    else:
        several = [(None, networks)]
    if not several:
        raise UserError("there is no network: give one, or several in a list")
    entries: list[Any] = []
    in_memory: dict[str, Network] = {}
    for name, network in several:
        if isinstance(network, str):
            own = {key: value for key, value in given.items() if value is not None}
            entries.append({"name": network, **own} if own else network)
            continue
        known = network if isinstance(network, Network) else Network(network)
        unknown = [key for key in ("mean", "std", "input_size", "classes") if getattr(known, key) is None]
        values = {key: given[key] for key in unknown}
        known = dataclasses.replace(known, **values, name=str(name) if name is not None else known.name)
        known = known.viewed(given["resize"], given["interpolation"])
        title = "".join(c if c.isalnum() or c in "_-." else "_" for c in known.title).strip(".") or "network"
        number = 2
        unique = title
        while unique in in_memory:
            unique, number = f"{title}-{number}", number + 1
        in_memory[unique] = dataclasses.replace(known, name=unique)
        _require_input(in_memory[unique])
        entries.append(f"{PYTHON}/{unique}")
    return NamedNetworks(tuple(entries), in_memory)


def _require_input(network: Network) -> None:
    """Raise `UserError` where a network does not say what it expects of its input."""
    described = network.described()
    unknown = [key for key in ("mean", "std") if any(map(math.isnan, getattr(described, key)))]
    unknown += [] if described.input_size else ["size"]
    if unknown:
        raise UserError(
            f"what network '{network.title}' expects of its input cannot be known: give {', '.join(unknown)}, such as "
            "mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=224 of most networks of ImageNet"
        )


def config_of(changes: Mapping[str, Any]) -> Config:
    """Return the config of a suite, `custom` unless `changes` names one, with some of its keys changed.

    Parameters
    ----------
    changes
        Values by key; keys of sections are dotted, as in `training.epochs`.

    Raises
    ------
    UserError
        For an unknown key or an impossible value.
    """
    changes = dict(changes)
    base = compose([f"suite={changes.pop('suite', 'custom')}", "cluster.engine=local", "tracking=off"])
    known = {name for key in config_keys() for name in (key.name, key.name.partition(".")[0])}
    merged = OmegaConf.structured(base)
    for key, value in changes.items():
        if key not in known and not key.startswith("dataset.options."):
            raise UserError(f"unknown config key '{key}'{near(key, known)}")
        value = _plain(value)
        if key in SECTIONS and not isinstance(value, dict):
            key, value = f"{key}.enabled", {"on": True, "off": False}.get(value, value)
        try:
            OmegaConf.update(merged, key, value, merge=not isinstance(value, list), force_add=True)
        except (OmegaConfBaseException, ValueError) as error:
            said = sentence(error)
            raise UserError(said if said.startswith("config key") else f"{key}: {said}") from None
    config = OmegaConf.to_object(merged)
    assert isinstance(config, Config)
    check(config)
    return config


def _plain(value: Any) -> Any:
    """Return a value of Python as a config holds it."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | range | np.ndarray):
        return [_plain(inner) for inner in value]
    return value


def run_benchmark(
    networks: Any, data: Any, given: Mapping[str, Any], changes: Mapping[str, Any], progress: bool
) -> StoragePath:
    """Run networks over data in this process, and return the folder of the results.

    Parameters
    ----------
    networks, data
        As `cnnsens_bench.benchmark` takes them.
    given
        As in `named_networks`.
    changes
        Values of config keys.
    progress
        Whether a person sees what is done.

    Raises
    ------
    UserError
        For a wrong request, before anything is computed.
    """
    named = named_networks(networks, given)
    dataset = named_dataset(data)
    trains = any(key == "recipe" or key.partition(".")[0] == "training" for key in changes)
    for key, says in {"models": "the network", **{f"dataset.{key}": "data" for key in dataset or ()}}.items():
        if key in changes:
            raise UserError(f"{key} is given twice, since {says} says it: leave it out of the options")
    changes = {"fine_tune": "always" if trains else "never", **changes, "models": list(named.entries)}
    if dataset:
        changes |= {f"dataset.{key}": value for key, value in dataset.items()}
    config = config_of(changes)
    load_plugins(config.plugins)
    if named.in_memory and over_ray(config.cluster):
        raise UserError(
            f"'{next(iter(named.in_memory))}' is in the memory of this process, which other machines do not have: "
            "leave cluster.engine=ray out, or name a function that returns it, as module:function"
        )
    console = Console(highlight=False, emoji=False, quiet=not progress)
    with held(named.in_memory), unchanged_process():
        weights = {}
        for model in resolve_models(config):
            weights[model.name] = starting_weights(model.name, model.weights).identity
        if dataset:
            samples = load_samples(config.dataset, config.data_root)
        else:
            [first, *_] = resolve_models(config)
            source, location = location_of(first.name, first.weights)
            samples = samples_of(data, source.outputs(location), cache_dir(config.cache), given["classes"])
            fingerprint = {"samples": samples.fingerprint()[:16]}
            config.dataset = dataclasses.replace(config.dataset, name=samples.name, root=None, options=fingerprint)
        if config.output is None:
            config.output = str(_own_folder(settle_pictures(config).config, weights, samples))
            say(console, f"results are kept in {config.output}")
        failed = run_suite(config, console, samples, summary=False)
    if failed:
        warnings.warn(f"{failed} images or networks were not computed: results.failures says why", stacklevel=3)
    return config.output_folder


def _own_folder(config: Config, weights: Mapping[str, str], samples: Samples) -> Path:
    """Return a folder in the cache, named by all that shapes the results but the budget, which may be raised later."""
    shaped = dataclasses.replace(config, budget=1.0, until=None).hash()
    shaping = json.dumps([shaped, sorted(weights.items()), samples.fingerprint()])
    digest = hashlib.sha256(shaping.encode()).hexdigest()[:16]
    return cache_dir(config.cache).absolute() / "benchmarks" / f"{samples.name}-{digest}"


@contextlib.contextmanager
def unchanged_process() -> Iterator[None]:
    """Restore torch's threads, random numbers, CUDA modes and folder of compiled code, which a run sets."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    modes = cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic
    code_folder = os.environ.get(CODE_FOLDER)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic = modes
        os.environ.pop(CODE_FOLDER, None)
        if code_folder is not None:
            os.environ[CODE_FOLDER] = code_folder
