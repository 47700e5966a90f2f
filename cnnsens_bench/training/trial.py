"""One trial of a search: fine-tune on the fitted part, judge after every epoch, save what to go on from."""

import dataclasses
import functools
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

from cnnsens_bench.models.base import Classifier, preprocessing_of
from cnnsens_bench.models.weights import starting_weights
from cnnsens_bench.training.data import Share, TrainingImages
from cnnsens_bench.training.finetune import starting_network, train_network
from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.training.space import Scores, SearchConfig, degraded, undegraded

STATE = "training.pt"
"""The file of a trial's checkpoint."""
SAVING = 10.0
"""Time between two checkpoints over the time that one takes: AlexNet's are 700 MB an epoch."""

Metrics = dict[str, Any]
"""Plain values of one report: `objective`, `undegraded`, `degraded` in [0, 1]; `progress` in % of the schedule;
`epochs_done`; `seconds` since the trial began, in all its processes; `status`; `scores` as (name, level, accuracy)."""


@dataclass(frozen=True)
class RecipeSearch:
    """All that a trial must know, but its point; plain values, so it travels.

    `fitted`: sample table to train on; `images`: the file that the trials of a machine share it in; `validate`: a
    classifier → its accuracies on the held-out images; `prepare`: what a new process must do first; `folder`: where
    the search keeps its state.
    """

    model: str
    classes: int
    fitted: pd.DataFrame
    images: Path
    recipe: Recipe
    search: SearchConfig
    weights: str
    input_size: int | None
    seed: int
    validate: Callable[[Classifier], Scores]
    prepare: Callable[[], None]
    folder: Path


@dataclass(frozen=True)
class Trial:
    """What became of a trial. `number` from 1, 1 being the given recipe; `status`: "done", "stopped" (by ASHA),
    "diverged", "failed", "training"; `metrics`: its last; `error`: a sentence where it failed."""

    number: int
    recipe: Recipe
    status: str
    metrics: Metrics
    error: str = ""

    @property
    def objective(self) -> float:
        """Its last, in [0, 1]."""
        return float(self.metrics.get("objective", 0.0))


class TrialLog:
    """The trials of a search that have ended, a line of JSON each: what a kill at any moment leaves whole."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "trials.jsonl"

    def add(self, trial: Trial) -> None:
        """Written through to the disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            # A kill may have cut the last line: what follows must not be glued to it.
            end = file.seek(0, os.SEEK_END)
            cut = end and (file.seek(end - 1), file.read(1))[1] != b"\n"
            file.write(b"\n" * bool(cut) + json.dumps(dataclasses.asdict(trial)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def trials(self) -> list[Trial]:
        """By number; the last line of a number counts. A line that a kill has cut is left out."""
        found: dict[int, Trial] = {}
        for line in self.path.read_text().splitlines() if self.path.is_file() else []:
            try:
                values = json.loads(line)
            except ValueError:
                continue
            found[values["number"]] = Trial(**{**values, "recipe": Recipe(**values["recipe"])})
        return [found[number] for number in sorted(found)]

    def known(self, recipe: Recipe) -> Trial | None:
        """The trial of this recipe that has ended."""
        return next((trial for trial in self.trials() if trial.recipe == recipe), None)


def train_trial(
    recipe_search: RecipeSearch,
    recipe: Recipe,
    *,
    state_file: Path | None,
    report: Callable[[Metrics, Path | None], None],
    share: Share | None = None,
) -> None:
    """Train by `recipe`, from `state_file` where there is one. `report(metrics, folder of a checkpoint)` after every
    epoch, on every process. Raises `UserError`, `Diverged`."""
    share = share or Share()
    recipe_search.prepare()
    saved = torch.load(state_file, map_location="cpu", weights_only=True) if state_file else None
    before = float(saved["seconds"]) if saved else 0.0
    began = time.monotonic()
    preprocessing = preprocessing_of(recipe_search.model, recipe_search.input_size)
    weights, _ = starting_weights(recipe_search.model, recipe_search.weights)
    network = starting_network(recipe_search.model, recipe_search.classes, preprocessing, weights, recipe_search.seed)
    torch.manual_seed(recipe_search.seed + share.rank)  # each process drops inputs of its own
    data = kept_images(recipe_search, preprocessing.input_size)
    classifier = Classifier(network, preprocessing, recipe.input_dropout)
    last_saved, cost = float("-inf"), 0.0

    def after_epoch(done: int, trained: Classifier, state: Callable[[], dict[str, Any]]) -> None:
        nonlocal last_saved, cost
        scores = recipe_search.validate(trained) if share.rank == 0 else {}
        now = time.monotonic()
        metrics = measured(recipe_search.search, scores) if share.rank == 0 else {}
        metrics |= {
            "progress": 100.0 * done / recipe.epochs,
            "epochs_done": done,
            "seconds": before + now - began,
            "status": "done" if done == recipe.epochs else "training",
        }
        with tempfile.TemporaryDirectory() as folder:
            kept = done < recipe.epochs and share.rank == 0 and now - last_saved >= SAVING * cost
            if kept:
                torch.save(state() | {"seconds": metrics["seconds"]}, Path(folder) / STATE)
            report(metrics, Path(folder) if kept else None)
        if kept:
            last_saved = time.monotonic()
            cost = last_saved - now

    train_network(
        classifier,
        data,
        recipe,
        recipe_search.seed,
        after_epoch=after_epoch,
        state={key: value for key, value in saved.items() if key != "seconds"} if saved else None,
        share=share,
    )


def measured(search: SearchConfig, scores: Scores) -> Metrics:
    """The metrics of an evaluation."""
    return {
        "objective": search.objective(scores),
        "undegraded": undegraded(scores),
        "degraded": degraded(scores),
        "scores": [(name, level, value) for name, levels in scores.items() for level, value in levels.items()],
    }


@functools.cache
def _kept_images(path: Path, input_size: int) -> dict[str, TrainingImages]:
    return {}


def kept_images(recipe_search: RecipeSearch, input_size: int) -> TrainingImages:
    """Those of an earlier trial of this process, or of this machine."""
    slot = _kept_images(recipe_search.images, input_size)
    if "images" not in slot:
        slot["images"] = TrainingImages(
            recipe_search.fitted, input_size, recipe_search.images.parent, keep=recipe_search.images
        )
    return slot["images"]
