"""What a run logs to MLflow. This is the only file that knows mlflow.

A suite is a run of MLflow; its fine-tunings, trials and evaluations are runs nested under it, and each trained network
is a logged model. A run that is resumed goes on with its own runs, which are found by their tag `key`. What is logged
is put together in `cnnsens_bench.experiment.tracked_results`.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from cnnsens_bench.utils.formatting import flatten_mapping
from cnnsens_bench.utils.progress import say

METRICS_PER_CALL = 1000
"""Metrics that MLflow takes at once."""
PARAMETERS_PER_CALL = 100
"""Parameters that MLflow takes at once."""
DIGEST_LENGTH = 36
"""Characters that MLflow keeps of a data set's digest."""

Metrics = list[tuple[str, float, int]]
"""Name, value and step of each metric."""


@dataclass(frozen=True)
class TrackingSettings:
    """Where a run is logged, if at all."""

    enabled: bool
    uri: str | None
    """MLflow's tracking URI, or None for the file `mlflow.db` in `folder`."""
    experiment: str
    """The name of the experiment, which is made where it is missing."""
    folder: Path
    """An absolute path. It holds `mlflow.db` and `mlartifacts` where there is no `uri`."""


@dataclass(frozen=True)
class TrackedDataset:
    """A data set as an input of runs."""

    name: str
    digest: str
    """A hash of the samples, of which MLflow keeps `DIGEST_LENGTH` characters."""
    source: Mapping[str, str]
    """Where it comes from, as names and values."""
    profile: Mapping[str, int]
    """How large it is, as names and numbers."""


@dataclass(frozen=True)
class RunDescription:
    """What is known of a suite's run when it begins."""

    run_id: str
    """The name by which the program knows the run."""
    suite: str
    study: str | None
    """The name of the study, or None where the suite is a single sweep."""
    dataset: TrackedDataset
    context: str
    """What the data set is used for: "evaluation" or "training"."""
    parameters: Mapping[str, Any]
    """The configuration, as nested mappings of plain values."""


@dataclass(frozen=True)
class TrackedNetwork:
    """A trained network, with the defense that stands before it where there is one: a logged model of MLflow.

    MLflow gets no weights. The tags of the logged model hold the path and the digest of the checkpoint.
    """

    key: str
    """What tells it from the other networks of the suite's run."""
    name: str
    path: Path
    """The file of the checkpoint."""
    digest: str
    """SHA-256 of the weights."""
    trained_by: str
    """The `NestedRun.key` of the fine-tuning that gave the weights."""


@dataclass(frozen=True)
class NestedRun:
    """A run under the suite's run: a fine-tuning, a trial or an evaluation that has ended."""

    key: str
    """What tells it from the others, such as `evaluation/<model>/<defense>`."""
    name: str
    context: str
    """What it uses the data set for: "evaluation" or "training"."""
    tags: Mapping[str, str]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=list)
    network: TrackedNetwork | None = None
    """The network that it trained or evaluated. It has the run's tags and parameters, and an evaluation's metrics."""
    failed: bool = False


class Tracker:
    """Logs one suite's run. Where tracking is off or the server cannot be reached, it does nothing.

    Parameters
    ----------
    settings
        Where to log.
    run
        What the suite's run is.
    console
        Where the one warning goes when the server cannot be reached.
    """

    def __init__(self, settings: TrackingSettings, run: RunDescription, console: Console) -> None:
        self.settings, self.run, self.console = settings, run, console
        self.tags = {"suite": run.suite, "run_id": run.run_id, "dataset": run.dataset.name}
        self.tags |= {"study": run.study} if run.study else {}
        self._dataset_digest = run.dataset.digest[:DIGEST_LENGTH]
        self._client: Any = None
        self._suite_run = ""
        if settings.enabled:
            with self.attempt():
                self._open()

    @property
    def active(self) -> bool:
        """Whether what is logged reaches a server or a file."""
        return self._client is not None

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """Turn any exception of the body into one warning. It ends the tracking, not the run."""
        try:
            yield
        except Exception as error:
            self._client = None
            target = self.settings.uri or "the local store"
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            message = f"warning: MLflow cannot be reached at {target}, this run goes on without it ({reason})"
            say(self.console, message)

    def log(self, run: NestedRun, replace: bool = True) -> None:
        """Log a nested run that has ended.

        Parameters
        ----------
        run
            What to log.
        replace
            Whether a run of the same key is replaced where it was logged with another content.
        """
        if not self.active:
            return
        with self.attempt():
            digest = self._content_digest(run)
            for logged in self._runs_of(run.key):
                if logged.data.tags.get("content") == digest or not replace:
                    return
                self._client.delete_run(logged.info.run_id)
            network, evaluates = run.network, run.context == "evaluation"
            run_id = self._create(run, self._logged_model(run, network) if network and evaluates else None)
            if network and not evaluates:
                self._logged_model(run, network)
            # This comes last: a run that broke off earlier is logged again the next time.
            self._client.set_tag(run_id, "content", digest)
            self._client.set_terminated(run_id, "FAILED" if run.failed else "FINISHED")

    def log_files(self, files: Iterable[Path], folder: str | None = None) -> None:
        """Attach files to the suite's run, in a folder of its artifacts."""
        if self.active:
            with self.attempt():
                for file in files:
                    self._client.log_artifact(self._suite_run, str(file), folder)

    def end(self, status: str) -> None:
        """End the suite's run; `status` is "done", "incomplete" or "interrupted"."""
        if self.active:
            with self.attempt():
                self._client.set_tag(self._suite_run, "status", status)
                ended = {"done": "FINISHED", "incomplete": "FAILED"}.get(status, "KILLED")
                self._client.set_terminated(self._suite_run, ended)

    def _open(self) -> None:
        """Connect, find or make the experiment, and begin the suite's run or go on with it."""
        # A server that is gone must not delay the run. Users who want more patience set these variables themselves.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # Imported only here: it takes a second, which a run without tracking need not wait for.
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        uri, name, folder = self.settings.uri, self.settings.experiment, self.settings.folder
        client = MlflowClient(uri or f"sqlite:///{folder / 'mlflow.db'}")
        artifacts = None if uri else (folder / "mlartifacts").as_uri()
        known = client.get_experiment_by_name(name)
        self._experiment = known.experiment_id if known else client.create_experiment(name, artifacts)
        self._client = client
        for logged in self._runs_of(""):
            self._suite_run = logged.info.run_id
            client.update_run(self._suite_run, status="RUNNING")
        if not self._suite_run:
            title = "/".join(filter(None, (self.run.suite, self.run.study)))
            parameters = dict(flatten_mapping(self.run.parameters))
            self._suite_run = self._create(NestedRun("", title, self.run.context, {"kind": "suite"}, parameters))
        client.log_dict(self._suite_run, dict(self.run.parameters), "config.yaml")

    def _create(self, run: NestedRun, model_id: str | None = None) -> str:
        """Make a run with all that is known of it; its metrics are those of a logged model, too, where one is given."""
        from mlflow.entities import LoggedModelInput, Metric, Param

        parent = {"mlflow.parentRunId": self._suite_run} if run.key else {}
        tags = {"mlflow.runName": run.name, "key": self._key(run.key), **self.tags, **parent, **run.tags}
        run_id = self._client.create_run(self._experiment, tags=_texts(tags)).info.run_id
        models = [LoggedModelInput(model_id)] if model_id else None
        self._client.log_inputs(run_id, [self._dataset_input(run.context)], models)
        parameters = [Param(key, value) for key, value in _texts(run.parameters).items()]
        for batch in _batches(parameters, PARAMETERS_PER_CALL):
            self._client.log_batch(run_id, params=batch)
        # A metric names its logged model with the data set that it was measured on.
        linked = (model_id, self.run.dataset.name, self._dataset_digest) if model_id else ()
        now = int(time.time() * 1000)
        metrics = [Metric(safe_name(name), value, now, step, *linked) for name, value, step in run.metrics]
        for batch in _batches(metrics, METRICS_PER_CALL):
            self._client.log_batch(run_id, metrics=batch)
        return run_id

    def _logged_model(self, run: NestedRun, network: TrackedNetwork) -> str:
        """Return the id of a network's logged model, which is made where there is none.

        One of other weights is replaced, and so is one with metrics of an evaluation when another one is logged.
        """
        from mlflow.entities import LoggedModelOutput

        key = self._key(network.key)
        for model in self._client.search_logged_models([self._experiment], f"tags.key = '{key}'"):
            same_weights = model.tags.get("weights_sha256") == network.digest
            if same_weights and not (run.context == "evaluation" and model.metrics):
                return model.model_id
            self._client.delete_logged_model(model.model_id)
        source = next((logged.info.run_id for logged in self._runs_of(network.trained_by)), None)
        tags = {**self.tags, **{name: tag for name, tag in run.tags.items() if name != "kind"}, "key": key}
        tags |= {"weights_sha256": network.digest, "checkpoint": str(network.path), "mlflow.model.isExternal": "true"}
        name, parameters = re.sub("[/:.%\"']", "_", network.name), _texts(run.parameters)
        model_id = self._client.create_logged_model(
            self._experiment, name, source, _texts(tags), parameters, model_type="classifier"
        ).model_id
        self._client.finalize_logged_model(model_id, "READY")
        if source:
            self._client.log_outputs(source, [LoggedModelOutput(model_id, step=0)])
        return model_id

    def _runs_of(self, key: str) -> list[Any]:
        """Return the run of that key, if there is one; the empty key is the suite's run."""
        return self._client.search_runs([self._experiment], f"tags.key = '{self._key(key)}'", max_results=1)

    def _key(self, key: str) -> str:
        """Return the value of the tag `key`, in which MLflow's filters allow no quotes."""
        return "/".join(filter(None, (self.run.run_id, key))).replace("'", "_")

    def _dataset_input(self, context: str) -> Any:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = self.run.dataset
        source, profile = json.dumps({"tags": dict(dataset.source)}), json.dumps(dict(dataset.profile))
        described = Dataset(dataset.name, self._dataset_digest, "code", source, profile=profile)
        return DatasetInput(described, [InputTag("mlflow.data.context", context)])

    def _content_digest(self, run: NestedRun) -> str:
        content = [
            run.name, dict(run.tags), dict(run.parameters), run.metrics, run.failed, self.run.dataset.digest,
            run.network and run.network.digest,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def safe_name(name: str) -> str:
    """Return a metric's name with the characters alone that MLflow takes: letters, digits and `_-. :/`.

    Examples
    --------
    >>> safe_name("accuracy/common:fog")
    'accuracy/common:fog'
    >>> safe_name("accuracy/pepper + blur(3, 0.5)")
    'accuracy/pepper _ blur_3_ 0.5_'
    """
    plain = "".join(c if c.isalnum() or c in "_-. :/" else "_" for c in name)[:250]
    return re.sub("/{2,}", "/", plain).strip("/")


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return values as texts of a length that MLflow takes."""
    return {key: str(value)[:5000] for key, value in values.items()}


def _batches(values: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
