"""Decides how networks meet a data set: which are fine-tuned, what they see of an image, which images are tested."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping

from cnnsens_bench.config.schema import Config
from cnnsens_bench.datasets import Samples
from cnnsens_bench.defenses import parse_defense
from cnnsens_bench.engine.sweep import Entrant
from cnnsens_bench.experiment.resolve import ModelConfig
from cnnsens_bench.models import Checkpoint, split_name
from cnnsens_bench.models.base import PYTHON, location_of
from cnnsens_bench.models.classes import ClassMatch, describe_matches, match_classes
from cnnsens_bench.models.loading import head_of
from cnnsens_bench.models.preprocessing import BOX, PUBLISHED
from cnnsens_bench.models.weights import starting_weights
from cnnsens_bench.sensitivity.predictors import parse_predictor
from cnnsens_bench.utils.errors import UserError


def settle_training(
    config: Config, models: Iterable[ModelConfig], samples: Samples
) -> tuple[list[ModelConfig], dict[str, ClassMatch]]:
    """Decide which models are fine-tuned, and match the outputs of the others with the classes.

    Parameters
    ----------
    config
        The config. `fine_tune=auto` takes the weights of a model as they are where their outputs match the classes.
    models
        The models, each with the recipe of the config.
    samples
        The data set.

    Returns
    -------
    tuple
        The models, without epochs where their weights are taken as they are; and for each of these the match of its
        outputs, by the model's name. Random weights have none.

    Raises
    ------
    UserError
        If outputs do not match the classes of weights that must be taken as they are, or something is asked for that
        needs a fine-tuning that does not happen.
    """
    models = list(models)
    fixed = [model for model in models if not _trainable(model, samples)]
    require_trainable((m for m in fixed if config.fine_tune == "always" or config.recipe == "search"), samples)
    settled, matches = [], {}
    for model in models:
        unchanged = config.fine_tune == "never" or not model.recipe.epochs or model in fixed
        if model.weights != "random" and (unchanged or config.fine_tune == "auto"):
            try:
                matches[model.name] = _match(model, samples)
            except UserError:
                if unchanged:
                    raise
        if config.fine_tune == "never" or (model.recipe.epochs and model.name in matches):
            _check_untrained(config, model)
            model = dataclasses.replace(model, recipe=dataclasses.replace(model.recipe, epochs=0))
        settled.append(model)
    return settled, matches


def require_trainable(models: Iterable[ModelConfig], samples: Samples) -> None:
    """Raise `UserError` for the first model that has epochs of training and cannot be trained."""
    for model in models:
        if model.recipe.epochs and not _trainable(model, samples):
            source, architecture = split_name(model.name)
            source.require_trainable(architecture, len(samples.classes))
            raise UserError(
                f"'{model.name}' cannot be fine-tuned: evaluate it as it is, with fine_tune=never (or auto, which "
                "fine-tunes other networks where needed), and without a search of recipes"
            )


def _trainable(model: ModelConfig, samples: Samples) -> bool:
    source, architecture = split_name(model.name)
    try:
        source.require_trainable(architecture, len(samples.classes))
    except UserError:
        return False
    return source.trainable


def _match(model: ModelConfig, samples: Samples) -> ClassMatch:
    """Return how the outputs of a model's weights match the classes."""
    source, location = location_of(model.name, model.weights)
    given = model.weights == "auto" or source.restore is not None
    head = source.outputs(location) if given and not model.outputs else None
    if head is None:
        start = starting_weights(model.name, model.weights)
        assert start.state is not None  # only random weights have none
        head = head_of(
            model.name, start.state, model.preprocessing().input_size, start.classes, model.weights, model.outputs
        )
    return match_classes(model.name, head, samples.classes)


def _check_untrained(config: Config, model: ModelConfig) -> None:
    """Raise `UserError` where something is asked for that needs this model to be fine-tuned."""
    if config.fine_tune == "never":
        reason = "fine_tune=never trains nothing"
    else:
        reason = "fine_tune=auto takes its weights as they are, since its outputs match the classes"
    trained = [defense.name for defense in map(parse_defense, config.defenses) if defense.training]
    if config.fine_tune == "never" and model.weights == "random":
        raise UserError(
            f"'{model.name}' has weights=random, and {reason}: leave one of the two out, or its labels mean nothing"
        )
    if trained:
        raise UserError(
            f"defense '{trained[0]}' is trained, but '{model.name}' is not ({reason}): set fine_tune=always, or leave "
            "the defense out"
        )
    if config.recipe == "search":
        raise UserError(
            f"recipe=search needs networks that are fine-tuned, but '{model.name}' is not ({reason}): set "
            "fine_tune=always, or leave recipe= out"
        )


def mismatches(config: Config, trainings: Collection[ModelConfig], samples: Samples) -> list[str]:
    """Say for each network that `fine_tune=auto` has fine-tuned why its outputs do not match the classes.

    A class folder whose case or spelling is wrong would otherwise cost a training without a word of it.
    """
    reasons = {}
    for model in trainings if config.fine_tune == "auto" else ():
        if model.recipe.epochs and model.weights != "random" and model.name not in reasons:
            try:
                _match(model, samples)
            except UserError as error:
                reasons[model.name] = f"{model.name} is not taken as it is: {error}"
    return list(reasons.values())


def settle_view(config: Config, models: Iterable[ModelConfig], samples: Samples) -> str:
    """Return `box` or `published`: what `view=auto` means for these models and images."""
    if config.view != "auto":
        return config.view
    return BOX if samples.rows.has_boxes or any(model.recipe.epochs for model in models) else PUBLISHED


def settle_split(samples: Samples, trainings: Iterable[ModelConfig]) -> Samples:
    """Return the samples with all images as test images, where nothing is trained and the data set has no split."""
    if samples.has_split or any(model.recipe.epochs for model in trainings):
        return samples
    return samples.all_test()


def without_gradients(
    entrants: tuple[Entrant, ...], checkpoints: Mapping[str, Checkpoint], predictors: Iterable[str]
) -> tuple[tuple[Entrant, ...], list[str]]:
    """Mark the entrants whose network gives no gradients, and say in a sentence which of their scores are left out.

    Parameters
    ----------
    entrants
        The entrants of a sweep that scores images.
    checkpoints
        Their networks, by their keys.
    predictors
        The names of the sweep's predictors.
    """
    gradients = {key: checkpoints[key].classifier().gives_gradients() for key in {e.checkpoint for e in entrants}}
    entrants = tuple(dataclasses.replace(entrant, gradients=gradients[entrant.checkpoint]) for entrant in entrants)
    models = list(dict.fromkeys(entrant.model for entrant in entrants if not entrant.gradients))
    if not models:
        return entrants, []
    left_out = [name for name in predictors if parse_predictor(name).gradients]
    kept = [name for name in predictors if name not in left_out]
    scores = " and ".join(["the score of gradients", *left_out])
    way = "" if kept else " (sampling and cubature, among sensitivity.predictors, need none)"
    return entrants, [f"{' and '.join(models)} without gradients: {scores} left out{way}"]


def evaluation_sentence(
    config: Config,
    samples: Samples,
    tested: int,
    trainings: Collection[ModelConfig],
    matches: Mapping[str, ClassMatch],
) -> str:
    """Say in one line how images are viewed, which are tested, and how outputs are matched with classes.

    Parameters
    ----------
    config
        The config, with its view settled.
    samples
        The data set, with its split settled.
    tested
        The number of images that are evaluated.
    trainings
        The model of each checkpoint.
    matches
        How the outputs of models that are not trained are matched, by their names.
    """
    parts = {
        "view": _view(config.view, samples, trainings),
        "tested": _tested(config.limit, samples, tested, trainings),
        "classes": _classes(config.fine_tune, samples, trainings, matches),
    }
    return "; ".join(f"{key}: {text}" for key, text in parts.items())


def _view(view: str, samples: Samples, models: Collection[ModelConfig]) -> str:
    """Say what networks see of an image."""
    seen = [model.preprocessing(view) for model in models]
    sizes = sorted({preprocessing.input_size for preprocessing in seen})
    pixels = " or ".join(map(str, sizes)) if len(sizes) < 4 else f"{sizes[0]} to {sizes[-1]}"
    if view == BOX:
        part = "each image's box" if samples.rows.has_boxes else "the whole image"
        return f"{part}, resized to a square of {pixels} px whatever its aspect"
    rules = {preprocessing.view.describe() for preprocessing in seen if preprocessing.view}
    known = all(_has_library_view(model) for model in models)
    if len(rules) == 1:
        return rules.pop() + (" (its library's own transform)" if known else "")
    whose = "network's library" if known else "network"
    return f"the own transform of each {whose}, {pixels} px"


def _has_library_view(model: ModelConfig) -> bool:
    """Return whether the source is a library that says how its networks see images. ONNX and a user's code are none."""
    source, _ = split_name(model.name)
    return source.published is not None and source.name != PYTHON


def _tested(limit: int | None, samples: Samples, tested: int, models: Iterable[ModelConfig]) -> str:
    """Say which images are tested."""
    total, test = len(samples.rows), len(samples.select("test"))
    noun, of = (f"{test} images", "") if test == total else (f"{test} test images", "the ")
    which = f"{tested} of {of}{noun} (limit={limit})" if tested < test else f"{of or 'all '}{noun}"
    if not samples.has_split:
        which += f", chosen from {total} by the hash of their paths"
    return which + ("" if any(model.recipe.epochs for model in models) else ", since nothing is trained")


def _classes(
    fine_tune: str, samples: Samples, trainings: Iterable[ModelConfig], matches: Mapping[str, ClassMatch]
) -> str:
    """Say how the outputs of each network come to stand for the classes."""
    count = len(samples.classes)
    untrained = list(dict.fromkeys(model.name for model in trainings if not model.recipe.epochs))
    trained = list(dict.fromkeys(model.name for model in trainings if model.recipe.epochs))
    matched = [(name, matches[name]) for name in untrained if name in matches]
    random = [name for name in untrained if name not in matches]
    texts = [describe_matches(matched, count)] if matched else []
    if trained:
        random_start = {model.name for model in trainings if model.weights == "random"}
        reason = ", since outputs and classes do not match" if fine_tune == "auto" else ""
        texts.append(
            f"{_names(trained, 'is', 'are')} fine-tuned on the {count} classes"
            + ("" if random_start.issuperset(trained) else reason)
        )
    if random:
        texts.append(f"{_names(random, 'has', 'have')} random weights that nothing trains, so labels mean nothing")
    return "; ".join(texts)


def _names(models: list[str], one: str, several: str) -> str:
    """Return the only model or the number of models, with the verb that fits."""
    return f"{models[0]} {one}" if len(models) == 1 else f"{len(models)} networks {several}"
