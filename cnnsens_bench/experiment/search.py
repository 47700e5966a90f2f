"""Searches of a suite's models: from its samples to the recipes that `run` takes, with a line for every trial."""

import dataclasses
import functools
import hashlib
import json
import shutil
from pathlib import Path

from rich.console import Console

from cnnsens_bench.config.schema import Config
from cnnsens_bench.datasets import Samples
from cnnsens_bench.engine.plan import Condition
from cnnsens_bench.engine.validate import Validation
from cnnsens_bench.experiment.resolve import ModelConfig
from cnnsens_bench.tracking import Tracker
from cnnsens_bench.training.holdout import hold_out
from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.training.recipes import read_recipes, write_recipes
from cnnsens_bench.training.space import axes
from cnnsens_bench.training.trial import RecipeSearch, Trial, TrialLog
from cnnsens_bench.utils.cache import cache_dir
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.plugins import load_plugins
from cnnsens_bench.utils.progress import meter
from cnnsens_bench.utils.reporter import Reporter
from cnnsens_bench.utils.storage import local_folder, upload

FILE = "recipes.yaml"
"""Where the best recipes lie, in the output folder."""


def search_models(
    config: Config,
    models: list[ModelConfig],
    samples: Samples,
    conditions: tuple[Condition, ...],
    console: Console,
    tracker: Tracker,
    resume: bool,
) -> list[ModelConfig]:
    """Search each model's recipe, judged under `conditions`; gives the models with the best.

    A search of the same settings that has ended is not repeated; one that was interrupted goes on if `resume`.
    Writes `recipes.yaml`. Raises `UserError`.
    """
    home = local_folder(config.output_folder, config.cache)
    recipe_searches = [_recipe_search(config, model, samples, conditions) for model in models]
    for model, recipe_search in zip(models, recipe_searches, strict=True):
        if not recipe_search.recipe.epochs:
            raise UserError(f"training.epochs is 0 for '{model.name}': a search needs a recipe that trains")
        begun = len(TrialLog(recipe_search.folder).trials())
        if not resume and not _ended(recipe_search) and (recipe_search.folder / "tune").exists():
            raise UserError(
                f"{recipe_search.folder} holds a search that was interrupted after {begun} of "
                f"{recipe_search.search.trials} trials: "
                "resume=true goes on with it, another output=<folder> begins anew"
            )
    found = []
    for model, recipe_search in zip(models, recipe_searches, strict=True):
        trials = (
            TrialLog(recipe_search.folder).trials()
            if _ended(recipe_search)
            else _searched(config, recipe_search, console, tracker)
        )
        chosen = _best(trials)
        console.print(
            f"{model.name}: best recipe is trial {chosen.number} of {len(trials)}, objective {chosen.objective:.4f}"
            + (f" (the given recipe's: {trials[0].objective:.4f})" if trials[0].status == "done" else ""),
            markup=False,
            soft_wrap=True,
        )
        _write(home / FILE, recipe_search, chosen, len(trials))
        found.append(dataclasses.replace(model, recipe=chosen.recipe))
        for trial in trials:  # those too that ended before a kill
            tracker.trial(model.name, trial)
    if not isinstance(config.output_folder, Path):
        upload(home / FILE, config.output_folder / FILE)
    return found


def _searched(config: Config, recipe_search: RecipeSearch, console: Console, tracker: Tracker) -> list[Trial]:
    # Imported only here: the first two need seconds.
    from cnnsens_bench.runtime.cluster import connect
    from cnnsens_bench.runtime.ray_tune import search

    before = TrialLog(recipe_search.folder).trials()
    told = {trial.number for trial in before}
    if (recipe_search.folder / "tune").exists():
        console.print(
            f"resuming the search of {recipe_search.model}: {len(told)} of {recipe_search.search.trials} trials "
            "have ended"
        )
    connect(config.cluster.address)
    running: dict[int, Trial] = {}
    with meter(console, f"search {recipe_search.model}", recipe_search.search.trials, "trials") as progress:
        progress.done = len(told)

        class TrialReporter(Reporter):
            def trial_ended(self, trial: Trial) -> None:
                running.pop(trial.number, None)
                if trial.number not in told:
                    told.add(trial.number)
                    console.print(line(trial, recipe_search), markup=False, soft_wrap=True)
                    progress.advance()
                    tracker.trial(recipe_search.model, trial)

            def trial_progress(self, trial: Trial) -> None:
                if "epochs_done" not in trial.metrics:  # it failed, so `trial_ended` comes next
                    return
                running[trial.number] = trial
                progress.detail = _running(running)
                progress.advance(0)

        trials = search(recipe_search, TrialReporter())
        progress.detail = ""
    if len(trials) < recipe_search.search.trials:
        raise UserError(
            f"{recipe_search.folder}: only {len(trials)} of {recipe_search.search.trials} trials have ended: "
            "resume=true"
        )
    for leftover in (recipe_search.images, recipe_search.images.with_suffix(".json")):
        leftover.unlink(missing_ok=True)
    try:
        _best(trials)
    except UserError:
        shutil.rmtree(recipe_search.folder)  # once what failed is mended, all begins anew
        raise
    (recipe_search.folder / "ended").touch()
    shutil.rmtree(recipe_search.folder / "tune", ignore_errors=True)  # no trial is to be resumed any more
    return trials


def line(trial: Trial, recipe_search: RecipeSearch) -> str:
    """What a person reads of a trial that has ended."""
    recipe, metrics = trial.recipe, trial.metrics
    epochs = f"{metrics.get('epochs_done', 0)}/{recipe.epochs} epochs"
    spent = f"{epochs} in {metrics.get('seconds', 0):.0f} s" if metrics.get("seconds") else f"of {recipe.epochs} epochs"
    values = ", ".join(
        f"{key} {getattr(recipe, key):.3g}"
        for key in axes(recipe_search.search, recipe_search.recipe)
        if key != "epochs"
    )
    what = "given recipe" if trial.number == 1 else values
    if trial.status in ("diverged", "failed"):
        return f"  trial {trial.number}: {trial.status} ({trial.error}), {values}"
    return (
        f"  trial {trial.number}: objective {trial.objective:.4f} (undegraded {metrics['undegraded']:.3f}, "
        f"degraded {metrics['degraded']:.3f}), {'stopped after ' if trial.status == 'stopped' else ''}{spent}, {what}"
    )


def _running(running: dict[int, Trial]) -> str:
    return "; ".join(
        f"trial {t.number}: epoch {t.metrics['epochs_done']}/{t.recipe.epochs}, objective {t.objective:.3f}"
        for t in running.values()
    )


def _recipe_search(
    config: Config, model: ModelConfig, samples: Samples, conditions: tuple[Condition, ...]
) -> RecipeSearch:
    fitted, held = hold_out(samples.split("train", "val"), config.search.validation)
    home = local_folder(config.output_folder, config.cache)
    shaped_by = [
        model.name, model.weights, model.input_size, dataclasses.asdict(model.recipe), config.search.shaping(),
        dataclasses.replace(samples, table=fitted).fingerprint(), config.seed, config.quantize, config.precision,
    ]  # fmt: skip
    digest = hashlib.sha256(json.dumps(shaped_by, sort_keys=True, default=str).encode()).hexdigest()[:12]
    validation = Validation(
        model.name, samples.name, held, conditions, config.seed, config.quantize, config.precision,
        config.batch_size, tuple(config.plugins),
    )  # fmt: skip
    return RecipeSearch(
        model=model.name,
        classes=len(samples.classes),
        fitted=fitted,
        images=cache_dir(config.cache).absolute() / "canvases" / digest,
        recipe=model.recipe,
        search=config.search,
        weights=model.weights,
        input_size=model.input_size,
        seed=config.seed,
        validate=validation,
        prepare=functools.partial(load_plugins, tuple(config.plugins)),
        folder=home.absolute() / "search" / f"{model.name.replace('/', '-')}-{digest}",
    )


def _ended(recipe_search: RecipeSearch) -> bool:
    return (recipe_search.folder / "ended").exists()


def _best(trials: list[Trial]) -> Trial:
    """The highest objective of those that went to their end; of equals the first. Raises `UserError` if none did."""
    done = [trial for trial in trials if trial.status == "done"]
    if not done:
        why = next((trial.error for trial in trials if trial.error), "none was trained to its end")
        raise UserError(f"no trial of the search came to its end: {why}")
    return max(done, key=lambda trial: (trial.objective, -trial.number))


def _write(path: Path, recipe_search: RecipeSearch, chosen: Trial, count: int) -> None:
    """Beside the recipes of other models that the file has already."""
    others: dict[str, Recipe] = read_recipes(path) if path.is_file() else {}
    note = f"objective {chosen.objective:.4f}, trial {chosen.number} of {count}, seed {recipe_search.seed}"
    write_recipes(path, {**others, recipe_search.model: chosen.recipe}, {recipe_search.model: note})
