"""One trial of a search: it trains, validates after every epoch, and saves the state from which it can go on."""

import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cnnsens_bench.models.base import preprocessing_of
from cnnsens_bench.models.classifier import Classifier
from cnnsens_bench.models.weights import starting_weights
from cnnsens_bench.training.data import WHOLE, Share, TrainingImages
from cnnsens_bench.training.finetune import starting_network
from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.training.space import Scores, SearchConfig, degraded, undegraded
from cnnsens_bench.training.trainer import TrainingState, train_network

STATE = "training.pt"
"""The file of a trial's state, in the folder of its checkpoint."""
SAVING = 10.0
"""The least time between two checkpoints over the time that saving one takes: AlexNet's have 700 MB each."""

Metrics = dict[str, Any]
"""The values of one report: `objective`, `undegraded` and `degraded` in [0, 1]; `progress` in per cent of the schedule;
`epochs_done`; `seconds` since the trial began, interruptions left out; `status`; `scores` as (degradation, level,
accuracy)."""

ReportEpoch = Callable[[Metrics, Path | None], None]
"""Called after every epoch with the metrics and the folder of a checkpoint, or None where none is due."""


@dataclass(frozen=True)
class RecipeSearch:
    """Everything that a trial must know except the values that it tries. It can be sent to another process.

    Attributes
    ----------
    model
        The network as `<source>/<architecture>`.
    classes
        The number of classes.
    fitted
        The samples to train on.
    images
        The file in which the trials of a machine share the decoded samples.
    recipe
        The given recipe, around which the search takes place.
    search
        The settings of the search.
    weights, input_size, seed
        As for `cnnsens_bench.training.finetune.finetune`.
    validate
        Returns a classifier's accuracies on the held-out images.
    prepare
        What a process must do before its first trial.
    folder
        Where the search keeps its state; an absolute path.
    """

    model: str
    classes: int
    fitted: pd.DataFrame
    images: Path
    recipe: Recipe
    search: SearchConfig
    weights: str
    input_size: int | str | None
    seed: int
    validate: Callable[[Classifier], Scores]
    prepare: Callable[[], None]
    folder: Path


@dataclass(frozen=True)
class Trial:
    """A trial and what came of it.

    Attributes
    ----------
    number
        The number of the trial, from 1. The first trial is the given recipe.
    recipe
        What it trains by.
    status
        "training", "done", "stopped" (by ASHA, before the end of its schedule), "diverged" or "failed".
    metrics
        The values of its last report.
    error
        One sentence where it diverged or failed.
    """

    number: int
    recipe: Recipe
    status: str
    metrics: Metrics
    error: str = ""

    @property
    def objective(self) -> float:
        """The objective after the last epoch, in [0, 1]."""
        return float(self.metrics.get("objective", 0.0))


class TrialLog:
    """The trials of a search that have ended: a file with a line of JSON for each, which a kill leaves readable."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "trials.jsonl"

    def add(self, trial: Trial) -> None:
        """Append a trial, and wait until the disk has it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            # A kill may have cut the last line: the next one must not continue it.
            end = file.seek(0, os.SEEK_END)
            cut = end and (file.seek(end - 1), file.read(1))[1] != b"\n"
            file.write(b"\n" * bool(cut) + json.dumps(dataclasses.asdict(trial)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def trials(self) -> list[Trial]:
        """Return the trials by number. Of several lines of one number the last one counts; a cut line is left out."""
        found: dict[int, Trial] = {}
        for line in self.path.read_text().splitlines() if self.path.is_file() else []:
            try:
                values = json.loads(line)
            except ValueError:
                continue
            found[values["number"]] = Trial(**{**values, "recipe": Recipe(**values["recipe"])})
        return [found[number] for number in sorted(found)]

    def known(self, recipe: Recipe) -> Trial | None:
        """Return the trial of this recipe, if it has ended."""
        return next((trial for trial in self.trials() if trial.recipe == recipe), None)


def train_trial(
    recipe_search: RecipeSearch, recipe: Recipe, *, state_file: Path | None, report: ReportEpoch, share: Share = WHOLE
) -> None:
    """Train one trial, and report after every epoch.

    Parameters
    ----------
    recipe_search
        The search that the trial belongs to.
    recipe
        What to train by.
    state_file
        The state that an earlier process saved, or None to begin at the first epoch.
    report
        Called after every epoch in every process. The checkpoint's folder is removed when the call returns.
    share
        This process's part of every batch, where several processes train the trial together.

    Raises
    ------
    Diverged
        If the loss does not stay finite.
    UserError
        If the weights cannot be had or the images cannot be read.
    """
    recipe_search.prepare()
    saved = torch.load(state_file, map_location="cpu", weights_only=True) if state_file else None
    seconds_before = saved.pop("seconds") if saved else 0.0
    reporter = _EpochReporter(recipe_search, recipe, report, share, seconds_before)
    preprocessing = preprocessing_of(recipe_search.model, recipe_search.input_size, weights=recipe_search.weights)
    weights = starting_weights(recipe_search.model, recipe_search.weights).state
    network = starting_network(recipe_search.model, recipe_search.classes, preprocessing, weights, recipe_search.seed)
    torch.manual_seed(recipe_search.seed + share.rank)  # each process draws a dropout of its own
    train_network(
        Classifier(network, preprocessing, recipe.input_dropout),
        shared_images(recipe_search, preprocessing.input_size),
        recipe,
        recipe_search.seed,
        after_epoch=reporter.after_epoch,
        state=saved,
        share=share,
    )


class _EpochReporter:
    """Validates a trial after each epoch, reports its metrics, and saves its state where a checkpoint is due."""

    def __init__(
        self, recipe_search: RecipeSearch, recipe: Recipe, report: ReportEpoch, share: Share, seconds_before: float
    ) -> None:
        self.recipe_search, self.recipe, self.report, self.share = recipe_search, recipe, report, share
        self._began = time.monotonic() - seconds_before
        self._last_saved, self._cost = float("-inf"), 0.0

    def after_epoch(self, done: int, classifier: Classifier, state: Callable[[], TrainingState]) -> None:
        """See `cnnsens_bench.training.finetune.AfterEpoch`."""
        first = self.share.rank == 0
        metrics = measured(self.recipe_search.search, self.recipe_search.validate(classifier)) if first else {}
        now = time.monotonic()
        metrics |= {
            "progress": 100.0 * done / self.recipe.epochs,
            "epochs_done": done,
            "seconds": now - self._began,
            "status": "done" if done == self.recipe.epochs else "training",
        }
        with tempfile.TemporaryDirectory() as folder:
            due = first and done < self.recipe.epochs and now - self._last_saved >= SAVING * self._cost
            if due:
                torch.save(state() | {"seconds": metrics["seconds"]}, Path(folder) / STATE)
            self.report(metrics, Path(folder) if due else None)
        if due:
            self._last_saved = time.monotonic()
            self._cost = self._last_saved - now


def measured(search: SearchConfig, scores: Scores) -> Metrics:
    """Return the metrics of a validation."""
    return {
        "objective": search.objective(scores),
        "undegraded": undegraded(scores),
        "degraded": degraded(scores),
        "scores": [(name, level, value) for name, levels in scores.items() for level, value in levels.items()],
    }


_IMAGES: dict[tuple[Path, int], TrainingImages] = {}
"""The decoded images of this process, by their file and the side of the network's input."""


def shared_images(recipe_search: RecipeSearch, input_size: int) -> TrainingImages:
    """Return the decoded images, which all trials of a process share, and all processes of a machine."""
    key = (recipe_search.images, input_size)
    if key not in _IMAGES:
        folder = recipe_search.images.parent
        _IMAGES[key] = TrainingImages(recipe_search.fitted, input_size, folder, shared_file=recipe_search.images)
    return _IMAGES[key]
