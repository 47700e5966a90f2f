"""How a sweep lies on a cluster."""

from collections.abc import Sequence
from dataclasses import dataclass

from cnnsens_bench.utils.errors import UserError


@dataclass(frozen=True)
class Machine:
    """Of a cluster: its CPU cores and its GPUs."""

    cpus: int
    gpus: float = 0.0


@dataclass(frozen=True)
class Layout:
    """How a sweep lies on a cluster: `workers` actors, each with `threads` CPU threads and `gpus` GPUs.

    `reserved_cpus`: what each actor asks Ray for; fewer than its threads, so that decoding always finds a core.
    """

    workers: int
    threads: int
    gpus: float
    reserved_cpus: int


def lay_out(
    machines: Sequence[Machine], workers: int | None, gpus_per_worker: float | None, threads: int | None
) -> Layout:
    """A layout for a cluster of these machines; None leaves a choice to us.

    With GPUs: one worker a GPU. Without: workers of up to 8 threads that together have all cores; nobody is given
    more than one machine has. Raises `UserError` when more is asked for than there is.
    """
    cpus, gpus = sum(m.cpus for m in machines), sum(m.gpus for m in machines)
    per_worker = gpus_per_worker if gpus_per_worker is not None else (1.0 if gpus else 0.0)
    most = max((m.gpus for m in machines), default=0.0)
    if per_worker > gpus:
        raise UserError(f"cluster.gpus_per_worker is {per_worker:g}, but the cluster has {gpus:g} GPUs")
    if per_worker > most:
        raise UserError(f"cluster.gpus_per_worker is {per_worker:g}, but no machine has more than {most:g} GPUs")
    able = [m for m in machines if m.gpus >= per_worker]  # those that can have a worker
    largest = max((m.cpus for m in able), default=1) or 1
    if workers is None:
        each = min(threads or 8, largest)
        workers = max(1, sum(int(m.gpus / per_worker) if per_worker else m.cpus // each for m in able))
    if threads is None:
        threads = max(1, min(8, cpus // workers, largest))
    # One core in all is left for decoding; with more workers than that allows they share cores.
    reserved = max(0, min(threads - 1, (cpus - 1) // workers, largest)) or (1 if workers < cpus else 0)
    # All that GPUs allow must find room on the machines as they are: a worker lies on one of them.
    startable = min(workers, sum(int(m.gpus / per_worker) for m in able)) if per_worker else workers
    while reserved and _room(able, reserved, per_worker) < startable:
        reserved -= 1
    return Layout(workers, threads, per_worker, reserved)


def _room(machines: Sequence[Machine], cpus: int, gpus: float) -> int:
    """How many workers that ask for so much these machines can have at once."""
    return sum(min(m.cpus // cpus, int(m.gpus / gpus) if gpus else m.cpus) for m in machines)
