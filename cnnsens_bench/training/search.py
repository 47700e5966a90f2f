"""The Ray Tune search around the fine-tuning of one model: the only code that knows ray.tune.

ASHA stops trials early by their objective at the same share of their schedules (a one-cycle schedule must know its
length, so lengths are searched, not cut); the given recipe is the first trial and is never stopped.
"""

import contextlib
import importlib.util
import logging
import os
import re
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import ray
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator

from cnnsens_bench.training.data import Share
from cnnsens_bench.training.finetune import Diverged
from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.training.space import Axis, axes, recipe_of
from cnnsens_bench.training.trial import STATE, Metrics, RecipeSearch, Trial, TrialLog, train_trial
from cnnsens_bench.utils.errors import UserError

METRICS = ("objective", "undegraded", "degraded", "progress", "epochs_done", "seconds", "scores")
"""What is kept of a report; Tune adds its own."""


@dataclass(frozen=True)
class Allotment:
    """What a trial has: `workers` processes of `cpus` cores and `gpus` GPUs each; `concurrent` trials at once."""

    concurrent: int
    workers: int
    cpus: int
    gpus: float


def allot(recipe_search: RecipeSearch, cpus: int, gpus: float, nodes: Sequence[int] = ()) -> Allotment:
    """For a cluster of `cpus` cores and `gpus` GPUs, `nodes`: the cores of each machine (one, where it is empty).

    A process is never given more cores than a machine has. Raises `UserError` when a trial asks for more.
    """
    search = recipe_search.search
    of_trial = search.gpus_per_trial if search.gpus_per_trial is not None else min(1.0, gpus)
    if of_trial > gpus:
        raise UserError(f"search.gpus_per_trial is {of_trial:g}, but the cluster has {gpus:g} GPUs")
    workers = search.workers_per_trial or max(1, int(of_trial))
    if workers > 1 and recipe_search.recipe.batch_size % workers:
        raise UserError(
            f"training.batch_size {recipe_search.recipe.batch_size} cannot be split among "
            f"search.workers_per_trial={workers}"
        )
    machines = [cores for cores in nodes if cores] or [cpus]
    at_once = search.concurrent or (int(gpus / of_trial) if of_trial else max(1, cpus // (workers * 8)))
    threads = search.cpus_per_trial or max(1, min(8, min(machines), cpus // (at_once * workers)))
    if threads * workers > cpus or threads > max(machines):
        raise UserError(
            f"search.cpus_per_trial: a trial would need {threads * workers} cores, the cluster has {cpus}, "
            f"its largest machine {max(machines)}"
        )
    if not search.concurrent and not of_trial:
        at_once = max(1, sum(cores // threads for cores in machines) // workers)
    return Allotment(at_once, workers, threads, of_trial / workers)


def search(recipe_search: RecipeSearch, tell: Callable[[Trial], None], tick: Callable[[Trial], None]) -> list[Trial]:
    """Run all trials and return them by number.

    Where `recipe_search.folder` (absolute) holds a search that was interrupted, it goes on from there. Trials that have
    ended are not repeated, also where that search had fewer trials than this one.

    `tell`: called with each trial as it ends; `tick`: with each that goes on, after an epoch. Ray must be connected.
    """
    _quiet()
    resources = ray.cluster_resources()
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    allotment = allot(recipe_search, int(resources.get("CPU", 1)), resources.get("GPU", 0.0), nodes)
    _Teller.listen(recipe_search, tell, tick)
    together = allotment.workers > 1
    # What drives a trial of several processes takes no core from them; Ray wants something in a request.
    asked: dict[str, float] = {"memory": 1e6} if together else {"cpu": allotment.cpus, "gpu": allotment.gpus}
    work = tune.with_parameters(
        _train_together if together else _train_alone, recipe_search=recipe_search, allotment=allotment
    )
    folder = recipe_search.folder / "tune"
    interrupted = folder.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _tuner(recipe_search, tune.with_resources(work, asked), allotment).fit()
        if interrupted and len(TrialLog(recipe_search.folder).trials()) < recipe_search.search.trials:
            shutil.rmtree(folder)  # what was interrupted was a search of fewer trials
            _tuner(recipe_search, tune.with_resources(work, asked), allotment).fit()
    return TrialLog(recipe_search.folder).trials()


def _tuner(recipe_search: RecipeSearch, trainable: Any, allotment: Allotment) -> tune.Tuner:
    folder = recipe_search.folder / "tune"
    if tune.Tuner.can_restore(str(folder)):
        try:
            return tune.Tuner.restore(str(folder), trainable, resume_unfinished=True)
        except Exception:
            # Killed while it wrote its state: it begins again, and the record answers for the trials that have ended.
            shutil.rmtree(folder)
    return tune.Tuner(
        trainable,
        param_space={key: _domain(axis) for key, axis in axes(recipe_search.search, recipe_search.recipe).items()},
        tune_config=tune.TuneConfig(
            metric="objective",
            mode="max",
            num_samples=recipe_search.search.trials,
            search_alg=_searcher(recipe_search),
            scheduler=_SparesTheGiven(
                time_attr="progress",
                max_t=100,
                grace_period=max(1, round(100 * recipe_search.search.grace)),
                reduction_factor=2,
            ),
            max_concurrent_trials=allotment.concurrent,
            # A process that has imported torch and decoded the images serves the next trial too.
            reuse_actors=allotment.workers == 1,
            trial_dirname_creator=lambda trial: f"trial-{_number(trial):04d}",
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            verbose=0,
            callbacks=[_Teller()],
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
    if not _has_optuna():
        return BasicVariantGenerator(points_to_evaluate=given, random_state=seed)
    from ray.tune.search.optuna import OptunaSearch

    return OptunaSearch(points_to_evaluate=given, seed=seed)


def _has_optuna() -> bool:
    return importlib.util.find_spec("optuna") is not None


def _domain(axis: Axis) -> Any:
    if axis.whole:
        return tune.randint(int(axis.low), int(axis.high) + 1)
    return tune.loguniform(axis.low, axis.high) if axis.log else tune.uniform(axis.low, axis.high)


class _SparesTheGiven(ASHAScheduler):
    """ASHA, but for the given recipe: the best is to be compared with it."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        action = super().on_trial_result(tune_controller, trial, result)
        return self.CONTINUE if _number(trial) == 1 else action


class _Teller(tune.Callback):
    """Records and passes on what trials do. Tune pickles it with the experiment, so what it calls is the class's."""

    recipe_search: ClassVar[RecipeSearch]
    tell: ClassVar[Callable[[Trial], None]]
    tick: ClassVar[Callable[[Trial], None]]

    @classmethod
    def listen(cls, recipe_search: RecipeSearch, tell: Callable[[Trial], None], tick: Callable[[Trial], None]) -> None:
        """From now on."""
        cls.recipe_search, cls.tell, cls.tick = recipe_search, staticmethod(tell), staticmethod(tick)

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        type(self).tick(self._read(trial, result))

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
        TrialLog(self.recipe_search.folder).add(ended)
        # Its weights are of no use: the best recipe is trained anew on all training images.
        for folder in Path(trial.path).glob("checkpoint_*"):
            shutil.rmtree(folder, ignore_errors=True)
        type(self).tell(ended)


def _number(trial: Any) -> int:
    """From 1, in the order in which Tune made them: its random search counts from 0 and says so in the id, its
    searchers count from 1."""
    random = re.search(r"_(\d+)$", trial.trial_id)
    return int(random[1]) + 1 if random else int(str(trial.experiment_tag).partition("_")[0])


def _train_alone(point: dict[str, Any], recipe_search: RecipeSearch, allotment: Allotment) -> None:
    """A trial in one process: Tune's function trainable."""
    # Ray gives a worker OMP_NUM_THREADS=1.
    torch.set_num_threads(allotment.cpus)
    recipe = recipe_of(point, recipe_search.recipe)
    if _answered(recipe_search, recipe):
        return

    def report(metrics: Metrics, folder: Path | None) -> None:
        tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder) if folder else None)

    checkpoint = tune.get_checkpoint()
    with checkpoint.as_directory() if checkpoint else contextlib.nullcontext() as folder:
        state = Path(folder) / STATE if folder else None
        _guarded(lambda: train_trial(recipe_search, recipe, state_file=state, report=report))


def _answered(recipe_search: RecipeSearch, recipe: Recipe) -> bool:
    """Whether the trial had ended, though Tune's state does not know."""
    known = TrialLog(recipe_search.folder).known(recipe)
    if known:
        tune.report({**known.metrics, "status": known.status, "error": known.error})
    return known is not None


def _guarded(work: Callable[[], None]) -> None:
    """A trial that diverges or fails ends with the worst objective, so that the searcher learns from it."""
    worst = {"objective": 0.0, "undegraded": 0.0, "degraded": 0.0, "progress": 100.0, "scores": []}
    try:
        work()
    except Diverged as error:
        tune.report({**worst, "status": "diverged", "error": str(error)})
    except Exception as error:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        tune.report({**worst, "status": "failed", "error": text})


def _train_together(point: dict[str, Any], recipe_search: RecipeSearch, allotment: Allotment) -> None:
    """A trial in several processes: Tune's function is only their driver."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    recipe = recipe_of(point, recipe_search.recipe)
    if _answered(recipe_search, recipe):
        return
    resources = {"CPU": allotment.cpus} | ({"GPU": allotment.gpus} if allotment.gpus else {})
    trainer = TorchTrainer(
        _train_share,
        train_loop_config={"task": recipe_search, "recipe": recipe, "threads": allotment.cpus},
        scaling_config=ScalingConfig(
            num_workers=allotment.workers, use_gpu=allotment.gpus > 0, resources_per_worker=resources
        ),
        # Ray Train finds the last checkpoint of this name on its own when a trial goes on.
        run_config=RunConfig(
            name="processes",
            storage_path=tune.get_context().get_trial_dir(),
            callbacks=[TuneReportCallback()],  # type: ignore[list-item]  # of Ray Train's second version
        ),
    )
    _guarded(lambda: _result_of(trainer))


def _result_of(trainer: Any) -> None:
    from ray.train import TrainingFailedError

    try:
        trainer.fit()
    except TrainingFailedError as error:
        text = str(error)
        raise (Diverged if "training diverged" in text else RuntimeError)(text) from None


def _train_share(given: dict[str, Any]) -> None:
    """One of the processes of a trial: Ray Train has set up torch.distributed."""
    from ray import train

    torch.set_num_threads(given["threads"])
    context = train.get_context()
    share = Share(context.get_world_rank(), context.get_world_size())
    checkpoint = train.get_checkpoint()

    def report(metrics: Metrics, folder: Path | None) -> None:
        train.report(metrics, checkpoint=train.Checkpoint.from_directory(str(folder)) if folder else None)

    with checkpoint.as_directory() if checkpoint else contextlib.nullcontext() as folder:
        state = Path(folder) / STATE if folder else None
        train_trial(given["task"], given["recipe"], state_file=state, report=report, share=share)


def _quiet() -> None:
    """Tune's notes and files that nobody reads; its state is written every second, so that a kill loses little."""
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one prints even where verbose is 0
    # Else Tune swallows the first Ctrl-C.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if _has_optuna():
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
