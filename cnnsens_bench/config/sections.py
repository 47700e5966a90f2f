"""The sections of the configuration: the data set, where a sweep runs, what is tracked, what is scored.

The text below each key is its documentation: `cnnsens_bench.config.reference` reads it for the help text and the docs.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class DatasetConfig:
    """The data set that networks are trained and evaluated on."""

    name: str = "plumage"
    """Name of a registered data set; `dataset=NAME` is short for it."""
    root: str | None = None
    """Folder or URI of this data set. null: its official folder below `data_root`."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the data set's loader, such as `{test_fraction: 0.5}`."""


@dataclass
class ClusterConfig:
    """Where a sweep runs. None of these keys changes a result."""

    engine: str = "auto"
    """`local` computes in this process, `ray` over a Ray cluster. `auto` takes Ray where the command is a Ray job,
    names an address or more than one worker, or finds several GPUs."""
    address: str | None = None
    """Address of a running Ray cluster, such as `auto` or `ray://head:10001`. null: the one that RAY_ADDRESS names,
    else one that is started on this machine."""
    workers: int | None = None
    """Processes that compute the sweep, 1 to 100000. null: as many as the machines have room for."""
    gpus_per_worker: float | None = None
    """GPUs that each worker takes, at least 0; a fraction lets workers share one. null: 1 where there are GPUs, else
    0."""
    threads: int | None = None
    """CPU threads of each worker, 1 to 1024. null: all cores in one process; over Ray at most 8."""
    autoscaling: bool = False
    """Whether machines for `cluster.workers` come as they are asked for, with one GPU each unless
    `cluster.gpus_per_worker` says otherwise."""
    weights_gb: float | None = None
    """Gigabytes of network weights that a worker holds at once, above 0. null: a quarter of its memory, or of its
    GPU's."""


@dataclass
class TrackingConfig:
    """What MLflow records of a run."""

    enabled: bool = True
    """Whether MLflow tracks the run; `tracking=off` and `tracking=on` are short for it."""
    uri: str | None = None
    """Tracking URI of an MLflow server or store. null: a SQLite file in the output folder."""
    experiment: str = "cnnsens_bench"
    """Name of the MLflow experiment."""


@dataclass
class SensitivityConfig:
    """Sensitivity scores from gradients (section 4 of the paper)."""

    enabled: bool = False
    """Whether the paper's score is computed, one backward pass an image for all levels; `sensitivity=on` and
    `sensitivity=off` are short for it. It needs `precision=float32`."""
    predictors: list[str] = field(default_factory=list)
    """Predictors that are computed beside the paper's score, for every condition that they know, such as
    `[noisy_gradients(copies=2)]`."""
