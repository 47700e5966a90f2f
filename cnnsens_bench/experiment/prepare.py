"""A study before anything is computed: its config resolved and checked, its samples loaded, its protocol hashed."""

import dataclasses
import hashlib
import json
from typing import Any

import pandas as pd

from cnnsens_bench import datasets as dataset_room
from cnnsens_bench.config.schema import Config
from cnnsens_bench.config.sections import DatasetConfig
from cnnsens_bench.datasets import Samples
from cnnsens_bench.degradations import parse_degradations
from cnnsens_bench.engine.dry_run import probe
from cnnsens_bench.engine.plan import CalibrationImage, Condition, Sweep
from cnnsens_bench.experiment.entrants import Pairing, hash_rank, pair_entrants
from cnnsens_bench.experiment.resolve import (
    ModelConfig,
    RunSettings,
    condition_configs,
    resolve_models,
    resolve_settings,
)
from cnnsens_bench.models import split_name
from cnnsens_bench.sensitivity.predictors import parse_predictor
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.storage import storage_path

PROTOCOL_VERSION = 2
"""Raised when crop, resize, a degradation or its draws change their meaning."""


@dataclasses.dataclass(frozen=True)
class ResolvedStudy:
    """One sweep that is known to be possible: all that can be checked before anything is computed is checked.

    `images` are the test images that are evaluated, as rows of `samples.table`. `objective` holds the conditions that
    recipes are searched by, None where the given ones are taken. `config` is what the study was resolved from; it is
    only recorded, in the table `runs` and by MLflow.
    """

    config: Config
    settings: RunSettings
    models: list[ModelConfig]
    defenses: list[str]
    conditions: tuple[Condition, ...]
    pairing: Pairing
    sensitivity: bool
    predictors: tuple[str, ...]
    objective: tuple[Condition, ...] | None
    samples: Samples
    images: pd.DataFrame
    protocol: str

    def sweep(self, calibration: tuple[CalibrationImage, ...] = ()) -> Sweep:
        """Return what the engine is asked to evaluate; `calibration` is what recalibrated networks see before."""
        settings = self.settings
        return Sweep(
            run_id=settings.run_id,
            dataset=self.samples.name,
            entrants=self.pairing.entrants,
            conditions=self.conditions,
            seed=settings.seed,
            quantize=settings.quantize,
            precision=settings.precision,
            batch_size=settings.batch_size,
            mask_range=self.samples.mask_range,
            plugins=settings.plugins,
            calibration=calibration,
            sensitivity=self.sensitivity,
            predictors=self.predictors,
        )


def prepare(config: Config) -> ResolvedStudy:
    """Resolve and check one study. Its plugins must be loaded.

    Raises
    ------
    UserError
        For anything in the request that is wrong.
    """
    settings, models = resolve_settings(config), resolve_models(config)
    conditions = resolve_conditions(config.degradations, config.trials)
    pairing = pair_entrants(models, config.defenses)
    probe(conditions, input_sizes(models), pairing.defenses(), gradients=config.sensitivity.enabled)
    predictors = resolve_predictors(config.sensitivity.predictors)
    objective = resolve_conditions(config.search.degradations, trials=1) if config.recipe == "search" else None
    try:
        samples = load_samples(config.dataset, config.data_root)
    except UserError as error:
        if config.study is None:
            raise
        others = f"leave the study '{config.study}' out with only=[…], or give it another with studies.{config.study}"
        raise UserError(f"{error} ({others}.dataset=<name>)") from None
    images = limited(samples.split("test"), config.limit)
    if images.empty:
        raise UserError(f"dataset '{samples.name}' has no test images: check its lists, or its train and test folders")
    return ResolvedStudy(
        config=config,
        settings=settings,
        models=models,
        defenses=config.defenses,
        conditions=conditions,
        pairing=pairing,
        sensitivity=config.sensitivity.enabled,
        predictors=predictors,
        objective=objective,
        samples=samples,
        images=images,
        protocol=protocol_hash(settings, samples),
    )


def resolve_conditions(degradations: list[Any], trials: int) -> tuple[Condition, ...]:
    """Return the degradations that a config lists, with levels and trials checked.

    Parameters
    ----------
    degradations
        Entries as the key `degradations` takes them; a name with a `*` stands for all that match it.
    trials
        The trials of random degradations that have none of their own; the others have one.

    Raises
    ------
    UserError
        For an entry that cannot be read, a level out of range, or a degradation that is named twice.

    Examples
    --------
    >>> [flip, pepper] = resolve_conditions(["flip_lr", {"name": "pepper", "levels": [0.02, 0.04]}], trials=10)
    >>> (flip.levels, flip.trials), (pepper.levels, pepper.trials)
    (((0.0,), 1), ((0.02, 0.04), 10))
    """
    resolved: dict[str, Condition] = {}
    for condition in condition_configs(degradations, trials):
        for degradation in parse_degradations(condition.expression):
            name = degradation.name
            if name in resolved:
                raise UserError(f"degradations names '{name}' twice: put all its levels into one entry")
            resolved[name] = Condition(
                name, degradation.resolve_levels(condition.levels), condition.trials if degradation.random else 1
            )
    return tuple(resolved.values())


def resolve_predictors(predictors: list[str]) -> tuple[str, ...]:
    """Return the canonical names of predictors, each once. Raise `UserError` for one that is unknown."""
    return tuple(dict.fromkeys(parse_predictor(text).name for text in predictors))


def input_sizes(models: list[ModelConfig]) -> set[int]:
    """Return the sides, in pixels, of the inputs that the models will see."""
    sizes = set()
    for model in models:
        source, architecture = split_name(model.name)
        sizes.add(model.input_size or source.describe(architecture).input_size)
    return sizes


def load_samples(dataset: DatasetConfig, data_root: str | None) -> Samples:
    """Return the samples of a data set. Raise `UserError` where it cannot be loaded, or has one class only."""
    # The paths are made absolute because workers elsewhere have another working folder.
    root = storage_path(dataset.root).absolute() if dataset.root else None
    above = storage_path(data_root).absolute() if data_root else None
    samples = dataset_room.load(dataset.name, root, above, dataset.options)
    if len(samples.classes) < 2:
        raise UserError(
            f"dataset '{samples.name}' has one class only, '{samples.classes[0]}', and no other label to change to: "
            "add images of a second class, or take another dataset=<name>"
        )
    return samples


def limited(table: pd.DataFrame, limit: int | None) -> pd.DataFrame:
    """Return `limit` rows in the table's order, chosen by the hash of their ids; None takes all.

    The rows of a smaller limit are among those of a larger one.
    """
    if limit is None or limit >= len(table):
        return table
    rank = hash_rank(table["image_id"])
    return table[rank.isin(sorted(rank)[:limit])].reset_index(drop=True)


def protocol_hash(settings: RunSettings, samples: Samples) -> str:
    """Return 16 hexadecimal digits that stand for all that decides what a prediction means.

    Predictions with equal hashes can be compared, and one run goes on with those of another.
    """
    open_points = {
        "version": PROTOCOL_VERSION,
        "seed": settings.seed,
        "quantize": settings.quantize,
        "precision": settings.precision,
        "input_size": settings.input_size,
        "dataset": samples.name,
        "samples": samples.fingerprint(),
        "split": "test",
    }
    return hashlib.sha256(json.dumps(open_points, sort_keys=True).encode()).hexdigest()[:16]
