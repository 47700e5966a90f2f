"""Composes a suite's file and the `key=value` words of a command line into a checked `Config`.

This is the only file that knows Hydra.
"""

import re
import threading
from collections.abc import Sequence
from importlib import resources

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnnsens_bench.config.reference import config_keys
from cnnsens_bench.config.schema import PATHS, SWITCHES, Config, check
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import near

CAMERA = "camera:"
"""The beginning of a degradation that names the file of a camera; the rest is a path."""
_one_at_a_time = threading.Lock()
"""Hydra keeps its state in a global variable."""


def compose(overrides: Sequence[str]) -> Config:
    """Return the config that the `key=value` words of a command line ask for.

    Parameters
    ----------
    overrides
        The words. `suite=NAME` chooses the file that they override, `model=NAME` one of its models.

    Raises
    ------
    UserError
        For a word that cannot be read, an unknown key, or a value that is impossible whatever the other keys say.
    """
    ConfigStore.instance().store(name="schema", node=Config)
    others = [_expanded(word) for word in [*_custom_suite(overrides), *overrides] if not word.startswith("model=")]
    try:
        with _one_at_a_time, hydra.initialize_config_module("cnnsens_bench.config", version_base="1.3"):
            config = OmegaConf.to_object(hydra.compose("config", overrides=others))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(sentence(error)) from None
    assert isinstance(config, Config)
    for name in (word.partition("=")[2] for word in overrides if word.startswith("model=")):
        # The suite's own entry of that name has its weights and training.
        entries = [entry for entry in config.models if name in (entry, isinstance(entry, dict) and entry.get("name"))]
        config.models = entries or [name]
    if any(word.startswith(("models=", "model=")) for word in overrides):
        for study in config.studies.values():
            if isinstance(study, dict):
                study.pop("models", None)
    for word in overrides if config.studies else ():
        if word.startswith("dataset"):
            names = ", ".join(f"studies.{name}.dataset" for name in config.studies)
            raise UserError(
                f"'{word}': suite {config.suite} has studies of several data sets: data_root=<folder> has them all, "
                f"and {names} change them"
            )
    check(config)
    return config


def suites() -> dict[str, str]:
    """Return the comment that heads each suite's file, by the suite's name."""
    found = {}
    folder = resources.files("cnnsens_bench.config").joinpath("suites")
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            comments = [line[2:] for line in file.read_text().splitlines() if line.startswith("# ")]
            found[file.name.removesuffix(".yaml")] = "\n".join(t for t in comments if not t.startswith("@package"))
    return found


def _custom_suite(overrides: Sequence[str]) -> list[str]:
    """Return the word for the suite `custom` where a data set is named and no suite: no other suite's keys fit it."""
    keys = {word.partition("=")[0] for word in overrides}
    named = "dataset.root" in keys or {"dataset=plumage", "dataset.name=plumage"}.isdisjoint(overrides)
    own = {"dataset", "dataset.name", "dataset.root"} & keys
    return ["suite=custom"] if own and named and "suite" not in keys else []


def _expanded(word: str) -> str:
    """Return a word as Hydra takes it: abbreviations are written out, and paths are quoted.

    `dataset=name` is short for `dataset.name=name`, since data sets are a registry that users add to, not files.
    `tracking=off` is short for `tracking.enabled=false`, and so is `sensitivity=on`. `degradations=camera:file` is
    short for a list of one.
    """
    key, equals, value = word.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", key):
        raise UserError(f"'{word}' is not an override: write key=value, such as suite=quick (--help shows the keys)")
    is_camera = key == "degradations" and value.startswith(CAMERA)
    if is_camera or (key in PATHS and value not in ("null", "") and value[0] not in "'\""):
        # Hydra's grammar gives commas, brackets and equal signs a meaning that they do not have in a path.
        value = "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if is_camera:
        return f"{key}=[{value}]"
    if key in ("tracking", "sensitivity") and value in SWITCHES:
        return f"{key}.enabled={SWITCHES[value]}"
    if key == "suite":
        return f"suites={value}"  # the folder of the suites' files is Hydra's name of the group
    if key == "dataset" and not value.startswith("{"):
        return f"dataset.name={value}"
    # A loader's options are its own, and a study may take any key: they may be new.
    new = key.startswith(("dataset.options", "studies.")) or (key == "dataset" and "options" in value)
    return ("++" if new else "") + f"{key}={value}"


def sentence(error: Exception) -> str:
    """Return what Hydra or OmegaConf complains about as one sentence that names the key or value."""
    text = str(error)
    inner = str(error.__cause__ or "")
    missing = re.search(r"(?:find|load) '(?:suites/)?([^']+)'", text)
    if isinstance(error, MissingConfigException) and missing:
        return f"unknown suite '{missing[1]}'{near(missing[1], suites())}"
    absent = re.search(r"Could not override '([^']+)'", text)
    unknown = re.search(r"Key '([^']+)' (?:is )?not in", text + inner)
    if absent and unknown:
        keys_and_sections = {name for key in config_keys() for name in (key.name, key.name.partition(".")[0])}
        return f"unknown config key '{absent[1]}'{near(absent[1], keys_and_sections)}"
    if isinstance(error, ConfigCompositionException) and inner:
        text = inner
    key = re.search(r"full_key: (\S+)", text + "\n" + inner)
    if strange := re.match(r"LexerNoViableAltException: \+*([^=\s]+)=(.*)", text):
        return (
            f"{strange[1]}={strange[2]} cannot be read: put the value in quotes, as in \"{strange[1]}='{strange[2]}'\""
        )
    first = " ".join(text.splitlines()[0].split()) if text else type(error).__name__
    if "Error parsing override" in first:
        first += ": put texts with brackets or spaces in quotes, as in \"degradations=['gaussian_rgb(16)',flip_lr]\""
    return f"config key '{key[1]}': {first}" if key else f"the command line cannot be read: {first}"
