"""The sections of the configuration: where the data are, where a sweep runs, what is tracked and scored."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class DatasetConfig:
    """`name`: a registered dataset; `root`: its folder; `options`: keyword arguments of its loader."""

    name: str = "plumage"
    root: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class ClusterConfig:
    """Where the sweep runs. `engine`: "local" in this process, "ray" over a cluster, "auto": Ray where the command
    is a Ray job, names an address or more than one worker, or finds several GPUs. `autoscaling`: nodes for `workers`
    (with one GPU each, unless `gpus_per_worker` says otherwise) come as they are asked for. `weights_gb`: of networks
    that a worker holds at once, None: a quarter of its memory."""

    engine: str = "auto"
    address: str | None = None
    workers: int | None = None
    gpus_per_worker: float | None = None
    threads: int | None = None
    autoscaling: bool = False
    weights_gb: float | None = None


@dataclass
class TrackingConfig:
    """MLflow. `uri`: None for a SQLite file in the output folder, or any tracking URI; `tracking=off` does without."""

    enabled: bool = True
    uri: str | None = None
    experiment: str = "cnnsens_bench"


@dataclass
class SensitivityConfig:
    """Scores from gradients (paper, section 4). `predictors`: those that look at every condition they know, beside the
    score of the paper, which costs one backward pass for all levels; `sensitivity=on` is short for `enabled`."""

    enabled: bool = False
    predictors: list[str] = field(default_factory=list)
