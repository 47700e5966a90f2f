"""What of a run is logged to MLflow: it turns trainings, trials and results into what `cnnsens_bench.tracking` logs."""

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from cnnsens_bench import tracking
from cnnsens_bench.config.schema import Config
from cnnsens_bench.datasets import Samples
from cnnsens_bench.defenses import parse_defense
from cnnsens_bench.degradations import parse_degradation
from cnnsens_bench.engine.sweep import Entrant
from cnnsens_bench.experiment.prepare import ResolvedStudy
from cnnsens_bench.experiment.resolve import ModelConfig, RunSettings
from cnnsens_bench.figures.curves import curves, defense_curves
from cnnsens_bench.figures.summary import short_defense
from cnnsens_bench.models.base import architecture_of
from cnnsens_bench.store import Store
from cnnsens_bench.training.finetune import Trained
from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.training.trainer import Diverged
from cnnsens_bench.training.trial import Trial
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.progress import say
from cnnsens_bench.utils.storage import local_folder

TABLE = "FROM query_table(?) WHERE protocol = ? AND dataset = ?"
SUMMARY = ("accuracy", "mean_degraded_accuracy", "mean_label_change", "worst_accuracy")
"""Columns of the leaderboard that an evaluation has as metrics."""
TRIAL_METRICS = ("objective", "undegraded", "degraded", "progress", "epochs_done", "seconds")
LOSSES = 200
"""About how many points of a loss curve are logged."""

Losses = list[tuple[int, float]]
"""Steps and running means of the loss."""


@dataclasses.dataclass(frozen=True)
class RunContext:
    """What all steps of a run work with: its settings and data set, and where a person and MLflow hear of them."""

    settings: RunSettings
    samples: Samples
    console: Console
    tracker: tracking.Tracker


def start_tracking(config: Config, run_id: str, samples: Samples, console: Console, context: str) -> tracking.Tracker:
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
    folder = local_folder(config.output_folder, config.cache).absolute()
    settings = tracking.TrackingSettings(**vars(config.tracking), folder=folder)
    if settings.enabled and not settings.uri and not isinstance(config.output_folder, Path):
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "mlflow.db"
        say(console, f"MLflow's runs lie in {file} on this machine: tracking.uri= names another place")
    counts = {"num_rows": len(samples.rows), "classes": len(samples.classes)}
    by_split = samples.rows.counts.groupby(level="split").sum()
    counts |= {split: int(count) for split, count in by_split.items()}
    source = {"dataset": config.dataset.name, "root": str(config.dataset.root or config.data_root or "")}
    dataset = tracking.TrackedDataset(samples.name, samples.fingerprint(), source, counts)
    parameters = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    run = tracking.RunDescription(run_id, config.suite, config.study, dataset, context, parameters)
    return tracking.Tracker(settings, run, console)


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
    title: str, model: ModelConfig, defense: str, seed: int, result: Trained | Diverged, losses: Losses
) -> tracking.NestedRun:
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
    metrics: tracking.Metrics = [("training/loss", loss, step) for step, loss in thinned]
    key, name = f"fine-tuning/{title}", f"fine-tune {title}"
    network = None
    if isinstance(result, Diverged):
        tags["error"] = str(result)
    else:
        network = _network(title, model.name, defense, result)
    return tracking.NestedRun(key, name, "training", tags, parameters, metrics, network, failed=network is None)


def trial_run(model: str, trial: Trial) -> tracking.NestedRun:
    """Describe a trial of a search that has ended."""
    known = [key for key in TRIAL_METRICS if key in trial.metrics]
    metrics: tracking.Metrics = [(f"search/{key}", float(trial.metrics[key]), 0) for key in known]
    for degradation, level, accuracy in trial.metrics.get("scores", ()):
        metrics.append((f"validation/{degradation}", accuracy, step_of(degradation, level)))
    tags = {"kind": "trial", "trial_status": trial.status, **_model_tags(model)}
    key, name = f"trial/{model}/{trial.number}", f"trial {trial.number} of {model}"
    return tracking.NestedRun(key, name, "training", tags, _recipe_parameters(trial.recipe), metrics)


def log_results(
    study: ResolvedStudy, tracker: tracking.Tracker, store: Store, trained: Mapping[str, Trained], figures: list[Path]
) -> None:
    """Log the evaluation of every entrant, and the study's figures.

    Parameters
    ----------
    study
        What was evaluated.
    tracker
        The run that the evaluations belong to.
    store
        Where the results are.
    trained
        The checkpoints by key.
    figures
        Files of figures that the run has drawn already.
    """
    if not tracker.active:
        return
    protocol, dataset = study.protocol, study.samples.name
    with tracker.attempt():
        views = ("leaderboard", "accuracy", "label_change")
        leaders, *tables = (store.query(TABLE, [view, protocol, dataset]) for view in views)
        leaves_out = study.settings.budget < 1 or study.config.until is not None
        shares = store.query(TABLE, ["evaluated_share", protocol, dataset]) if leaves_out else None
        for entrant in study.pairing.entrants:
            rows = _rows_of(leaders, entrant).to_dict("records")
            metrics = [(key, float(row[key]), 0) for row in rows for key in SUMMARY if pd.notna(row[key])]
            if shares is not None:
                metrics += [
                    ("evaluated_share", float(share), 0) for share in _rows_of(shares, entrant)["share"].dropna()
                ]
            metrics += _curve_metrics(*(_rows_of(table, entrant) for table in tables))
            model, defense = study.pairing.trainings[entrant.checkpoint], entrant.defense
            tags = {"kind": "evaluation", "defense": defense, "protocol": protocol, **_model_tags(model.name)}
            parameters = {"defense": defense, **_network_parameters(model, study.settings.seed)}
            network = _network(entrant.checkpoint, model.name, defense, trained[entrant.checkpoint])
            key = f"evaluation/{model.name}/{defense}"
            tracker.log(tracking.NestedRun(key, network.name, "evaluation", tags, parameters, metrics, network))
        tracker.log_files(figures, "figures")
        with tempfile.TemporaryDirectory() as folder:
            tracker.log_files(_draw(store, tables[0], dataset, Path(folder)), "figures")


def _network(title: str, model: str, defense: str, trained: Trained) -> tracking.TrackedNetwork:
    """Describe a trained network; with a defense that works at test time, it is another network than without."""
    key = f"network/{title}" if trained_part(defense) == defense else f"network/{title}/{defense}"
    name = f"{_model_tags(model)['architecture']}, {short_defense(defense)}"
    return tracking.TrackedNetwork(key, name, trained.path, trained.digest, trained_by=f"fine-tuning/{title}")


def _model_tags(model: str) -> dict[str, str]:
    return {"model": model, "architecture": architecture_of(model)}


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
    levels = [*measured]
    with contextlib.suppress(UserError):
        levels += parse_degradation(degradation).levels or ()
    return 1 if all(float(level).is_integer() for level in levels) else 1000


def _rows_of(table: pd.DataFrame, entrant: Entrant) -> pd.DataFrame:
    return table[(table["model"] == entrant.model) & (table["defense"] == entrant.defense)]


def _curve_metrics(accuracy: pd.DataFrame, label_change: pd.DataFrame) -> tracking.Metrics:
    """Return an entrant's accuracy and label change of each degradation by step, from the undegraded images at step 0.

    `level/<degradation>` holds the levels themselves.
    """
    metrics: tracking.Metrics = []
    undegraded = accuracy.query("degradation == 'none'")["value"].tolist()
    for name, rows in (("accuracy", accuracy), ("label_change", label_change)):
        for degradation, group in rows.query("degradation != 'none'").groupby("degradation"):
            scale = _scale(str(degradation), group["level"].tolist())
            curve = dict(zip(group["level"], group["value"], strict=True))
            if undegraded:
                curve.setdefault(0.0, undegraded[0] if name == "accuracy" else 0.0)
            for level, value in sorted(curve.items()):
                metrics.append((f"{name}/{degradation}", float(value), round(level * scale)))
                if name == "accuracy":
                    metrics.append((f"level/{degradation}", float(level), round(level * scale)))
    return metrics


def _draw(store: Store, accuracy: pd.DataFrame, dataset: str, folder: Path) -> Iterator[Path]:
    """Draw the networks under each defense, and the defenses of each network; yield the files."""
    defended = accuracy.loc[accuracy["defense"] != "none", "model"]
    wanted: list[tuple[str, Callable[..., object], list[str]]]
    wanted = [("curves", curves, [defense]) for defense in sorted(accuracy["defense"].unique())]
    wanted += [("defenses", defense_curves, [model, dataset]) for model in sorted(defended.unique())]
    for name, draw, options in wanted:
        subject = "".join(c if c.isalnum() else "_" for c in options[0]).strip("_")
        file = folder / f"{name}-{subject}.png"
        with contextlib.suppress(UserError):  # it has a single level, or the store several protocols
            draw(store, file, *options)
            yield file
