"""Where a config's work is done: in this process or over Ray, and how it lies there."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import torch

from cnnsens_bench.config.schema import Config
from cnnsens_bench.config.sections import ClusterConfig
from cnnsens_bench.runtime.resources import Layout, Machine, lay_out


def over_ray(config: Config) -> bool:
    """What `cluster.engine` asks for, or what "auto" means here: see `ClusterConfig`."""
    cluster = config.cluster
    if cluster.engine != "auto":
        return cluster.engine == "ray"
    several = (cluster.workers or 1) > 1 or torch.cuda.device_count() > 1
    return bool(cluster.address or os.environ.get("RAY_ADDRESS") or several)


def layout_of(cluster: ClusterConfig, machines: Sequence[Machine]) -> Layout:
    """For a cluster that has these machines now, and those that are still to come where it grows."""
    machines = [*machines, *promised(cluster, machines)]
    return lay_out(machines, cluster.workers, cluster.gpus_per_worker, cluster.threads)


def promised(cluster: ClusterConfig, machines: Sequence[Machine]) -> list[Machine]:
    """With `cluster.autoscaling`, one for each worker that has no room yet."""
    if not cluster.autoscaling:
        return []
    cpus, gpus = cluster.threads or 8, 1.0 if cluster.gpus_per_worker is None else cluster.gpus_per_worker
    room = sum(int(m.gpus / gpus) if gpus else m.cpus // cpus for m in machines)
    return [Machine(cpus, gpus)] * max(0, (cluster.workers or 1) - room)


STORAGE = "CNNSENS_STORAGE"
"""Names the folder, seen by all machines, below which the relative outputs of jobs lie."""


def settled(config: Config) -> Config:
    """In a job's uploaded folder a relative `output` goes below $CNNSENS_STORAGE, or the user's home."""
    output = config.output or f"runs/{config.suite}"
    if not in_uploaded_folder() or Path(output).expanduser().is_absolute() or urlsplit(output).scheme:
        return config
    base = os.environ.get(STORAGE) or str(Path.home())
    return dataclasses.replace(config, output=os.path.normpath(os.path.join(base, output)))


def in_uploaded_folder() -> bool:
    """Whether this runs where Ray unpacked what `ray job submit --working-dir` uploaded."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and "working_dir_files" in Path.cwd().parts
