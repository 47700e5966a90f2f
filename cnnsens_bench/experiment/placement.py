"""Where the work of a run is done: in this process or over Ray, and how it is laid out on the machines."""

import os
from collections.abc import Sequence

from cnnsens_bench.config.sections import ClusterConfig
from cnnsens_bench.runtime.resources import Layout, Machine, lay_out


def over_ray(cluster: ClusterConfig) -> bool:
    """Return whether the work goes over Ray: what `engine` says, or what its "auto" means on this machine."""
    if cluster.engine != "auto":
        return cluster.engine == "ray"
    import torch

    several = (cluster.workers or 1) > 1 or torch.cuda.device_count() > 1
    return bool(cluster.address or os.environ.get("RAY_ADDRESS") or several)


def layout_of(cluster: ClusterConfig, machines: Sequence[Machine]) -> Layout:
    """Return the layout for a cluster that has these machines, and those still to come where it grows."""
    return lay_out([*machines, *promised(cluster, machines)], cluster.workers, cluster.gpus_per_worker, cluster.threads)


def promised(cluster: ClusterConfig, machines: Sequence[Machine]) -> list[Machine]:
    """Return the machines that autoscaling will add: one for each worker that has no room yet."""
    if not cluster.autoscaling:
        return []
    cpus, gpus = cluster.threads or 8, 1.0 if cluster.gpus_per_worker is None else cluster.gpus_per_worker
    room = sum(int(m.gpus / gpus) if gpus else m.cpus // cpus for m in machines)
    return [Machine(cpus, gpus)] * max(0, (cluster.workers or 1) - room)
