"""Turns the config that a database has of a run into one that computes some of its rows again on this machine.

Whoever made the database wrote that config: unless it is trusted, it may not name code, files or folders.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnnsens_bench.config.compose import sentence
from cnnsens_bench.config.schema import Config, check
from cnnsens_bench.config.sections import ClusterConfig, SensitivityConfig, TrackingConfig
from cnnsens_bench.experiment.resolve import SUBSETS
from cnnsens_bench.models.base import PYTHON, split_path
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import near

GIVEN = ("data_root", "dataset.root", "stored_root", "cache", "plugins")
"""Keys that whoever verifies may give: where this machine has its data, and whose code is imported."""
CODE_OR_FILES = "local-dir:"
"""The beginning of timm's names of folders."""
TRUST = "--trust takes what its run names: code, files and folders"


def given_keys(texts: Iterable[str]) -> dict[str, str]:
    """Return the `key=value` words of a command line, of which each key is in `GIVEN`. Raise `UserError`."""
    given = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key not in GIVEN or not value:
            raise UserError(f"'{text}' is no key=value of {', '.join(GIVEN)}{near(key, GIVEN)}")
        given[key] = value
    return given


def recorded_config(text: str, given: Mapping[str, str], trust: bool) -> Config:
    """Return the config that a database has of a run, ready to compute parts of the run again.

    Parameters
    ----------
    text
        The column `config` of the table `runs`.
    given
        Values of `GIVEN`, which replace those of the run.
    trust
        Whether the config may name plugins and folders. Otherwise those of `given` alone are used.

    Raises
    ------
    UserError
        Where the text is no config of this version, or names plugins that may not be imported.
    """
    recorded = json.loads(text or "{}")
    if any("${" in one for one in _texts(recorded)):
        raise UserError("its config holds '${', which no run writes")
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), recorded))
    except OmegaConfBaseException as error:
        raise UserError(f"its config is not one of this version ({sentence(error)})") from None
    assert isinstance(config, Config)
    dataset = config.dataset
    folders = {"data_root": config.data_root, "stored_root": config.stored_root, "dataset.root": dataset.root}
    folders = {key: given.get(key, folder if trust else None) for key, folder in folders.items()}
    plugins = given["plugins"].strip("[]").split(",") if "plugins" in given else []
    if lacking := [name for name in config.plugins if name not in plugins and not trust]:
        raise UserError(f"its run imports the plugin '{lacking[0]}': name it with plugins=, or {TRUST}")
    if paths := [one for one in _texts(dataset.options) if _is_path(one) and not trust]:
        raise UserError(f"dataset.options of its run names '{paths[0][:80]}': {TRUST}")
    if config.recipe != "given":
        raise UserError(f"its run has recipe={config.recipe}, which the database does not hold")
    config = dataclasses.replace(
        config,
        studies={},
        only=[],
        figures=[],
        limit=None,
        budget=1.0,
        estimate=False,
        data_root=folders["data_root"],
        stored_root=folders["stored_root"],
        dataset=dataclasses.replace(dataset, root=folders["dataset.root"]),
        cache=given.get("cache"),
        plugins=list(dict.fromkeys([*(config.plugins if trust else []), *plugins])),
        cluster=ClusterConfig(engine="local"),
        tracking=TrackingConfig(enabled=False),
        sensitivity=SensitivityConfig(),
    )
    check(config)
    return config


def recorded_entry(config: Config, model: str, trust: bool) -> Any:
    """Return the entry of `models` that a network was evaluated by.

    Raises
    ------
    UserError
        Where there is none, or where its code or weights are files of whoever ran it and these are not trusted.
    """
    for entry in config.models:
        name = entry if isinstance(entry, str) else entry.get("name") if isinstance(entry, Mapping) else None
        if isinstance(name, str) and split_path(name)[0] == model:
            break
    else:
        raise UserError("the config of its run does not name it")
    own = entry if isinstance(entry, Mapping) else {}
    weights, classes = own.get("weights", config.weights), own.get("classes")
    source, slash, architecture = name.partition("/")
    if not trust and (source == PYTHON or not slash or architecture.startswith(CODE_OR_FILES)):
        raise UserError(f"its code is not public: {TRUST}")
    if not trust and (split_path(name)[1] or weights not in ("auto", "random")):
        raise UserError(f"its weights are a file, and not public: {TRUST}")
    if not trust and isinstance(classes, str) and classes not in SUBSETS:
        raise UserError(f"the names of its outputs are in a file: {TRUST}")
    return entry


def _texts(value: Any) -> Sequence[str]:
    """Return all texts in a value of JSON."""
    if isinstance(value, Mapping):
        return [*value, *(text for inner in value.values() for text in _texts(inner))]
    if isinstance(value, list | tuple):
        return [text for inner in value for text in _texts(inner)]
    return [value] if isinstance(value, str) else []


def _is_path(text: str) -> bool:
    return "/" in text or "\\" in text or text.startswith("~")
