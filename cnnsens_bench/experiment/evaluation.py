"""Decides how networks meet a data set: which are fine-tuned, what they see of an image, which images are tested."""

import dataclasses
from collections.abc import Iterable, Mapping

from cnnsens_bench.config.schema import Config
from cnnsens_bench.datasets import Samples
from cnnsens_bench.experiment.resolve import ModelConfig
from cnnsens_bench.models import Checkpoint, split_name
from cnnsens_bench.models.base import BOX, PUBLISHED, preprocessing_of
from cnnsens_bench.models.classes import ClassMatch, describe_matches, match_classes
from cnnsens_bench.models.loading import head_of
from cnnsens_bench.models.weights import starting_weights
from cnnsens_bench.utils.errors import UserError


def settle_training(config: Config, models: list[ModelConfig], samples: Samples) -> list[ModelConfig]:
    """Return the models with no epochs where they are evaluated as they are.

    Raises
    ------
    UserError
        With `fine_tune=never`, for a published network whose outputs do not match the classes.
    """
    if config.fine_tune == "always":
        return models
    settled = []
    for model in models:
        as_it_is = config.fine_tune == "never" or _matches(model, samples)
        recipe = dataclasses.replace(model.recipe, epochs=0) if as_it_is else model.recipe
        if as_it_is and model.weights == "auto":
            _match(model, samples)
        settled.append(dataclasses.replace(model, recipe=recipe))
    return settled


def _matches(model: ModelConfig, samples: Samples) -> bool:
    if model.weights == "random":
        return False
    try:
        _match(model, samples)
    except UserError:
        return False
    return True


def _match(model: ModelConfig, samples: Samples) -> ClassMatch | None:
    """Return how the outputs of a model's weights match the classes, None where they are not known before it is built."""
    source, architecture = split_name(model.name)
    head = source.outputs(architecture)
    if model.weights == "auto":
        if head is None:
            raise UserError(f"nothing is known of the outputs of '{model.name}'")
        return match_classes(model.name, head, samples.classes)
    start = starting_weights(model.name, model.weights)
    assert start.state is not None
    size = preprocessing_of(model.name, model.input_size).input_size
    return match_classes(model.name, head_of(model.name, start.state, size, start.classes), samples.classes)


def settle_view(config: Config, models: Iterable[ModelConfig], samples: Samples) -> str:
    """Return `box` or `published`: what `view=auto` means for these models and images."""
    if config.view != "auto":
        return config.view
    boxes = bool(samples.table["box_w"].notna().any())
    return BOX if boxes or any(model.recipe.epochs for model in models) else PUBLISHED


def settle_split(samples: Samples, trainings: Iterable[ModelConfig]) -> Samples:
    """Return the samples with all images as test images, where nothing is trained and the data set has no split."""
    if samples.has_split or any(model.recipe.epochs for model in trainings):
        return samples
    return dataclasses.replace(samples, table=samples.table.assign(split="test"), has_split=True)


def evaluation_sentence(
    config: Config, samples: Samples, tested: int, checkpoints: Mapping[str, Checkpoint], trained: Iterable[str]
) -> str:
    """Say in one line how images are viewed, which are tested, and how classes are matched.

    Parameters
    ----------
    config
        The config, with its view settled.
    samples
        The data set.
    tested
        The number of images that are evaluated.
    checkpoints
        The networks, by their keys.
    trained
        The keys of those that are fine-tuned.
    """
    views = {checkpoint.preprocessing.view for checkpoint in checkpoints.values()}
    sizes = sorted({checkpoint.preprocessing.input_size for checkpoint in checkpoints.values()})
    pixels = " or ".join(map(str, sizes)) if len(sizes) < 4 else f"{sizes[0]} to {sizes[-1]}"
    if config.view == BOX:
        boxes = "its box" if samples.table["box_w"].notna().any() else "the whole image"
        view = f"{boxes}, squashed to {pixels} px"
    else:
        [one, *others] = views
        view = "as each network's library does" if others or one is None else one.describe()
    total = len(samples.table)
    trained = list(trained)
    reason = "" if trained else ", and nothing is trained"
    which = "all images" if tested == total else f"{tested} of {total} images"
    matches = [(key, c.match) for key, c in checkpoints.items() if c.match]
    classes = [describe_matches(matches, len(samples.classes))] if matches else []
    if trained:
        who = trained[0] if len(trained) == 1 else f"{len(trained)} networks"
        classes.append(f"{who} fine-tuned on the {len(samples.classes)} classes")
    return f"view: {view}; tested: {which}{reason}; classes: {'; '.join(classes) or 'of random weights'}"
