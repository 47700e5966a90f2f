"""Pairs models with defenses, and lists the checkpoints that these pairs need and the images that recalibrate them."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cnnsens_bench.datasets import Samples
from cnnsens_bench.datasets.sample_table import ImageSelection
from cnnsens_bench.defenses import Defense, parse_defense
from cnnsens_bench.defenses.recalibration import batch_norm_layers
from cnnsens_bench.degradations import Reach
from cnnsens_bench.engine.sweep import CalibrationImage, Entrant
from cnnsens_bench.experiment.resolve import ModelConfig
from cnnsens_bench.images import decode_row
from cnnsens_bench.models import split_name
from cnnsens_bench.models.base import UNBUILDABLE, build_network
from cnnsens_bench.models.weights import starting_weights
from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import near

SPARE = 64
"""How many images more than asked for are looked up, since some may be unreadable."""


@dataclasses.dataclass(frozen=True)
class Pairing:
    """The entrants of a sweep and the checkpoints that they need.

    `entrants` are in the order models × defenses. `trainings` has the model to train for each checkpoint, by the key
    that entrants name it with. `left_out` has a sentence for each pair that makes no sense, and for each that is not
    what its name says.
    """

    entrants: tuple[Entrant, ...]
    trainings: dict[str, ModelConfig]
    left_out: tuple[str, ...]

    def defenses(self) -> list[Defense]:
        """Return the defense of each entrant."""
        return [parse_defense(entrant.defense) for entrant in self.entrants]


def pair_entrants(models: Sequence[ModelConfig], defenses: Sequence[str]) -> Pairing:
    """Pair every model with every defense, and list the checkpoints that these pairs need.

    Test-time defenses share the plain checkpoint; trained ones have their own. A network without batch norm is left out
    of its recalibration.

    Parameters
    ----------
    models
        The models, each with the recipe that it is trained by.
    defenses
        The defenses as the config writes them.

    Raises
    ------
    UserError
        Where no pair is left, a defense is unknown, or a trained defense would not be trained.
    """
    parsed = list({d.name: d for d in map(parse_defense, defenses)}.values())
    entrants: list[Entrant] = []
    trainings: dict[str, ModelConfig] = {}
    left_out: list[str] = []
    for model in models:
        source, architecture = split_name(model.name)
        no_batch_norm = any(d.recalibration for d in parsed) and not has_batch_norm(model)
        for defense in parsed:
            if defense.recalibration and no_batch_norm:
                left_out.append(f"'{model.name}' has no batch norm: it is left out of {defense.name}")
                continue
            key, training = _training(model, defense)
            trainings[key] = training
            entrants.append(Entrant(model.name, architecture, defense.name, key, gradients=source.trainable))
    if not entrants:
        raise UserError(f"{left_out[0]}, and nothing else is asked for: add 'none' to defenses, or another model")
    left_out += [
        f"note: '{model.name}' is trained with {key}={getattr(model.recipe, key):g} under every defense, "
        f"'none' too: its recipe says so"
        for model in models
        for key in ("input_dropout", "input_noise")
        if getattr(model.recipe, key)
    ]
    return Pairing(tuple(entrants), trainings, tuple(left_out))


def _training(model: ModelConfig, defense: Defense) -> tuple[str, ModelConfig]:
    """Return the key of the checkpoint that a model needs under a defense, and how it is trained."""
    known = [field.name for field in dataclasses.fields(Recipe)]
    for key in defense.training:
        if key not in known:
            raise UserError(f"defense '{defense.name}' changes training.{key}, which is no key{near(key, known)}")
    recipe = dataclasses.replace(model.recipe, **defense.training)
    if recipe == model.recipe:
        return model.name, model
    recipe.check()
    if not recipe.epochs:
        way = "raise it, or leave the defense out"
        if not split_name(model.name)[0].trainable:
            way = "it cannot be fine-tuned, so leave the defense out"
        raise UserError(f"defense '{defense.name}' is trained, but training.epochs of '{model.name}' is 0: {way}")
    changes = ", ".join(f"{key}={value!r}" for key, value in sorted(defense.training.items()))
    return f"{model.name} ({changes})", dataclasses.replace(model, recipe=recipe)


def same_training(defense: str, other: str) -> bool:
    """Return whether networks under two defenses have the same weights.

    A defense that is not registered, such as one of a plugin that is gone, shares weights with none but itself.
    """
    try:
        return defense == other or parse_defense(defense).training == parse_defense(other).training
    except UserError:
        return False


def has_batch_norm(model: ModelConfig) -> bool:
    """Return whether a model has batch-norm statistics to recalibrate.

    A network that cannot be built is taken for one that has them: what is wrong with it is said when it is trained.
    """
    source, architecture = split_name(model.name)
    size = model.preprocessing().input_size
    try:
        if source.restore and model.weights != "random":
            state = starting_weights(model.name, model.weights).state
            network = build_network(model.name, 2, size, state)
        else:
            network = source.build(architecture, 2, size)
    except UNBUILDABLE:
        return True
    return bool(batch_norm_layers(network))


def calibration_images(samples: Samples, pairing: Pairing) -> tuple[CalibrationImage, ...]:
    """Return the test images that recalibration sees: as many as the entrants ask for, by the hash of their ids.

    They come from the whole split, so that the limit of a run changes no prediction. Images that cannot be read are
    passed over.
    """
    count = max((d.recalibration.images for d in pairing.defenses() if d.recalibration), default=0)
    if count:
        ranked = _ranked(samples.select("test"), count)
        readable = (row for row in ranked if not isinstance(decode_row(row, Reach()), str))
        return tuple(CalibrationImage(**row) for row in itertools.islice(readable, count))
    return ()


def _ranked(images: ImageSelection, count: int) -> Iterator[dict[str, Any]]:
    """Yield images by the hash of their ids; `count` and a few more are looked up at once, more if they are needed."""
    keys = [field.name for field in dataclasses.fields(CalibrationImage)]
    done = 0
    while done < len(images):
        count = 2 * count + SPARE
        ranked = images.first_by_hash(count)
        rows = images.at(ranked[done:]).set_index(np.sort(ranked[done:])).loc[ranked[done:], keys]
        yield from ({str(key): value for key, value in row.items()} for row in rows.to_dict("records"))
        done = len(ranked)
