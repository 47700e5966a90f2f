"""What the entries of the config's lists mean: names, or mappings with a name and what differs from the top."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnnsens_bench.config.compose import sentence
from cnnsens_bench.config.schema import RECIPES, Config, size_ok
from cnnsens_bench.degradations import write_expression
from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.training.recipes import read_recipes
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import near


@dataclass(frozen=True)
class ModelConfig:
    """One entry of `models`: a name, or a mapping with `name` and what differs from the top of the config."""

    name: str
    weights: str
    input_size: int | None
    recipe: Recipe


@dataclass(frozen=True)
class ConditionConfig:
    """One entry of `degradations`: its expression, which `parse_degradations` reads, its levels and its trials."""

    expression: str
    levels: tuple[float, ...] | None
    trials: int


def model_configs(config: Config) -> list[ModelConfig]:
    """The entries of `models`, filled from the config. Raises `UserError`."""
    if not config.models:
        raise UserError("models is empty: name at least one, such as models=[timm/tf_efficientnet_lite0]")
    entries = []
    tuned = {} if config.recipe in RECIPES else read_recipes(Path(config.recipe))
    for entry in config.models:
        given = _mapping("models", entry, ("name", "weights", "input_size", "training"))
        training = given.get("training") or {}
        known = [f.name for f in dataclasses.fields(Recipe)]
        for key in training:
            if key not in known:
                raise UserError(f"models: unknown key 'training.{key}' of '{given['name']}'{near(key, known)}")
        try:
            merged = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(config.training), training))
        except OmegaConfBaseException as error:
            raise UserError(f"models: training of '{given['name']}': {sentence(error)}") from None
        assert isinstance(merged, Recipe)
        merged = tuned.get(given["name"], merged)
        merged.check()
        size = given.get("input_size", config.input_size)
        if size is not None and not size_ok(size):
            raise UserError(f"models: input_size of '{given['name']}' is {size!r}: it must be between 16 and 4096")
        entries.append(ModelConfig(given["name"], str(given.get("weights", config.weights)), size, merged))
    names = [entry.name for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"models names '{name}' twice: run its variants with outputs of their own (output=…)")
    if tuned and not set(tuned) & set(names):
        raise UserError(f"recipe: {config.recipe} has recipes of {', '.join(tuned)}, of none of the models of this run")
    return entries


def condition_configs(config: Config) -> list[ConditionConfig]:
    """The entries of `degradations`. Raises `UserError`."""
    entries = []
    for entry in config.degradations:
        expression = write_expression(entry)
        given = entry if isinstance(entry, dict) else {}
        name = given.get("name", expression)
        levels = given.get("levels")
        if levels is not None and (not isinstance(levels, list) or not levels):
            raise UserError(f"degradations: levels of '{name}' must be a list of numbers, such as [1, 4, 16]")
        trials = given.get("trials", config.trials)
        if not isinstance(trials, int) or trials < 1:
            raise UserError(f"degradations: trials of '{name}' is {trials!r}: it must be at least 1")
        entries.append(ConditionConfig(expression, tuple(levels) if levels is not None else None, trials))
    return entries


def _mapping(key: str, entry: Any, known: tuple[str, ...]) -> dict[str, Any]:
    if isinstance(entry, str):
        return {"name": entry}
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise UserError(f"{key}: {entry!r} is neither a name nor a mapping with a name")
    for inner in entry:
        if inner not in known:
            raise UserError(f"{key}: unknown key '{inner}' of '{entry['name']}'{near(str(inner), list(known))}")
    return entry
