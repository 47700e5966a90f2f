"""A study before anything is computed: its config resolved and checked, its samples loaded, its protocol hashed."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cnnsens_bench.config.schema import Config
from cnnsens_bench.config.sections import DatasetConfig
from cnnsens_bench.datasets import Samples, load
from cnnsens_bench.datasets.sample_table import ImageSelection
from cnnsens_bench.degradations import Degradation, parse_degradations
from cnnsens_bench.degradations.expressions import NO_VARIANTS
from cnnsens_bench.engine.dry_run import probe
from cnnsens_bench.engine.frost import require_photographs
from cnnsens_bench.engine.sweep import CalibrationImage, Condition, Sweep
from cnnsens_bench.experiment.camera_mix import camera_notes
from cnnsens_bench.experiment.compiling import require_compilation
from cnnsens_bench.experiment.entrants import Pairing, pair_entrants
from cnnsens_bench.experiment.evaluation import settle_split, settle_training, settle_view
from cnnsens_bench.experiment.resolve import ModelConfig, RunSettings, read_conditions, resolve_models, resolve_settings
from cnnsens_bench.experiment.rounds import require_rounds
from cnnsens_bench.experiment.stored_pictures import SettledPictures, check_pictures, settle_pictures, without_data
from cnnsens_bench.images import forget_files
from cnnsens_bench.images.stored import StoredSet
from cnnsens_bench.models import split_name
from cnnsens_bench.models.classes import ClassMatch
from cnnsens_bench.models.preprocessing import PUBLISHED
from cnnsens_bench.sensitivity.predictors import parse_predictor
from cnnsens_bench.utils.config_keys import ADDED_KEYS
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.storage import storage_path

PROTOCOL_VERSION = 2
"""Raised when crop, resize, a degradation or its draws change their meaning."""


@dataclasses.dataclass(frozen=True)
class ResolvedStudy:
    """One sweep that is known to be possible: all that can be checked before anything is computed is checked.

    `matches` has the match of outputs and classes of each model that is evaluated as it is, by its name.
    `images` are the test images that are evaluated. `objective` holds the conditions that
    recipes are searched by, None where the given ones are taken. `config` is what the study was resolved from. `stored`
    are the pre-made pictures that its conditions show, and `notes` what a run says of them.
    """

    config: Config
    settings: RunSettings
    models: list[ModelConfig]
    matches: dict[str, ClassMatch]
    conditions: tuple[Condition, ...]
    pairing: Pairing
    predictors: tuple[str, ...]
    objective: tuple[Condition, ...] | None
    samples: Samples
    images: ImageSelection
    protocol: str
    stored: StoredSet | None = None
    notes: tuple[str, ...] = ()

    def sweep(self, calibration: tuple[CalibrationImage, ...] = ()) -> Sweep:
        """Return what the engine is asked to evaluate; `calibration` is what recalibrated networks see before."""
        evaluates = "seed", "quantize", "precision", "batch_size", "plugins", "frost", "stored_quality", "compile"
        shared = ("run_id", "budget", *evaluates)
        return Sweep(
            dataset=self.samples.name,
            entrants=self.pairing.entrants,
            conditions=self.conditions,
            mask_range=self.samples.mask_range,
            calibration=calibration,
            sensitivity=self.config.sensitivity.enabled,
            predictors=self.predictors,
            whole_images=self.settings.view == PUBLISHED,
            stored=self.stored,
            **{key: getattr(self.settings, key) for key in shared},
        )


def prepare(config: Config, samples: Samples | None = None) -> ResolvedStudy:
    """Resolve and check one study. Its plugins must be loaded.

    Parameters
    ----------
    config
        The configuration of the study.
    samples
        The data set, in place of the one that the configuration names.

    Raises
    ------
    UserError
        For anything in the request that is wrong.
    """
    models, pictures, given = resolve_models(config), settle_pictures(config), config.degradations
    config = pictures.config
    conditions = resolve_conditions(config.degradations, config.trials, pictures.variants)
    for model in models:
        split_name(model.name)  # an unknown name is said before a data set is read
    samples = require_classes(samples) if samples else _load_samples(pictures)
    models, matches = settle_training(config, models, samples)
    config = dataclasses.replace(config, view=settle_view(config, models, samples))
    settings = resolve_settings(config)
    require_compilation(settings)
    pairing = pair_entrants(models, config.defenses)
    require_rounds(config.until, pairing.entrants, conditions)
    samples = settle_split(samples, pairing.trainings.values())
    check_pictures(pictures.stored, conditions, samples)
    sizes = input_sizes(models, config.view)
    probe(conditions, sizes, pairing.defenses(), gradients=config.sensitivity.enabled, frost=config.frost)
    predictors = tuple(dict.fromkeys(parse_predictor(text).name for text in config.sensitivity.predictors))
    objective = resolve_conditions(config.search.degradations, trials=1) if config.recipe == "search" else None
    require_photographs(config.frost, [condition.degradation for condition in objective or ()])
    check_pictures(None, objective or (), samples)
    images = samples.select("test").limited(config.limit)
    if not len(images):
        raise UserError(f"dataset '{samples.name}' has no test images: check its lists, or its train and test folders")
    protocol = protocol_hash(settings, samples)
    return ResolvedStudy(
        config, settings, models, matches, conditions, pairing, predictors, objective, samples, images, protocol,
        pictures.stored, (*pictures.notes, *camera_notes(given, sizes)),
    )  # fmt: skip


def _load_samples(pictures: SettledPictures) -> Samples:
    config = pictures.config
    try:
        return load_samples(config.dataset, config.data_root)
    except UserError as error:
        if config.study is None:
            raise without_data(error, pictures) from None
        others = f"leave the study '{config.study}' out with only=[…], or give it another with studies.{config.study}"
        raise UserError(f"{error} ({others}.dataset=<name>)") from None


def resolve_conditions(
    degradations: list[Any], trials: int, variants: Mapping[str, Degradation] = NO_VARIANTS
) -> tuple[Condition, ...]:
    """Return the degradations that a config lists, with levels and trials checked.

    Parameters
    ----------
    degradations
        Entries as the key `degradations` takes them; a name with a `*` stands for all that match it.
    trials
        The trials of random degradations that have none of their own; the others have one.
    variants
        As `parse_degradations` takes them.

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
    for condition in read_conditions(degradations, trials):
        for degradation in parse_degradations(condition.expression, variants):
            name = degradation.name
            if name in resolved:
                raise UserError(f"degradations names '{name}' twice: put all its levels into one entry")
            levels = degradation.resolve_levels(condition.levels)
            resolved[name] = Condition(name, levels, condition.trials if degradation.random else 1)
    return tuple(resolved.values())


def input_sizes(models: list[ModelConfig], view: str) -> set[int]:
    """Return the sides, in pixels, of the inputs that the models will see."""
    return {model.preprocessing(view).input_size for model in models}


def load_samples(dataset: DatasetConfig, data_root: str | None) -> Samples:
    """Return the samples of a data set. Raise `UserError` where it cannot be loaded, or has one class only."""
    # The paths are made absolute because workers elsewhere have another working folder.
    root = storage_path(dataset.root).absolute() if dataset.root else None
    above = storage_path(data_root).absolute() if data_root else None
    forget_files()
    return require_classes(load(dataset.name, root, above, dataset.options))


def require_classes(samples: Samples) -> Samples:
    """Return the samples once they are known to have two classes or more. Raise `UserError` otherwise."""
    if len(samples.classes) < 2:
        raise UserError(
            f"dataset '{samples.name}' has one class only, '{samples.classes[0]}', and no other label to change to: "
            "add images of a second class, or take another dataset=<name>"
        )
    return samples


def protocol_hash(settings: RunSettings, samples: Samples) -> str:
    """Return 16 hexadecimal digits that stand for all that decides what a prediction means.

    Predictions with equal hashes can be compared, and one run goes on with those of another.
    """
    open_points = {key: getattr(settings, key) for key in ("seed", "quantize", "precision", "input_size")}
    added = {key: getattr(settings, key) for key in ("view", "frost", "stored_quality", "compile")}
    open_points |= {key: value for key, value in added.items() if value != ADDED_KEYS[key]}
    open_points |= {"version": PROTOCOL_VERSION, "dataset": samples.name, "split": "test"}
    open_points["samples"] = samples.fingerprint()
    return hashlib.sha256(json.dumps(open_points, sort_keys=True).encode()).hexdigest()[:16]
