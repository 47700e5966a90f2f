"""MLflow: each suite is a run, its fine-tunings, trials and evaluations are runs nested under it. The only MLflow code.

What is logged comes from the store and from what training reported, after the work; a server that cannot be reached
or dies costs one warning. A run that is resumed goes on with its own runs: they are found by their tag `key`.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf
from rich.console import Console

from cnnsens_bench.config.schema import Config
from cnnsens_bench.degradations import parse_degradation
from cnnsens_bench.figures.curves import curves
from cnnsens_bench.figures.summary import short_defense
from cnnsens_bench.store import Store
from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.training.trial import Trial
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.storage import local_folder

VIEWS = {
    "accuracy": "SELECT * FROM accuracy WHERE protocol = ? AND dataset = ?",
    "label_change": "SELECT * FROM label_change WHERE protocol = ? AND dataset = ?",
}
LEADERS = "SELECT * FROM leaderboard WHERE protocol = ? AND dataset = ?"
SUMMARY = ("accuracy", "mean_degraded_accuracy", "mean_label_change", "worst_accuracy")
LOSSES = 200
"""Points of a loss curve that are kept."""
MOST = 1000
"""Metrics that MLflow takes at once."""

Metrics = list[tuple[str, float, int]]
"""(name, value, step)."""


class Tracker:
    """Logs one suite's run. Without a client (tracking off, or the server gone) it does nothing."""

    def __init__(self, config: Config, run_id: str, dataset: str, console: Console) -> None:
        self.config, self.run_id, self.console = config, run_id, console
        self.tags = {"suite": config.suite, "run_id": run_id, "dataset": dataset}
        if config.study:
            self.tags["study"] = config.study
        self.client: Any = None
        self.parent: str | None = None
        if config.tracking.enabled:
            with self._tried():
                self._open()

    def fine_tuned(
        self, title: str, model: str, recipe: Recipe, cached: bool, losses: Sequence[tuple[int, float]]
    ) -> None:
        """A fine-tuning that has ended; `losses`: (step, mean loss of late)."""
        thinned = losses[:: max(1, len(losses) // LOSSES)]
        self._child(
            f"fine-tuning/{title}",
            f"fine-tune {title}",
            {"kind": "fine-tuning", **_tags_of(model)},
            _recipe_params(recipe),
            [("training/loss", loss, step) for step, loss in thinned],
            # A checkpoint from the cache has no curve to tell: what an earlier run has logged stays.
            replace=not cached,
        )

    def trial(self, model: str, trial: Trial) -> None:
        """A trial of a search that has ended."""
        metrics: Metrics = [
            (f"search/{key}", float(trial.metrics[key]), 0)
            for key in ("objective", "undegraded", "degraded", "progress", "epochs_done", "seconds")
            if key in trial.metrics
        ]
        metrics += [
            (_safe(f"validation/{name}"), value, step_of(name, level))
            for name, level, value in trial.metrics.get("scores", ())
        ]
        tags = {"kind": "trial", "trial_status": trial.status, **_tags_of(model)}
        self._child(
            f"trial/{model}/{trial.number}",
            f"trial {trial.number} of {model}",
            tags,
            _recipe_params(trial.recipe),
            metrics,
        )

    def finish(
        self,
        store: Store,
        protocol: str,
        status: str,
        entrants: Iterable[tuple[str, str, Recipe]] = (),
        drawn: Iterable[Path] = (),
    ) -> None:
        """The evaluation of each entrant (model, defense, recipe), figures, and the end of the suite's run.

        `status`: done, incomplete or interrupted; `drawn`: figures that the run made already.
        """
        which = [protocol, self.tags["dataset"]]
        with self._tried():
            if self.client is None:
                return
            tables = {name: store.query(sql, which) for name, sql in VIEWS.items()}
            leaders = store.query(LEADERS, which)
            for model, defense, recipe in entrants:
                metrics = _curves_of(tables, leaders, model, defense)
                tags = {"kind": "evaluation", "defense": defense, "protocol": protocol, **_tags_of(model)}
                params = {"model": model, "defense": defense, **_recipe_params(recipe)}
                name = f"{tags['architecture']}, {short_defense(defense)}"
                self._child(f"evaluation/{model}/{defense}", name, tags, params, metrics)
            self._figures(store, sorted(tables["accuracy"]["defense"].unique()))
            for file in drawn:
                self.client.log_artifact(self.parent, str(file), "figures")
        self.end(status)

    def end(self, status: str) -> None:
        """The end of the suite's run."""
        if self.client is not None and self.parent is not None:
            with self._tried():
                self.client.set_tag(self.parent, "status", status)
                ended = {"done": "FINISHED", "incomplete": "FAILED"}.get(status, "KILLED")
                self.client.set_terminated(self.parent, ended)

    def _open(self) -> None:
        # A server that is gone must not hold the run up; whoever wants patience sets these.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # Imported only here: it needs a second, and a run without tracking need not have it at all.
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        output = local_folder(self.config.output_folder, self.config.cache).absolute()
        local = self.config.tracking.uri is None
        if local and not isinstance(self.config.output_folder, Path):
            output.mkdir(parents=True, exist_ok=True)
            where = f"MLflow's runs lie in {output / 'mlflow.db'} on this machine: tracking.uri= names another place"
            self.console.print(where, markup=False, soft_wrap=True)
        client = MlflowClient(self.config.tracking.uri or f"sqlite:///{output / 'mlflow.db'}")
        name = self.config.tracking.experiment
        known = client.get_experiment_by_name(name)
        artifacts = (output / "mlartifacts").as_uri() if local else None
        experiment = known.experiment_id if known else client.create_experiment(name, artifact_location=artifacts)
        self.client, self.experiment = client, experiment
        self.parent = self._begin(self.run_id, self.config.title, {"kind": "suite"}, _flat(_plain(self.config)))
        config = OmegaConf.to_yaml(OmegaConf.create(_plain(self.config)))
        self.client.log_text(self.parent, config, "config.yaml")

    def _begin(self, key: str, name: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> str:
        """The run of that key, running again, or a new one."""
        for run in self._found(key):
            self.client.update_run(run.info.run_id, status="RUNNING")
            return run.info.run_id
        return self._create(key, name, tags, params, [])

    def _child(
        self,
        key: str,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        metrics: Metrics,
        replace: bool = True,
    ) -> None:
        """A nested run that has ended; one of the same key is replaced where its content differs."""
        if self.client is None or self.parent is None:
            return
        with self._tried():
            content = json.dumps([name, dict(tags), dict(params), metrics], sort_keys=True, default=str)
            digest = hashlib.sha256(content.encode()).hexdigest()[:16]
            key = f"{self.run_id}/{key}"
            for run in self._found(key):
                if run.data.tags.get("content") == digest or not replace:
                    return
                self.client.delete_run(run.info.run_id)
            run_id = self._create(key, name, {"mlflow.parentRunId": self.parent, **tags}, params, metrics)
            # Last: a run that broke off before this is made anew the next time.
            self.client.set_tag(run_id, "content", digest)
            self.client.set_terminated(run_id)

    def _found(self, key: str) -> list[Any]:
        return self.client.search_runs([self.experiment], f"tags.key = '{key.replace(chr(39), '_')}'", max_results=1)

    def _create(self, key: str, name: str, tags: Mapping[str, str], params: Mapping[str, Any], metrics: Metrics) -> str:
        from mlflow.entities import Metric, Param

        every = {"mlflow.runName": name, "key": key.replace("'", "_"), **self.tags, **tags}
        run = self.client.create_run(self.experiment, tags={k: str(v)[:5000] for k, v in every.items()})
        now = int(time.time() * 1000)
        logged = [Param(k, str(v)[:6000]) for k, v in params.items()]
        for start in range(0, len(logged), 100):
            self.client.log_batch(run.info.run_id, params=logged[start : start + 100])
        points = [Metric(metric, value, now, step) for metric, value, step in metrics]
        for start in range(0, len(points), MOST):
            self.client.log_batch(run.info.run_id, metrics=points[start : start + MOST])
        return run.info.run_id

    def _figures(self, store: Store, defenses: Sequence[str]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for defense in defenses:
                safe = "".join(c if c.isalnum() else "_" for c in defense).strip("_")
                file = Path(folder) / f"curves-{safe}.png"
                with contextlib.suppress(UserError):  # one level alone, or several protocols: nothing to draw
                    curves(store, file, defense)
                    self.client.log_artifact(self.parent, str(file), "figures")

    @contextlib.contextmanager
    def _tried(self) -> Iterator[None]:
        """Whatever goes wrong is said once, and ends the tracking, not the run."""
        try:
            yield
        except Exception as error:
            self.client = None
            where = self.config.tracking.uri or "the local store"
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            self.console.print(
                f"warning: MLflow cannot be reached at {where}, this run goes on without it ({reason})",
                markup=False,
                soft_wrap=True,
            )


def step_of(degradation: str, level: float) -> int:
    """MLflow's steps are whole numbers: the level itself where the degradation's levels are whole (σ = 16 → 16), else
    its thousandths (p = 0.08 → 80)."""
    return round(level * _scale(degradation, (level,)))


def _scale(degradation: str, measured: Sequence[float]) -> int:
    try:
        registered = parse_degradation(degradation).levels or ()
    except UserError:
        registered = ()
    return 1 if all(float(level).is_integer() for level in (*registered, *measured)) else 1000


def _curves_of(tables: Mapping[str, pd.DataFrame], leaders: pd.DataFrame, model: str, defense: str) -> Metrics:
    """`accuracy/<degradation>` and `label_change/<degradation>` by step, from the undegraded at step 0; beside them
    `level/<degradation>`, the levels themselves, and the figures of the leaderboard."""

    def own(table: pd.DataFrame) -> pd.DataFrame:
        return table[(table["model"] == model) & (table["defense"] == defense)]

    metrics: Metrics = []
    for row in own(leaders).to_dict("records"):
        metrics += [(key, float(row[key]), 0) for key in SUMMARY if pd.notna(row[key])]
    undegraded = own(tables["accuracy"]).query("degradation == 'none'")["value"]
    for name, table in tables.items():
        rows = own(table).query("degradation != 'none'")
        for degradation, group in rows.groupby("degradation"):
            scale = _scale(str(degradation), group["level"].tolist())
            curve = dict(zip(group["level"], group["value"], strict=True))
            if 0.0 not in curve and len(undegraded):
                curve[0.0] = float(undegraded.iloc[0]) if name == "accuracy" else 0.0
            for level, value in sorted(curve.items()):
                metrics.append((_safe(f"{name}/{degradation}"), float(value), round(level * scale)))
                if name == "accuracy":
                    metrics.append((_safe(f"level/{degradation}"), float(level), round(level * scale)))
    return metrics


def _safe(name: str) -> str:
    """MLflow takes letters, digits and `_-. :/` in a name."""
    plain = "".join(c if c.isalnum() or c in "_-. :/" else "_" for c in name)[:250]
    return re.sub("/{2,}", "/", plain).strip("/")


def _tags_of(model: str) -> dict[str, str]:
    return {"model": model, "architecture": model.partition("/")[2]}


def _recipe_params(recipe: Recipe) -> dict[str, Any]:
    return {f"training.{key}": value for key, value in dataclasses.asdict(recipe).items()}


def _plain(config: Config) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return found
