"""Searches of a suite's models: from its samples to the recipes that `run` takes, with a line for every trial."""

import dataclasses
import functools
import hashlib
import json
import shutil
from pathlib import Path

from rich.console import Console

from cnnsens_bench.cache import cache_dir
from cnnsens_bench.config import Config
from cnnsens_bench.console import meter
from cnnsens_bench.datasets import Samples
from cnnsens_bench.engine.plan import Condition
from cnnsens_bench.engine.validate import Validation
from cnnsens_bench.engine.worker import load_plugins
from cnnsens_bench.entries import ModelConfig
from cnnsens_bench.errors import UserError
from cnnsens_bench.places import local_folder, upload
from cnnsens_bench.tracking import Tracker
from cnnsens_bench.training.holdout import hold_out
from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.training.recipes import read_recipes, write_recipes
from cnnsens_bench.training.space import axes
from cnnsens_bench.training.trial import Record, Task, Trial

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
    tasks = [_task(config, model, samples, conditions) for model in models]
    for model, task in zip(models, tasks, strict=True):
        if not task.recipe.epochs:
            raise UserError(f"training.epochs is 0 for '{model.name}': a search needs a recipe that trains")
        begun = len(Record(task.folder).trials())
        if not resume and not _ended(task) and (task.folder / "tune").exists():
            raise UserError(
                f"{task.folder} holds a search that was interrupted after {begun} of {task.search.trials} trials: "
                "resume=true goes on with it, another output=<folder> begins anew"
            )
    found = []
    for model, task in zip(models, tasks, strict=True):
        trials = Record(task.folder).trials() if _ended(task) else _searched(config, task, console, tracker)
        chosen = _best(trials)
        console.print(
            f"{model.name}: best recipe is trial {chosen.number} of {len(trials)}, objective {chosen.objective:.4f}"
            + (f" (the given recipe's: {trials[0].objective:.4f})" if trials[0].status == "done" else ""),
            markup=False,
            soft_wrap=True,
        )
        _write(home / FILE, task, chosen, len(trials))
        found.append(dataclasses.replace(model, recipe=chosen.recipe))
        for trial in trials:  # those too that ended before a kill
            tracker.trial(model.name, trial)
    if not isinstance(config.output_folder, Path):
        upload(home / FILE, config.output_folder / FILE)
    return found


def _searched(config: Config, task: Task, console: Console, tracker: Tracker) -> list[Trial]:
    # Imported only here: the first two need seconds.
    from cnnsens_bench.engine.cluster import connect
    from cnnsens_bench.training.search import search

    before = Record(task.folder).trials()
    told = {trial.number for trial in before}
    if (task.folder / "tune").exists():
        console.print(f"resuming the search of {task.model}: {len(told)} of {task.search.trials} trials have ended")
    connect(config.cluster.address)
    running: dict[int, Trial] = {}
    with meter(console, f"search {task.model}", task.search.trials, "trials") as progress:
        progress.done = len(told)

        def tell(trial: Trial) -> None:
            running.pop(trial.number, None)
            if trial.number not in told:
                told.add(trial.number)
                console.print(line(trial, task), markup=False, soft_wrap=True)
                progress.advance()
                tracker.trial(task.model, trial)

        def tick(trial: Trial) -> None:
            if "epochs_done" not in trial.metrics:  # it failed: `tell` comes next
                return
            running[trial.number] = trial
            progress.detail = _running(running)
            progress.advance(0)

        trials = search(task, tell, tick)
        progress.detail = ""
    if len(trials) < task.search.trials:
        raise UserError(f"{task.folder}: only {len(trials)} of {task.search.trials} trials have ended: resume=true")
    for leftover in (task.images, task.images.with_suffix(".json")):
        leftover.unlink(missing_ok=True)
    try:
        _best(trials)
    except UserError:
        shutil.rmtree(task.folder)  # once what failed is mended, all begins anew
        raise
    (task.folder / "ended").touch()
    shutil.rmtree(task.folder / "tune", ignore_errors=True)  # no trial is to be resumed any more
    return trials


def line(trial: Trial, task: Task) -> str:
    """What a person reads of a trial that has ended."""
    recipe, metrics = trial.recipe, trial.metrics
    epochs = f"{metrics.get('epochs_done', 0)}/{recipe.epochs} epochs"
    spent = f"{epochs} in {metrics.get('seconds', 0):.0f} s" if metrics.get("seconds") else f"of {recipe.epochs} epochs"
    values = ", ".join(f"{key} {getattr(recipe, key):.3g}" for key in axes(task.search, task.recipe) if key != "epochs")
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


def _task(config: Config, model: ModelConfig, samples: Samples, conditions: tuple[Condition, ...]) -> Task:
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
    return Task(
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


def _ended(task: Task) -> bool:
    return (task.folder / "ended").exists()


def _best(trials: list[Trial]) -> Trial:
    """The highest objective of those that went to their end; of equals the first. Raises `UserError` if none did."""
    done = [trial for trial in trials if trial.status == "done"]
    if not done:
        why = next((trial.error for trial in trials if trial.error), "none was trained to its end")
        raise UserError(f"no trial of the search came to its end: {why}")
    return max(done, key=lambda trial: (trial.objective, -trial.number))


def _write(path: Path, task: Task, chosen: Trial, count: int) -> None:
    """Beside the recipes of other models that the file has already."""
    others: dict[str, Recipe] = read_recipes(path) if path.is_file() else {}
    note = f"objective {chosen.objective:.4f}, trial {chosen.number} of {count}, seed {task.seed}"
    write_recipes(path, {**others, task.model: chosen.recipe}, {task.model: note})
