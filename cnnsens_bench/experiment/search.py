"""Searches the recipe of each of a suite's models; each trial is reported to the person and to MLflow.

The trials themselves are in `cnnsens_bench.training.trial`, what runs them is in `cnnsens_bench.runtime.ray_tune`.
"""

import dataclasses
import functools
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnsens_bench.datasets import Samples
from cnnsens_bench.engine.sweep import Condition
from cnnsens_bench.engine.validate import Validation
from cnnsens_bench.experiment.resolve import ModelConfig, RunSettings
from cnnsens_bench.experiment.tracked_results import RunContext, trial_run
from cnnsens_bench.training.holdout import hold_out
from cnnsens_bench.training.recipes import read_recipes, write_recipes
from cnnsens_bench.training.space import axes
from cnnsens_bench.training.trial import RecipeSearch, Trial, TrialLog
from cnnsens_bench.utils.cache import cache_dir
from cnnsens_bench.utils.config_keys import ADDED_KEYS
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.plugins import load_plugins
from cnnsens_bench.utils.progress import say, stage_progress
from cnnsens_bench.utils.reporter import Reporter
from cnnsens_bench.utils.storage import local_folder, upload

FILE = "recipes.yaml"
"""The file of the best recipes, in the output folder."""


def search_models(
    run: RunContext, models: Sequence[ModelConfig], conditions: tuple[Condition, ...], resume: bool
) -> list[ModelConfig]:
    """Search each model's recipe on training images, and write the best ones to `recipes.yaml`.

    Trials of the same settings that have ended are not repeated: a search goes on where `search.trials` asks for more
    than there are.

    Parameters
    ----------
    run
        The run that the searches belong to.
    models
        The models, each with the given recipe that its search starts from.
    conditions
        What the networks are judged under.
    resume
        Whether a search that was interrupted goes on.

    Returns
    -------
    list of ModelConfig
        The models with the best recipes.

    Raises
    ------
    UserError
        If a recipe does not train, a search was interrupted and `resume` is not set, or no trial came to its end.
    """
    settings = run.settings
    file = local_folder(settings.output_folder, settings.cache) / FILE
    searches = [plan_search(settings, model, run.samples, conditions) for model in models]
    for recipe_search in searches:
        _check(recipe_search, resume)
    found = []
    for model, recipe_search in zip(models, searches, strict=True):
        trials = TrialLog(recipe_search.folder).trials()
        if len(trials) < recipe_search.search.trials:
            trials = _search(run, recipe_search)
        best = best_trial(trials, recipe_search.folder)
        first = trials[0]  # the given recipe, unless it was still in training when the search was interrupted
        given = f" (the given recipe's: {first.objective:.4f})" if (first.number, first.status) == (1, "done") else ""
        outcome = f"best recipe is trial {best.number} of {len(trials)}, objective {best.objective:.4f}"
        say(run.console, f"{model.name}: {outcome}{given}")
        others = read_recipes(file) if file.is_file() else {}
        note = f"objective {best.objective:.4f}, trial {best.number} of {len(trials)}, seed {recipe_search.seed}"
        write_recipes(file, {**others, model.name: best.recipe}, {model.name: note})
        found.append(dataclasses.replace(model, recipe=best.recipe))
        for trial in trials:  # also those that ended before this process began
            run.tracker.log(trial_run(model.name, trial))
    run.tracker.log_files([file])
    if not isinstance(settings.output_folder, Path):
        upload(file, settings.output_folder / FILE)
    return found


def _check(recipe_search: RecipeSearch, resume: bool) -> None:
    """Raise `UserError` where a search is impossible, or would go on without being asked to."""
    if not recipe_search.recipe.epochs:
        raise UserError(f"training.epochs is 0 for '{recipe_search.model}': a search needs a recipe that trains")
    ended, wanted = len(TrialLog(recipe_search.folder).trials()), recipe_search.search.trials
    if not resume and ended < wanted and (recipe_search.folder / "tune").exists():
        raise UserError(
            f"{recipe_search.folder} holds a search that was interrupted after {ended} of {wanted} trials: "
            "resume=true goes on with it, another output=<folder> begins anew"
        )


def _search(run: RunContext, recipe_search: RecipeSearch) -> list[Trial]:
    """Run the trials that are missing; return all trials."""
    # Imported only here: they take seconds.
    from cnnsens_bench.runtime.cluster import connect
    from cnnsens_bench.runtime.ray_tune import search

    console, wanted = run.console, recipe_search.search.trials
    reported = {trial.number for trial in TrialLog(recipe_search.folder).trials()}
    if reported or (recipe_search.folder / "tune").exists():
        console.print(f"resuming the search of {recipe_search.model}: {len(reported)} of {wanted} trials have ended")
    connect(run.settings.cluster.address)
    running: dict[int, Trial] = {}
    with stage_progress(console, f"search {recipe_search.model}", wanted, "trials") as progress:
        progress.done = len(reported)

        class TrialReporter(Reporter):
            def trial_ended(self, trial: Trial) -> None:
                running.pop(trial.number, None)
                if trial.number not in reported:
                    reported.add(trial.number)
                    say(console, line(trial, recipe_search))
                    progress.advance()
                    run.tracker.log(trial_run(recipe_search.model, trial))

            def trial_progress(self, trial: Trial) -> None:
                if "epochs_done" not in trial.metrics:  # it failed, so `trial_ended` comes next
                    return
                running[trial.number] = trial
                progress.detail = "; ".join(
                    f"trial {t.number}: epoch {t.metrics['epochs_done']}/{t.recipe.epochs}, objective {t.objective:.3f}"
                    for t in running.values()
                )
                progress.advance(0)

        trials = search(recipe_search, TrialReporter())
        progress.detail = ""
    if len(trials) < wanted:
        raise UserError(f"{recipe_search.folder}: only {len(trials)} of {wanted} trials have ended: resume=true")
    for leftover in (recipe_search.images, recipe_search.images.with_suffix(".json")):
        leftover.unlink(missing_ok=True)
    shutil.rmtree(recipe_search.folder / "tune", ignore_errors=True)  # no trial is to be resumed any more
    return trials


def line(trial: Trial, recipe_search: RecipeSearch) -> str:
    """Return what a person reads of a trial that has ended."""
    recipe, metrics = trial.recipe, trial.metrics
    epochs = f"{metrics.get('epochs_done', 0)}/{recipe.epochs} epochs"
    spent = f"{epochs} in {metrics.get('seconds', 0):.0f} s" if metrics.get("seconds") else f"of {recipe.epochs} epochs"
    shown = [key for key in axes(recipe_search.search, recipe_search.recipe) if key != "epochs"]
    values = ", ".join(f"{key} {getattr(recipe, key):.3g}" for key in shown)
    what = "given recipe" if trial.number == 1 else values
    if trial.status in ("diverged", "failed"):
        return f"  trial {trial.number}: {trial.status} ({trial.error}), {values}"
    return (
        f"  trial {trial.number}: objective {trial.objective:.4f} (undegraded {metrics['undegraded']:.3f}, "
        f"degraded {metrics['degraded']:.3f}), {'stopped after ' if trial.status == 'stopped' else ''}{spent}, {what}"
    )


def plan_search(
    settings: RunSettings, model: ModelConfig, samples: Samples, conditions: tuple[Condition, ...]
) -> RecipeSearch:
    """Return the search of a model's recipe, in the folder of its settings."""
    fitted, held_out = hold_out(samples.split("train", "val"), settings.search.validation)
    evaluated_as = (settings.seed, settings.quantize, settings.precision)
    stored = settings.frost, settings.stored_quality
    validation = Validation(
        model.name, samples.name, held_out, conditions, *evaluated_as, settings.batch_size, settings.plugins, *stored
    )
    data = samples.with_table(fitted).fingerprint()
    searches = local_folder(settings.output_folder, settings.cache).absolute() / "search"
    added = sorted(dict(zip(("frost", "stored_quality"), stored, strict=True)).items() - ADDED_KEYS.items())
    folder = _folder(searches, model, settings.search.shaping(), [data, *evaluated_as, *added])
    images = cache_dir(settings.cache).absolute() / "canvases" / folder.name.rpartition("-")[2]
    return RecipeSearch(
        model.name, len(samples.classes), fitted, images, model.recipe, settings.search, model.weights,
        model.input_size, settings.seed, validation, functools.partial(load_plugins, settings.plugins), folder,
    )  # fmt: skip


def _folder(searches: Path, model: ModelConfig, settings: Mapping[str, Any], data: list[Any]) -> Path:
    """Return a search's folder, named by the hash of everything but the number of trials that decides the outcome."""
    recipe = dataclasses.asdict(model.recipe)
    # Version 0.1 named the folder by the number of trials, too.
    for named_by in (settings, {key: value for key, value in settings.items() if key != "trials"}):
        shaped_by = [model.name, model.weights, model.input_size, recipe, named_by, *data]
        digest = hashlib.sha256(json.dumps(shaped_by, sort_keys=True, default=str).encode()).hexdigest()[:12]
        folder = searches / f"{model.name.replace('/', '-')}-{digest}"
        if folder.exists():
            break
    return folder


def best_trial(trials: list[Trial], folder: Path) -> Trial:
    """Return the trial of the highest objective among those that came to their end; of equal ones the first.

    Where none did, the search's folder is removed, so that it begins anew once the cause is mended.
    """
    done = [trial for trial in trials if trial.status == "done"]
    if not done:
        shutil.rmtree(folder)
        why = next((trial.error for trial in trials if trial.error), "none was trained to its end")
        raise UserError(f"no trial of the search came to its end: {why}")
    return max(done, key=lambda trial: (trial.objective, -trial.number))
