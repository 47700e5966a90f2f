"""Fine-tuning of one network, and the cache of checkpoints, named by the hash of everything that shapes them.

The training itself is in `cnnsens_bench.training.trainer`, its images are in `cnnsens_bench.training.data`.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from cnnsens_bench.datasets import Samples
from cnnsens_bench.datasets.sample_table import BOX as BOX_COLUMNS
from cnnsens_bench.datasets.sample_table import COLUMNS
from cnnsens_bench.models.base import architecture_of, build_network, preprocessing_of, split_name
from cnnsens_bench.models.checkpoint import Checkpoint, load_checkpoint
from cnnsens_bench.models.classes import ClassMatch, match_classes
from cnnsens_bench.models.classifier import Classifier
from cnnsens_bench.models.loading import head_of
from cnnsens_bench.models.preprocessing import AS_KNOWN, BOX, PUBLISHED, GivenInput, Preprocessing
from cnnsens_bench.models.weights import fit_weights, load_weights, starting_weights
from cnnsens_bench.training.data import TrainingImages
from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.training.trainer import Report, train_network
from cnnsens_bench.utils.errors import UserError

VERSION = 2
"""A part of every checkpoint's hash. Raise it when this code changes what it trains: older checkpoints then do not
count as made by it."""


@dataclass(frozen=True)
class Trained:
    """A network whose checkpoint is in the cache.

    Attributes
    ----------
    path
        The file of the checkpoint.
    digest
        SHA-256 of the weights.
    cached
        Whether the checkpoint was in the cache before it was asked for.
    failures
        (image_id, sentence) of the training images that could not be read.
    notes
        Sentences about what was chosen, left out or set to 0 in the starting weights.
    """

    path: Path
    digest: str
    cached: bool
    failures: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FineTuning:
    """A fine-tuning that can begin in this process or in another one, which needs nothing but the images.

    Attributes
    ----------
    model
        The network as `<source>/<architecture>`.
    name
        The data set's name.
    classes
        The names of the data set's classes.
    table
        The samples to train on.
    preprocessing
        The network's input size and normalisation.
    state
        The weights to start from, or None for random ones.
    recipe
        How to train.
    seed
        The seed of the random weights, the order of the images, crops, dropout and noise.
    shaped_by
        Everything that decides the resulting weights, as JSON.
    path
        The checkpoint's place in the cache.
    match
        Which outputs of the starting weights are kept, where they are evaluated as they are.
    notes
        Sentences about what was chosen in the file of the starting weights.
    """

    model: str
    name: str
    classes: tuple[str, ...]
    table: pd.DataFrame
    preprocessing: Preprocessing
    state: dict[str, Tensor] | None
    recipe: Recipe
    seed: int
    shaped_by: str
    path: Path
    match: ClassMatch | None = None
    notes: tuple[str, ...] = ()

    def run(self, folder: Path, report: Report | None = None) -> Checkpoint:
        """Train the network and return its checkpoint, which is not in the cache yet.

        Parameters
        ----------
        folder
            The folder of the decoded images, which are removed at the end.
        report
            Called after each step.

        Raises
        ------
        Diverged
            If the loss does not stay finite.
        UserError
            If there are no training images, or the GPU's memory is too small.
        """
        count = self.match.count if self.match else len(self.classes)
        network = starting_network(self.model, count, self.preprocessing, self.state, self.seed)
        failures: list[tuple[str, str]] = []
        if self.recipe.epochs:
            failures = self._train(network, folder, report)
        extra: dict[str, Any] = {"shaped_by": self.shaped_by, "failures": failures}
        source, architecture = split_name(self.model)
        if source.identify:
            extra["computes"] = source.identify(architecture)
        fitted = fit_weights(network, self.state, self.model) if self.state is not None else None
        if notes := [*self.notes, *(fitted.notes() if fitted else ())]:
            extra["notes"] = notes
        return Checkpoint(self.model, self.classes, self.preprocessing, network.state_dict(), extra, self.match)

    def _train(self, network: nn.Module, folder: Path, report: Report | None) -> list[tuple[str, str]]:
        """Train `network` in place; return the images that could not be read."""
        if self.table.empty:
            raise UserError(f"dataset '{self.name}' has no training images: training.epochs=0 evaluates as it is")
        data = TrainingImages(self.table, self.preprocessing.input_size, folder)
        classifier = Classifier(network, self.preprocessing, self.recipe.input_dropout)
        try:
            train_network(classifier, data, self.recipe, self.seed, report)
        except torch.OutOfMemoryError:
            raise UserError(
                f"the GPU's memory does not suffice to train '{self.model}' with {self.recipe.batch_size} images "
                "at a time: lower its training.batch_size"
            ) from None
        finally:
            data.close()
        return data.failures


def save_trained(checkpoint: Checkpoint, path: Path) -> Trained:
    """Save what `FineTuning.run` returned at its place in the cache."""
    checkpoint.save(path)
    return _trained(checkpoint, path, cached=False)


def finetune(
    model: str,
    samples: Samples,
    recipe: Recipe,
    *,
    weights: str = "auto",
    input_size: int | str | None = None,
    view: str = BOX,
    given: GivenInput = AS_KNOWN,
    outputs: Sequence[str] = (),
    seed: int = 0,
    cache: Path,
    report: Report | None = None,
) -> Trained:
    """Fine-tune a network on the train and val images of a data set, or find its checkpoint in the cache.

    Parameters
    ----------
    model
        The network as `<source>/<architecture>`.
    samples
        The data set.
    recipe
        How to train. With `epochs` 0 the starting weights are kept as they are.
    weights
        What to start from: see `cnnsens_bench.models.weights.starting_weights`.
    input_size
        The side of the network's input in pixels, `train`, `test`, or None for the architecture's own.
    view
        `box` or `published`.
    given
        What is said of the network's input, in place of what its source knows.
    outputs
        The names of the starting weights' outputs, in place of those that are known.
    seed
        The seed of everything random.
    cache
        The folder of the cache.
    report
        Called after each step.

    Raises
    ------
    Diverged
        If the loss does not stay finite.
    UserError
        If the weights cannot be had or the training split is empty.
    """
    found = cached_or_ready(
        model, samples, recipe, weights=weights, input_size=input_size, view=view, given=given, outputs=outputs,
        seed=seed, cache=cache,
    )  # fmt: skip
    return found if isinstance(found, Trained) else save_trained(found.run(cache, report), found.path)


def cached_or_ready(
    model: str,
    samples: Samples,
    recipe: Recipe,
    *,
    weights: str,
    input_size: int | str | None,
    view: str = BOX,
    given: GivenInput = AS_KNOWN,
    outputs: Sequence[str] = (),
    seed: int,
    cache: Path,
) -> Trained | FineTuning:
    """Return the checkpoint if it is in the cache, else the fine-tuning that makes it.

    See `finetune` for the parameters.

    Raises
    ------
    UserError
        If the weights cannot be had, or the cached file is not what its name says.
    """
    architecture = architecture_of(model).replace("/", "_")
    preprocessing = preprocessing_of(model, input_size, view, given, weights)
    start = starting_weights(model, weights)
    match = None
    if not recipe.epochs and start.state is not None:
        head = head_of(model, start.state, preprocessing.input_size, start.classes, weights, outputs)
        match = match_classes(model, head, samples.classes)
    # Rows are read where they are trained on alone, since there may be millions.
    train = samples.split("train", "val") if recipe.epochs else pd.DataFrame(columns=list(COLUMNS))
    if view == PUBLISHED:
        train = train.assign(**dict.fromkeys(BOX_COLUMNS, float("nan")))
    fitted_on = [samples.with_table(train).fingerprint(), file_sizes(train)] if recipe.epochs else None
    shaped_by: dict[str, Any] = {
        "version": VERSION,
        "model": model,
        "weights": start.identity,
        "preprocessing": preprocessing.as_dict(),
        "data": fitted_on,
        "classes": samples.classes,
        "recipe": dataclasses.asdict(recipe) if recipe.epochs else None,
        "seed": seed,
    }
    if match and match.outputs is not None:
        shaped_by["outputs"] = [match.count, *match.outputs]
    text = json.dumps(shaped_by)
    digest = hashlib.sha256(json.dumps(shaped_by, sort_keys=True).encode()).hexdigest()
    plain = re.sub(r"[^\w.-]+", "-", architecture).strip("-")
    path = cache / "checkpoints" / f"{plain}-{samples.name}-{digest[:16]}.pt"
    if path.is_file():
        checkpoint = load_checkpoint(path)
        if checkpoint.extra.get("shaped_by") != text:
            raise UserError(f"{path} is not the checkpoint that its name says: delete it, and it is made anew")
        return _trained(checkpoint, path, cached=True)
    name, classes, state = samples.name, samples.classes, start.state
    return FineTuning(
        model, name, classes, train, preprocessing, state, recipe, seed, text, path, match, start.notes
    )  # fmt: skip


def _trained(checkpoint: Checkpoint, path: Path, cached: bool) -> Trained:
    failures = tuple((image_id, sentence) for image_id, sentence in checkpoint.extra.get("failures", ()))
    return Trained(path, checkpoint.digest(), cached, failures, tuple(checkpoint.extra.get("notes", ())))


def starting_network(
    model: str, classes: int, preprocessing: Preprocessing, state: dict[str, Tensor] | None, seed: int
) -> nn.Module:
    """Build a network for `classes` classes with the weights of `state`, or random ones where it is None.

    The same seed draws the same weights.

    Raises
    ------
    UserError
        If the network cannot be built for the input size, or the weights are another network's.
    """
    torch.manual_seed(seed)
    network = build_network(model, classes, preprocessing.input_size, state)
    if state is not None:
        load_weights(network, state, model)
    return network


def file_sizes(table: pd.DataFrame) -> str:
    """Return the SHA-256 of the sizes of a table's files.

    It is a part of the checkpoint's hash: an image file that is repaired or exchanged gives another network.
    """
    sizes = [Path(uri).stat().st_size if Path(uri).is_file() else -1 for uri in table["uri"]]
    return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()
