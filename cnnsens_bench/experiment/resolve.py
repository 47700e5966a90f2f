"""From a `Config` to typed pieces: its studies, settings, models and conditions. Nothing here needs torch.

`prepare` takes it from there: it loads the data set, and checks what needs it and the networks.
"""

import dataclasses
import math
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnnsens_bench.config.compose import sentence
from cnnsens_bench.config.schema import RECIPES, SIZES, Config, check, size_ok
from cnnsens_bench.config.sections import ClusterConfig, DatasetConfig
from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.training.recipes import read_recipes
from cnnsens_bench.training.space import SearchConfig
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import near
from cnnsens_bench.utils.storage import StoragePath

if TYPE_CHECKING:
    from cnnsens_bench.models.preprocessing import Preprocessing

Section = TypeVar("Section", Config, Recipe)
STUDY_KEYS = (
    "dataset", "models", "weights", "fine_tune", "training", "defenses", "degradations", "trials", "sensitivity",
    "limit",
)  # fmt: skip
"""Keys of the config that a study may have of its own: none that would make its predictions of another protocol."""
MODEL_KEYS = (
    "name", "weights", "input_size", "mean", "std", "resize", "interpolation", "classes", "training"
)  # fmt: skip
"""Keys of an entry of `models`."""
SUBSETS = ("imagenet-1k", "imagenet-12k", "imagenet-22k")
"""What `classes` of an entry can name in place of a file: the outputs are ImageNet's classes, sorted by WordNet id."""
FIRST = "first"
"""A study's key beside them: the number of models that take part, from the front."""
STORAGE = "CNNSENS_STORAGE"
"""Names the folder, seen by all machines, below which the relative outputs of jobs lie."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A network and how it is trained, as one entry of `models` and the top of the config say.

    `weights` is "auto", "random" or a path; `input_size` is in pixels, `train`, `test`, or None for what the view
    prefers. In place of what its source knows stand `given`, values of `GivenInput` by name, and `outputs`, the names
    of its outputs.
    """

    name: str
    weights: str
    input_size: int | str | None
    recipe: Recipe
    given: dict[str, Any] = dataclasses.field(default_factory=dict)
    outputs: tuple[str, ...] = ()

    def preprocessing(self, view: str = "box") -> "Preprocessing":
        """Return what the network expects of its input, for a view (`box` or `published`). Raise `UserError`."""
        from cnnsens_bench.models.base import preprocessing_of
        from cnnsens_bench.models.preprocessing import GivenInput

        return preprocessing_of(self.name, self.input_size, view, GivenInput(**self.given), self.weights)


class ConditionConfig(NamedTuple):
    """One entry of `degradations`: its expression, which `parse_degradations` reads, its levels and its trials.

    Levels are None where the degradation's own are meant.
    """

    expression: str
    levels: tuple[float, ...] | None
    trials: int


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """What all steps of one run share: its names, its folders, how it evaluates, and where it works.

    `title` is what a reader sees of the run; `output_folder` and `cache` say where results and checkpoints lie (see
    `Config`). `seed`, `quantize`, `precision`, `input_size`, `view`, `frost`, `stored_quality` and `compile` belong
    to the protocol.
    """

    run_id: str
    suite: str
    title: str
    output_folder: StoragePath
    cache: str | None
    seed: int
    quantize: bool
    precision: str
    input_size: int | str | None
    view: str
    frost: str
    stored_quality: int | None
    compile: bool
    budget: float
    batch_size: int
    plugins: tuple[str, ...]
    cluster: ClusterConfig
    search: SearchConfig


def resolve_settings(config: Config) -> RunSettings:
    """Return the settings that all steps of a run share."""
    # Each field is a key or a property of the config.
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(RunSettings)}
    return RunSettings(**values | {"plugins": tuple(config.plugins)})


def resolve_output(config: Config) -> Config:
    """Return the config with the output that a Ray job keeps.

    In a job's uploaded folder, which Ray removes, a relative `output` goes below the folder that `CNNSENS_STORAGE`
    names, or the user's home. Elsewhere the config stays as it is.
    """
    output = config.output or f"runs/{config.suite}"
    uploaded = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and "working_dir_files" in Path.cwd().parts
    if not uploaded or Path(output).expanduser().is_absolute() or urlsplit(output).scheme:
        return config
    base = os.environ.get(STORAGE) or str(Path.home())
    return dataclasses.replace(config, output=os.path.normpath(os.path.join(base, output)))


def resolve_studies(config: Config) -> list[Config]:
    """Return the config of each study of a suite, in order; the config itself where the suite is one sweep.

    Raises
    ------
    UserError
        For an unknown study, key or value.
    """
    if not config.studies:
        if config.only:
            raise UserError(f"only names studies, and suite {config.suite} has none: leave it out")
        return [config]
    _check_known(config.only, config.studies, "only: unknown study")
    chosen = config.only or config.studies
    return [_study(config, name, given) for name, given in config.studies.items() if name in chosen]


def _study(config: Config, name: str, given: Any) -> Config:
    key = f"studies.{name}"
    if not isinstance(given, dict):
        raise UserError(f"{key} is {given!r}: it must be a mapping of keys, such as {{dataset: cub200}}")
    _check_known(given, [*STUDY_KEYS, FIRST], f"{key}: unknown key")
    own = {inner: value for inner, value in given.items() if inner != FIRST}
    if isinstance(own.get("dataset"), str):
        own["dataset"] = dataclasses.asdict(DatasetConfig(own["dataset"]))
    base = dataclasses.replace(config, studies={}, only=[], figures=[], study=name)
    study = _merged(base, own, key)
    first = given.get(FIRST)
    if first is not None:
        if not isinstance(first, int) or first < 1:
            raise UserError(f"{key}.first is {first!r}: it must be a number of models, at least 1")
        study.models = study.models[:first]
    check(study)
    return study


def _check_known(names: Iterable[Any], known: Collection[str], subject: str, more: str = "") -> None:
    """Raise `UserError` for the first name that is not known; the sentence begins with `subject`."""
    for name in names:
        if name not in known:
            raise UserError(f"{subject} '{name}'{more}{near(str(name), known)}")


def resolve_models(config: Config) -> list[ModelConfig]:
    """Return the entries of `models`, filled from the top of the config and from a file of recipes.

    Raises
    ------
    UserError
        For an entry that cannot be read, a model that is named twice, or recipes of none of the models.
    """
    if not config.models:
        raise UserError("models is empty: name at least one, such as models=[timm/tf_efficientnet_lite0]")
    tuned = {} if config.recipe in RECIPES else read_recipes(Path(config.recipe))
    models = [_model(entry, config, tuned) for entry in config.models]
    names = [model.name for model in models]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"models names '{name}' twice: run its variants with outputs of their own (output=…)")
    if tuned and not set(tuned) & set(names):
        raise UserError(f"recipe: {config.recipe} has recipes of {', '.join(tuned)}, of none of the models of this run")
    return models


def _model(entry: Any, config: Config, tuned: dict[str, Recipe]) -> ModelConfig:
    given = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise UserError(f"models: {entry!r} is neither a name nor a mapping with a name")
    from cnnsens_bench.models.base import split_path

    [name, path], training = split_path(given["name"]), given.get("training") or {}
    _check_known(given, MODEL_KEYS, "models: unknown key", f" of '{name}'")
    weights = str(path or given.get("weights", config.weights))
    if path and "weights" in given:
        raise UserError(f"models: '{given['name']}' names a path, and weights another: leave one of them out")
    known = [field.name for field in dataclasses.fields(Recipe)]
    for key in training:
        if key not in known:
            raise UserError(f"models: unknown key 'training.{key}' of '{name}'{near(key, known)}")
    merged = _merged(config.training, training, f"models: training of '{name}'")
    recipe = tuned.get(name, merged)
    recipe.check()
    size = given.get("input_size", config.input_size)
    if size is not None and not size_ok(size):
        raise UserError(f"models: input_size of '{name}' is {size!r}: it must be {SIZES}")
    return ModelConfig(name, weights, size, recipe, _given_input(name, given), _output_names(name, given))


def _given_input(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return what an entry of `models` says of its network's input. Raise `UserError`."""
    found: dict[str, Any] = {key: _colours(name, key, given[key]) for key in ("mean", "std") if key in given}
    resize, interpolation = given.get("resize"), given.get("interpolation")
    if resize is not None and (not isinstance(resize, int) or not 16 <= resize <= 8192):
        raise UserError(f"models: resize of '{name}' is {resize!r}: it must be between 16 and 8192 pixels")
    if interpolation is not None:
        from cnnsens_bench.images.published import INTERPOLATIONS

        _check_known([interpolation], INTERPOLATIONS, f"models: interpolation of '{name}' is the unknown")
    said = {"resize": resize, "interpolation": interpolation}
    return found | {key: value for key, value in said.items() if value is not None}


def _output_names(name: str, given: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of outputs that an entry of `models` lists, or those in the file that it names."""
    classes = given.get("classes") or ()
    if not isinstance(classes, str):
        return tuple(map(str, classes))
    if classes in SUBSETS:
        from timm.data import ImageNetInfo

        return tuple(ImageNetInfo(classes).label_names())
    try:
        return tuple(line.strip() for line in Path(classes).expanduser().read_text("utf-8-sig").strip().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise UserError(
            f"models: classes of '{name}' is '{classes}', which cannot be read ({reason}): give a text file with one "
            f"name a line, a list of names, or {' or '.join(SUBSETS)}"
        ) from None


def _colours(name: str, key: str, given: Any) -> tuple[float, float, float]:
    """Return the mean or std of a model as an entry of `models` says it. Raise `UserError`."""
    good = isinstance(given, list | tuple) and len(given) == 3
    good = good and all(isinstance(part, int | float) and not isinstance(part, bool) for part in given)
    if not good or not all(math.isfinite(part) and (key == "mean" or part > 0) for part in given):
        what = "three numbers" if key == "mean" else "three numbers above 0"
        raise UserError(f"models: {key} of '{name}' is {given!r}: it must be {what}, for red, green and blue in [0, 1]")
    red, green, blue = map(float, given)
    if min(red, green, blue) > 1:
        raise UserError(
            f"models: {key} of '{name}' is {given!r}, for pixels in [0, 255]: divide it by 255, for pixels in [0, 1]"
        )
    return red, green, blue


def read_conditions(degradations: list[Any], trials: int) -> list[ConditionConfig]:
    """Return the entries of `degradations`; `trials` is for those without trials of their own. Raise `UserError`."""
    from cnnsens_bench.degradations import write_expression  # imported here because a help text need not wait for torch

    entries = []
    for entry in degradations:
        expression = write_expression(entry)
        given = entry if isinstance(entry, dict) else {}
        name, levels, own = given.get("name", expression), given.get("levels"), given.get("trials", trials)
        if levels is not None and (not isinstance(levels, list) or not levels):
            raise UserError(f"degradations: levels of '{name}' must be a list of numbers, such as [1, 4, 16]")
        if not isinstance(own, int) or own < 1:
            raise UserError(f"degradations: trials of '{name}' is {own!r}: it must be at least 1")
        entries.append(ConditionConfig(expression, tuple(levels) if levels is not None else None, own))
    return entries


def _merged(base: Section, changes: dict[str, Any], subject: str) -> Section:
    """Return a copy of a dataclass with some of its keys changed and checked against its types."""
    try:
        return cast(Section, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(base), changes)))
    except OmegaConfBaseException as error:
        raise UserError(f"{subject}: {sentence(error)}") from None
