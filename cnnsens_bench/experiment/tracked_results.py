"""What of a run is logged to MLflow: it turns trainings, trials and results into what `cnnsens_bench.tracking` logs."""

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from cnnsens_bench.config.schema import Config
from cnnsens_bench.datasets import Samples
from cnnsens_bench.defenses import parse_defense
from cnnsens_bench.degradations import parse_degradation
from cnnsens_bench.engine.plan import Entrant
from cnnsens_bench.experiment.entrants import Pairing
from cnnsens_bench.experiment.resolve import ModelConfig
from cnnsens_bench.figures.curves import curves, defense_curves
from cnnsens_bench.figures.summary import short_defense
from cnnsens_bench.store import Store
from cnnsens_bench.tracking import (
    Metrics,
    NestedRun,
    RunDescription,
    TrackedDataset,
    TrackedNetwork,
    Tracker,
    TrackingSettings,
)
from cnnsens_bench.training.finetune import Diverged, Trained
from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.training.trial import Trial
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.storage import local_folder

VIEWS = {
    "accuracy": "SELECT * FROM accuracy WHERE protocol = ? AND dataset = ?",
    "label_change": "SELECT * FROM label_change WHERE protocol = ? AND dataset = ?",
}
LEADERBOARD = "SELECT * FROM leaderboard WHERE protocol = ? AND dataset = ?"
SUMMARY = ("accuracy", "mean_degraded_accuracy", "mean_label_change", "worst_accuracy")
"""Columns of the leaderboard that an evaluation has as metrics."""
TRIAL_METRICS = ("objective", "undegraded", "degraded", "progress", "epochs_done", "seconds")
LOSSES = 200
"""About how many points of a loss curve are logged."""


def start_tracking(config: Config, run_id: str, samples: Samples, console: Console, context: str) -> Tracker:
    """Begin to log a run, or go on with one that was interrupted.

    Parameters
    ----------
    config
        The run's configuration, which is logged whole.
    run_id
        The name by which the program knows the run.
    samples
        The data set.
    console
        Where a person reads warnings.
    context
        What the run uses the data set for: "evaluation" or "training".
    """
    settings = TrackingSettings(
        enabled=config.tracking.enabled,
        uri=config.tracking.uri,
        experiment=config.tracking.experiment,
        folder=local_folder(config.output_folder, config.cache).absolute(),
    )
    if settings.enabled and not settings.uri and not isinstance(config.output_folder, Path):
        settings.folder.mkdir(parents=True, exist_ok=True)
        database = settings.folder / "mlflow.db"
        note = f"MLflow's runs lie in {database} on this machine: tracking.uri= names another place"
        console.print(note, markup=False, soft_wrap=True)
    splits = samples.table["split"].value_counts()
    dataset = TrackedDataset(
        samples.name,
        samples.fingerprint(),
        {"dataset": config.dataset.name, "root": str(config.dataset.root or config.data_root or "")},
        {"num_rows": len(samples.table), "classes": len(samples.classes), **{key: int(n) for key, n in splits.items()}},
    )
    parameters = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return Tracker(settings, RunDescription(run_id, config.suite, config.study, dataset, context, parameters), console)


def trained_part(defense: str) -> str:
    """Return the part of a defense that changes the training, or "none" where nothing does.

    Examples
    --------
    >>> trained_part("input_dropout(p=0.1) + gaussian_filter(size=3, sigma=0.5)")
    'input_dropout(p=0.1)'
    >>> trained_part("gaussian_filter(size=3, sigma=0.5)")
    'none'
    """
    return " + ".join(part for part in defense.split(" + ") if parse_defense(part).training) or "none"


def fine_tuning_run(
    title: str,
    model: ModelConfig,
    defense: str,
    seed: int,
    result: Trained | Diverged,
    losses: Sequence[tuple[int, float]],
) -> NestedRun:
    """Describe a fine-tuning that has ended.

    Parameters
    ----------
    title
        The key of the checkpoint, which tells the fine-tuning from the others of the run.
    model
        What was trained, and how.
    defense
        The defense that the network is trained for.
    seed
        The seed of the training.
    result
        The checkpoint, or the error that says why there is none.
    losses
        Steps and running means of the loss.
    """
    tags = {"kind": "fine-tuning", "defense": defense, **_model_tags(model.name)}
    parameters = _network_parameters(model, seed)
    thinned = losses[:: max(1, len(losses) // LOSSES)]
    metrics: Metrics = [("training/loss", loss, step) for step, loss in thinned]
    key, name = f"fine-tuning/{title}", f"fine-tune {title}"
    if isinstance(result, Diverged):
        return NestedRun(key, name, "training", {**tags, "error": str(result)}, parameters, metrics, failed=True)
    return NestedRun(key, name, "training", tags, parameters, metrics, _network(title, model.name, defense, result))


def trial_run(model: str, trial: Trial) -> NestedRun:
    """Describe a trial of a search that has ended."""
    known = [key for key in TRIAL_METRICS if key in trial.metrics]
    metrics: Metrics = [(f"search/{key}", float(trial.metrics[key]), 0) for key in known]
    metrics += [
        (f"validation/{degradation}", accuracy, step_of(degradation, level))
        for degradation, level, accuracy in trial.metrics.get("scores", ())
    ]
    tags = {"kind": "trial", "trial_status": trial.status, **_model_tags(model)}
    key, name = f"trial/{model}/{trial.number}", f"trial {trial.number} of {model}"
    return NestedRun(key, name, "training", tags, _recipe_parameters(trial.recipe), metrics)


def log_results(
    tracker: Tracker,
    store: Store,
    protocol: str,
    dataset: str,
    pairing: Pairing,
    trained: Mapping[str, Trained],
    seed: int,
    figures: Iterable[Path] = (),
) -> None:
    """Log the evaluation of every entrant, and the run's figures.

    Parameters
    ----------
    tracker
        The run that they belong to.
    store
        Where the results are.
    protocol, dataset
        Which of its results are the run's.
    pairing
        The entrants and their trainings.
    trained
        The checkpoints by key.
    seed
        The seed of the run.
    figures
        Files of figures that the run has drawn already.
    """
    if not tracker.active:
        return
    with tracker.attempt():
        tables = {name: store.query(sql, [protocol, dataset]) for name, sql in VIEWS.items()}
        leaderboard = store.query(LEADERBOARD, [protocol, dataset])
        for entrant in pairing.entrants:
            metrics = _summary_metrics(leaderboard, entrant) + _curve_metrics(tables, entrant)
            model = pairing.trainings[entrant.checkpoint]
            tracker.log(_evaluation_run(entrant, model, protocol, trained[entrant.checkpoint], seed, metrics))
        tracker.log_files(figures, "figures")
        with tempfile.TemporaryDirectory() as folder:
            tracker.log_files(_draw(store, tables["accuracy"], dataset, Path(folder)), "figures")


def _evaluation_run(
    entrant: Entrant, model: ModelConfig, protocol: str, trained: Trained, seed: int, metrics: Metrics
) -> NestedRun:
    """Describe what came of evaluating an entrant."""
    tags = {"kind": "evaluation", "defense": entrant.defense, "protocol": protocol, **_model_tags(entrant.model)}
    network = _network(entrant.checkpoint, entrant.model, entrant.defense, trained)
    parameters = {"defense": entrant.defense, **_network_parameters(model, seed)}
    key = f"evaluation/{entrant.model}/{entrant.defense}"
    return NestedRun(key, network.name, "evaluation", tags, parameters, metrics, network)


def _network(title: str, model: str, defense: str, trained: Trained) -> TrackedNetwork:
    """Describe a trained network; with a defense that works at test time, it is another network than without."""
    key = f"network/{title}" if trained_part(defense) == defense else f"network/{title}/{defense}"
    name = f"{_model_tags(model)['architecture']}, {short_defense(defense)}"
    return TrackedNetwork(key, name, trained.path, trained.digest, trained_by=f"fine-tuning/{title}")


def _model_tags(model: str) -> dict[str, str]:
    return {"model": model, "architecture": model.partition("/")[2]}


def _network_parameters(model: ModelConfig, seed: int) -> dict[str, Any]:
    """Return everything that decides how a network is trained."""
    own = {"model": model.name, "weights": model.weights, "input_size": model.input_size, "seed": seed}
    return {**own, **_recipe_parameters(model.recipe)}


def _recipe_parameters(recipe: Recipe) -> dict[str, Any]:
    return {f"training.{key}": value for key, value in dataclasses.asdict(recipe).items()}


def step_of(degradation: str, level: float) -> int:
    """Return the step at which a level is logged, since MLflow's steps are whole numbers.

    It is the level itself where all levels of the degradation are whole, and its thousandths elsewhere.

    Examples
    --------
    >>> step_of("gaussian_rgb", 16), step_of("pepper", 0.08)
    (16, 80)
    """
    return round(level * _scale(degradation, (level,)))


def _scale(degradation: str, measured: Sequence[float]) -> int:
    try:
        registered = parse_degradation(degradation).levels or ()
    except UserError:
        registered = ()
    return 1 if all(float(level).is_integer() for level in (*registered, *measured)) else 1000


def _rows_of(table: pd.DataFrame, entrant: Entrant) -> pd.DataFrame:
    return table[(table["model"] == entrant.model) & (table["defense"] == entrant.defense)]


def _summary_metrics(leaderboard: pd.DataFrame, entrant: Entrant) -> Metrics:
    rows = _rows_of(leaderboard, entrant).to_dict("records")
    return [(key, float(row[key]), 0) for row in rows for key in SUMMARY if pd.notna(row[key])]


def _curve_metrics(tables: Mapping[str, pd.DataFrame], entrant: Entrant) -> Metrics:
    """Return accuracy and label change of each degradation by step, from the undegraded images at step 0.

    `level/<degradation>` holds the levels themselves.
    """
    metrics: Metrics = []
    undegraded = _rows_of(tables["accuracy"], entrant).query("degradation == 'none'")["value"]
    for name, table in tables.items():
        rows = _rows_of(table, entrant).query("degradation != 'none'")
        for degradation, group in rows.groupby("degradation"):
            scale = _scale(str(degradation), group["level"].tolist())
            curve = dict(zip(group["level"], group["value"], strict=True))
            if 0.0 not in curve and len(undegraded):
                curve[0.0] = float(undegraded.iloc[0]) if name == "accuracy" else 0.0
            for level, value in sorted(curve.items()):
                metrics.append((f"{name}/{degradation}", float(value), round(level * scale)))
                if name == "accuracy":
                    metrics.append((f"level/{degradation}", float(level), round(level * scale)))
    return metrics


def _draw(store: Store, accuracy: pd.DataFrame, dataset: str, folder: Path) -> Iterator[Path]:
    """Draw the networks under each defense, and the defenses of each network; yield the files."""
    for defense in sorted(accuracy["defense"].unique()):
        file = folder / f"curves-{_file_name(defense)}.png"
        with contextlib.suppress(UserError):  # it has a single level, or the store several protocols
            curves(store, file, defense)
            yield file
    for model in sorted(accuracy.loc[accuracy["defense"] != "none", "model"].unique()):
        file = folder / f"defenses-{_file_name(model)}.png"
        with contextlib.suppress(UserError):
            defense_curves(store, file, model, dataset)
            yield file


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in text).strip("_")
