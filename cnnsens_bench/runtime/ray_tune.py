"""The Ray Tune search around the fine-tuning of one model; only this file knows ray.tune.

ASHA stops trials early by their objective, compared at equal shares of their schedules: a one-cycle schedule must know
its length, so lengths are searched, not cut. The given recipe is the first trial and is never stopped.
"""

import contextlib
import importlib.util
import logging
import os
import re
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator

from cnnsens_bench.runtime.cluster import machines
from cnnsens_bench.runtime.resources import Layout, lay_out_trials
from cnnsens_bench.training.data import WHOLE, Share
from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.training.space import Axis, axes, recipe_of
from cnnsens_bench.training.trainer import Diverged
from cnnsens_bench.training.trial import STATE, Metrics, RecipeSearch, Trial, TrialLog, train_trial
from cnnsens_bench.utils.reporter import SILENT, Reporter

METRICS = ("objective", "undegraded", "degraded", "progress", "epochs_done", "seconds", "scores")
"""The values of a report that are kept; Tune adds its own."""


def search(recipe_search: RecipeSearch, reporter: Reporter = SILENT) -> list[Trial]:
    """Run all trials of a search and return them by number. Ray must be connected.

    Parameters
    ----------
    recipe_search
        The search. Where its folder (absolute) holds one that was interrupted, it goes on from there.
    reporter
        Hears of each trial after its epochs and at its end.

    Raises
    ------
    UserError
        If a trial asks for more than the cluster has.
    """
    _quiet()
    layout = lay_out_trials(recipe_search.search, recipe_search.recipe.batch_size, machines())
    _TrialCallback.recipe_search, _TrialCallback.reporter = recipe_search, reporter
    together = layout.processes > 1
    # The driver of a trial of several processes takes no core from them, but Ray needs something in a request.
    resources: dict[str, float] = {"memory": 1e6} if together else {"cpu": layout.reserved_cpus, "gpu": layout.gpus}
    function = _train_together if together else _train_alone
    trainable = tune.with_parameters(function, recipe_search=recipe_search, layout=layout)
    trainable = tune.with_resources(trainable, resources)
    folder = recipe_search.folder / "tune"
    interrupted = folder.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _tuner(recipe_search, trainable, layout).fit()
        if interrupted and len(TrialLog(recipe_search.folder).trials()) < recipe_search.search.trials:
            shutil.rmtree(folder)  # what was interrupted was a search of fewer trials
            _tuner(recipe_search, trainable, layout).fit()
    return TrialLog(recipe_search.folder).trials()


def _tuner(recipe_search: RecipeSearch, trainable: Any, layout: Layout) -> tune.Tuner:
    folder = recipe_search.folder / "tune"
    if tune.Tuner.can_restore(str(folder)):
        try:
            return tune.Tuner.restore(str(folder), trainable, resume_unfinished=True)
        except Exception:
            # It was killed while it wrote its state, so it begins again; the log knows the trials that have ended.
            shutil.rmtree(folder)
    grace = max(1, round(100 * recipe_search.search.grace))
    return tune.Tuner(
        trainable,
        param_space={key: _domain(axis) for key, axis in axes(recipe_search.search, recipe_search.recipe).items()},
        tune_config=tune.TuneConfig(
            metric="objective",
            mode="max",
            num_samples=recipe_search.search.trials,
            search_alg=_searcher(recipe_search),
            scheduler=_KeepGivenRecipe("progress", max_t=100, grace_period=grace, reduction_factor=2),
            max_concurrent_trials=layout.workers,
            # A process that has imported torch and decoded the images is used for the next trial too.
            reuse_actors=layout.processes == 1,
            trial_dirname_creator=lambda trial: f"trial-{_number(trial):04d}",
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            verbose=0,
            callbacks=[_TrialCallback()],
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
        ),
    )


def _searcher(recipe_search: RecipeSearch) -> Any:
    """Return Optuna's TPE where it is installed, else random search.

    The given recipe comes first, then come those of the trials that have ended, whose results are in the log.
    """
    ended = [trial.recipe for trial in TrialLog(recipe_search.folder).trials() if trial.number > 1]
    ranges = axes(recipe_search.search, recipe_search.recipe)
    given = [
        {key: min(max(getattr(recipe, key), axis.low), axis.high) for key, axis in ranges.items()}
        for recipe in (recipe_search.recipe, *ended)
    ]
    # The same seed would draw the recipes that have been tried again.
    seed = (recipe_search.seed + len(ended)) % 2**32
    if not has_optuna():
        return BasicVariantGenerator(points_to_evaluate=given, random_state=seed)
    from ray.tune.search.optuna import OptunaSearch

    return OptunaSearch(points_to_evaluate=given, seed=seed)


def has_optuna() -> bool:
    """Return whether Optuna is installed."""
    return importlib.util.find_spec("optuna") is not None


def _domain(axis: Axis) -> Any:
    if axis.whole:
        return tune.randint(int(axis.low), int(axis.high) + 1)
    return tune.loguniform(axis.low, axis.high) if axis.log else tune.uniform(axis.low, axis.high)


class _KeepGivenRecipe(ASHAScheduler):
    """ASHA that never stops the given recipe, because the best one is compared with it."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        action = super().on_trial_result(tune_controller, trial, result)
        return self.CONTINUE if _number(trial) == 1 else action


class _TrialCallback(tune.Callback):
    """Logs trials that end, and reports all. Tune pickles the callback, so what it calls belongs to the class."""

    recipe_search: ClassVar[RecipeSearch]
    reporter: ClassVar[Reporter]

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        self.reporter.trial_progress(self._read(trial, result))

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        ended = self._read(trial, trial.last_result)
        self._end(trial, replace(ended, status="stopped") if ended.status == "training" else ended)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        lines = str(trial.get_error() or "").strip().splitlines() or ["its process died"]
        self._end(trial, replace(self._read(trial, trial.last_result or {}), status="failed", error=lines[-1][:300]))

    def _read(self, trial: Any, metrics: dict[str, Any]) -> Trial:
        kept = {key: metrics[key] for key in METRICS if key in metrics}
        status, error = metrics.get("status", "training"), metrics.get("error", "")
        return Trial(_number(trial), recipe_of(trial.config, self.recipe_search.recipe), status, kept, error)

    def _end(self, trial: Any, ended: Trial) -> None:
        log = TrialLog(self.recipe_search.folder)
        known = log.known(ended.recipe)
        if known and known.number == ended.number:
            ended = known  # Tune's state did not know it yet when a kill came, and may fail to go on with it
        else:
            log.add(ended)
        # Its weights are of no use, because the best recipe is trained anew on all training images.
        for folder in Path(trial.path).glob("checkpoint_*"):
            shutil.rmtree(folder, ignore_errors=True)
        self.reporter.trial_ended(ended)


def _number(trial: Any) -> int:
    """Return a trial's number, from 1 in the order in which Tune made them.

    Tune's random search counts from 0, in the id; its searchers count from 1, in the tag.
    """
    random = re.search(r"_(\d+)$", trial.trial_id)
    return int(random[1]) + 1 if random else int(str(trial.experiment_tag).partition("_")[0])


def _train_alone(point: dict[str, Any], recipe_search: RecipeSearch, layout: Layout) -> None:
    """Run a trial in one process. This is Tune's function trainable."""
    # Ray gives a worker OMP_NUM_THREADS=1.
    torch.set_num_threads(layout.threads)
    _run_trial(point, recipe_search, lambda recipe: _train(tune, recipe_search, recipe))


def _run_trial(point: dict[str, Any], recipe_search: RecipeSearch, train: Callable[[Recipe], None]) -> None:
    """Train by the recipe of a point, or report the result again if its trial has ended, which Tune may not know.

    A trial that diverges or fails ends with the worst objective, so that the searcher learns from it.
    """
    recipe = recipe_of(point, recipe_search.recipe)
    known = TrialLog(recipe_search.folder).known(recipe)
    if known:
        tune.report({**known.metrics, "status": known.status, "error": known.error})
        return
    worst = {"objective": 0.0, "undegraded": 0.0, "degraded": 0.0, "progress": 100.0, "scores": []}
    try:
        train(recipe)
    except Diverged as error:
        tune.report({**worst, "status": "diverged", "error": str(error)})
    except Exception as error:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        tune.report({**worst, "status": "failed", "error": text})


def _train(library: Any, recipe_search: RecipeSearch, recipe: Recipe, share: Share = WHOLE) -> None:
    """Train a trial from its last checkpoint on. `library` is `ray.tune`, or `ray.train` in a process of several."""

    def report(metrics: Metrics, folder: Path | None) -> None:
        library.report(metrics, checkpoint=library.Checkpoint.from_directory(str(folder)) if folder else None)

    checkpoint = library.get_checkpoint()
    with checkpoint.as_directory() if checkpoint else contextlib.nullcontext() as folder:
        state = Path(folder) / STATE if folder else None
        train_trial(recipe_search, recipe, state_file=state, report=report, share=share)


def _train_together(point: dict[str, Any], recipe_search: RecipeSearch, layout: Layout) -> None:
    """Run a trial in several processes. Tune's function is only their driver."""
    from ray.train import RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    resources = {"CPU": layout.reserved_cpus} | ({"GPU": layout.gpus} if layout.gpus else {})
    scaling = ScalingConfig(num_workers=layout.processes, use_gpu=layout.gpus > 0, resources_per_worker=resources)

    def train(recipe: Recipe) -> None:
        given = {"recipe_search": recipe_search, "recipe": recipe, "threads": layout.threads}
        # Ray Train finds the last checkpoint of this name on its own when a trial goes on.
        run_config = RunConfig(
            name="processes",
            storage_path=tune.get_context().get_trial_dir(),
            callbacks=[TuneReportCallback()],  # type: ignore[list-item]  # of Ray Train's second version
        )
        try:
            TorchTrainer(_train_share, train_loop_config=given, scaling_config=scaling, run_config=run_config).fit()
        except TrainingFailedError as error:
            text = str(error)
            raise (Diverged if "training diverged" in text else RuntimeError)(text) from None

    _run_trial(point, recipe_search, train)


def _train_share(given: dict[str, Any]) -> None:
    """Run one of the processes of a trial. Ray Train has set up torch.distributed."""
    from ray import train

    torch.set_num_threads(given["threads"])
    context = train.get_context()
    share = Share(context.get_world_rank(), context.get_world_size())
    _train(train, given["recipe_search"], given["recipe"], share)


def _quiet() -> None:
    """Silence Tune, and let it write its state every second, so that a kill loses little."""
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one prints even where verbose is 0
    # Without this Tune swallows the first Ctrl-C.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if has_optuna():
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
