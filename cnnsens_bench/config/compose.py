"""Composing a configuration: a suite's file and the command line's words become a checked `Config`.

This is the only file that knows Hydra.
"""

import dataclasses
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnnsens_bench.config.schema import PATHS, SWITCHES, Config, check
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import near


def compose(overrides: Sequence[str]) -> Config:
    """The config that the command line's `key=value` words ask for. Raises `UserError`."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    chosen = [word for word in overrides if word.startswith("model=")]
    words = [_expanded(word) for word in overrides if word not in chosen]
    try:
        with hydra.initialize_config_module("cnnsens_bench.config", version_base="1.3"):
            composed = hydra.compose("config", overrides=words)
        config = OmegaConf.to_object(composed)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(sentence(error)) from None
    assert isinstance(config, Config)
    for word in chosen:
        config.models = _chosen(config.models, word.partition("=")[2])
    if config.studies and any(word.startswith(("models=", "model=")) for word in overrides):
        config.studies = {name: without(study, "models") for name, study in config.studies.items()}
    for word in overrides if config.studies else ():
        if word.startswith("dataset"):
            names = ", ".join(f"studies.{name}.dataset" for name in config.studies)
            raise UserError(
                f"'{word}': suite {config.suite} has studies of several data sets: data_root=<folder> has them all, "
                f"and {names} change them"
            )
    check(config)
    return config


def without(mapping: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Less these keys."""
    return {key: value for key, value in mapping.items() if key not in keys}


def _chosen(models: list[Any], name: str) -> list[Any]:
    """`model=name`: the suite's own entry of that name, with its weights and training, else the bare name."""
    return [entry for entry in models if name in (entry, isinstance(entry, dict) and entry.get("name"))] or [name]


def suites() -> dict[str, str]:
    """Every suite's name and the comment that heads its file."""
    found = {}
    for file in sorted(resources.files("cnnsens_bench.config").joinpath("suites").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".yaml"):
            lines = [line for line in file.read_text().splitlines() if line.startswith("# ")]
            text = "\n".join(line[2:] for line in lines if not line.startswith("# @package"))
            found[file.name.removesuffix(".yaml")] = text
    return found


def _expanded(word: str) -> str:
    """`dataset=name` is short for `dataset.name=name` (datasets are a registry that users add to, not files), and
    `tracking=off` for `tracking.enabled=false`, as `sensitivity=on`."""
    key, equals, value = word.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", key):
        raise UserError(f"'{word}' is not an override: write key=value, such as suite=quick (--help shows the keys)")
    if key in PATHS and value not in ("null", "") and value[0] not in "'\"":
        # Hydra's grammar gives commas, brackets and equal signs a meaning that they do not have in a path.
        value = "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if key in ("tracking", "sensitivity") and value in SWITCHES:
        return f"{key}.enabled={SWITCHES[value]}"
    if key == "suite":
        return f"suites={value}"  # the folder of the suites' files is Hydra's name of the group
    if key == "dataset" and not value.startswith("{"):
        return f"dataset.name={value}"
    # A loader's options are its own, and a study may take any key: they may be new.
    new = key.startswith(("dataset.options", "studies.")) or (key == "dataset" and "options" in value)
    return ("++" if new else "") + f"{key}={value}"


def _known_keys(kind: Any = Config, prefix: str = "") -> list[str]:
    keys = []
    for f in dataclasses.fields(kind):
        keys.append(prefix + f.name)
        if dataclasses.is_dataclass(f.type):
            keys += _known_keys(f.type, f"{prefix}{f.name}.")
    return keys


def sentence(error: Exception) -> str:
    """Hydra's and OmegaConf's paragraphs as one sentence that names the key or value."""
    text = str(error)
    inner = str(error.__cause__ or "")
    missing = re.search(r"(?:find|load) '(?:suites/)?([^']+)'", text)
    if isinstance(error, MissingConfigException) and missing:
        return f"unknown suite '{missing[1]}'{near(missing[1], list(suites()))}"
    absent = re.search(r"Could not override '([^']+)'", text)
    unknown = re.search(r"Key '([^']+)' (?:is )?not in", text + inner)
    if absent and unknown:
        return f"unknown config key '{absent[1]}'{near(absent[1], _known_keys())}"
    if isinstance(error, ConfigCompositionException) and inner:
        text = inner
    key = re.search(r"full_key: (\S+)", text + "\n" + inner)
    first = " ".join(text.splitlines()[0].split()) if text else type(error).__name__
    return f"config key '{key[1]}': {first}" if key else f"the command line cannot be read: {first}"
