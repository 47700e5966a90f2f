"""What a sweep is before anything is computed: its config resolved and checked, its samples, its protocol."""

import dataclasses
import hashlib
import json

import pandas as pd

from cnnsens_bench import datasets as dataset_room
from cnnsens_bench.config.schema import Config
from cnnsens_bench.datasets import Samples
from cnnsens_bench.degradations import parse_degradations
from cnnsens_bench.engine.dry_run import probe
from cnnsens_bench.engine.plan import Condition
from cnnsens_bench.experiment.entrants import Pairing, hash_rank, pair_entrants
from cnnsens_bench.experiment.resolve import ModelConfig, condition_configs, model_configs
from cnnsens_bench.models import split_name
from cnnsens_bench.sensitivity.predictors import parse_predictor
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.storage import storage_path

PROTOCOL_VERSION = 2
"""Raised when crop, resize, a degradation or its draws change their meaning."""


@dataclasses.dataclass(frozen=True)
class ResolvedStudy:
    """One sweep that is known to be possible: all that can be checked before anything is computed."""

    config: Config
    models: list[ModelConfig]
    conditions: tuple[Condition, ...]
    pairing: Pairing
    predictors: tuple[str, ...]
    samples: Samples
    images: pd.DataFrame


def prepare(config: Config) -> ResolvedStudy:
    """Check a sweep. Raises `UserError` for what is wrong with it."""
    models = model_configs(config)
    conditions = resolve_conditions(config)
    pairing = pair_entrants(models, config.defenses)
    probe(conditions, input_sizes(models), pairing.defenses(), differentiable=config.sensitivity.enabled)
    predictors = resolve_predictors(config)
    try:
        samples = load_samples(config)
    except UserError as error:
        if config.study is None:
            raise
        others = f"leave the study '{config.study}' out with only=[…], or give it another with studies.{config.study}"
        raise UserError(f"{error} ({others}.dataset=<name>)") from None
    images = limited(samples.split("test"), config.limit)
    if images.empty:
        raise UserError(f"dataset '{samples.name}' has no test images: check its lists, or its train and test folders")
    return ResolvedStudy(config, models, conditions, pairing, predictors, samples, images)


def objective_conditions(config: Config) -> tuple[Condition, ...]:
    """What a search judges by, with one trial of each."""
    return resolve_conditions(dataclasses.replace(config, degradations=config.search.degradations, trials=1))


def resolve_conditions(config: Config) -> tuple[Condition, ...]:
    """The config's degradations with their levels and trials checked. Raises `UserError`."""
    resolved: dict[str, Condition] = {}
    for entry in condition_configs(config):
        for degradation in parse_degradations(entry.expression):
            name = degradation.name
            if name in resolved:
                raise UserError(f"degradations names '{name}' twice: put all its levels into one entry")
            trials = entry.trials if degradation.random else 1
            resolved[name] = Condition(name, degradation.resolve_levels(entry.levels), trials)
    return tuple(resolved.values())


def resolve_predictors(config: Config) -> tuple[str, ...]:
    """Canonical names of `sensitivity.predictors`, each once. Raises `UserError`."""
    return tuple(dict.fromkeys(parse_predictor(text).name for text in config.sensitivity.predictors))


def input_sizes(models: list[ModelConfig]) -> set[int]:
    """The sides of the inputs that the models will see."""
    sizes = set()
    for model in models:
        source, architecture = split_name(model.name)
        sizes.add(model.input_size or source.describe(architecture).input_size)
    return sizes


def load_samples(config: Config) -> Samples:
    """The dataset of the config."""
    # Absolute: workers elsewhere have another working folder.
    root = storage_path(config.dataset.root).absolute() if config.dataset.root else None
    data_root = storage_path(config.data_root).absolute() if config.data_root else None
    return dataset_room.load(config.dataset.name, root, data_root, config.dataset.options)


def limited(table: pd.DataFrame, limit: int | None) -> pd.DataFrame:
    """`limit` rows chosen by the hash of their id (a smaller limit's are among a larger one's), in table order."""
    if limit is None or limit >= len(table):
        return table
    rank = hash_rank(table["image_id"])
    return table[rank.isin(sorted(rank)[:limit])].reset_index(drop=True)


def protocol_hash(config: Config, samples: Samples) -> str:
    """Of all that decides what a prediction means and the written protocol leaves open."""
    open_points = {
        "version": PROTOCOL_VERSION,
        "seed": config.seed,
        "quantize": config.quantize,
        "precision": config.precision,
        "input_size": config.input_size,
        "dataset": samples.name,
        "samples": samples.fingerprint(),
        "split": "test",
    }
    return hashlib.sha256(json.dumps(open_points, sort_keys=True).encode()).hexdigest()[:16]
