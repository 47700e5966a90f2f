"""A suite of several sweeps into one output: each study is the suite's config with some keys of its own."""

import dataclasses
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnnsens_bench.config.compose import sentence
from cnnsens_bench.config.schema import Config, DatasetConfig, check
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import near

OWN = ("dataset", "models", "weights", "training", "defenses", "degradations", "trials", "sensitivity", "limit")
"""Keys of the config that a study may have of its own: none that would make its predictions of another protocol."""
FIRST = "first"
"""A study's key beside them: how many of the models take part, the first ones."""


def studies_of(config: Config) -> list[Config]:
    """The configs of a suite's studies in order, those of `only` where it names some; the config itself where it has
    none. Raises `UserError` for an unknown study, key or value."""
    if not config.studies:
        if config.only:
            raise UserError(f"only names studies, and suite {config.suite} has none: leave it out")
        return [config]
    for name in config.only:
        if name not in config.studies:
            raise UserError(f"only: unknown study '{name}'{near(name, list(config.studies))}")
    return [
        _study(config, name, given) for name, given in config.studies.items() if not config.only or name in config.only
    ]


def _study(config: Config, name: str, given: Any) -> Config:
    where = f"studies.{name}"
    if not isinstance(given, dict):
        raise UserError(f"{where} is {given!r}: it must be a mapping of keys, such as {{dataset: cub200}}")
    for key in given:
        if key not in (*OWN, FIRST):
            raise UserError(f"{where}: unknown key '{key}'{near(str(key), [*OWN, FIRST])}")
    own = {key: value for key, value in given.items() if key != FIRST}
    if isinstance(own.get("dataset"), str):
        own["dataset"] = dataclasses.asdict(DatasetConfig(own["dataset"]))
    base = dataclasses.replace(config, studies={}, only=[], figures=[], study=name)
    try:
        study = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(base), own))
    except OmegaConfBaseException as error:
        raise UserError(f"{where}: {sentence(error)}") from None
    assert isinstance(study, Config)
    first = given.get(FIRST)
    if first is not None:
        if not isinstance(first, int) or first < 1:
            raise UserError(f"{where}.first is {first!r}: it must be a number of models, at least 1")
        study.models = study.models[:first]
    check(study)
    return study
