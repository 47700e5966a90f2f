"""How work is executed: the layout on machines (workers, their cores and GPUs), and settings that change no result."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnsens_bench.training.space import SearchConfig
from cnnsens_bench.utils.errors import UserError

MOST_THREADS = 8
"""The CPU threads that a worker has at most by default: networks gain little from more."""


@dataclass(frozen=True)
class Machine:
    """The CPU cores and GPUs of one machine of a cluster."""

    cpus: int
    gpus: float = 0.0


@dataclass(frozen=True)
class Layout:
    """How work is laid out on a cluster.

    Attributes
    ----------
    workers
        How many workers, trainings or trials run at once.
    threads
        The CPU threads of each process.
    gpus
        The GPUs of each process.
    reserved_cpus
        The cores that each process asks Ray for. In a sweep these are fewer than its threads, so that decoding always
        finds a core.
    processes
        The processes of each worker; several only for trials of a search.
    """

    workers: int
    threads: int
    gpus: float
    reserved_cpus: int
    processes: int = 1


def lay_out(
    machines: Sequence[Machine],
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    threads: int | None = None,
) -> Layout:
    """Return the layout of a sweep or of its trainings. What is None is chosen here.

    With GPUs there is one worker a GPU; without, workers of up to 8 threads together have all cores. No worker gets
    more than one machine has.

    Parameters
    ----------
    machines
        The machines of the cluster.
    workers
        How many workers there are.
    gpus_per_worker
        The GPUs of each worker, which may be a fraction.
    threads
        The CPU threads of each worker.

    Raises
    ------
    UserError
        If more GPUs are asked for than there are.

    Examples
    --------
    >>> lay_out([Machine(16, 2)])
    Layout(workers=2, threads=8, gpus=1.0, reserved_cpus=7, processes=1)
    """
    cpus, gpus = _totals(machines)
    per_worker = gpus_per_worker if gpus_per_worker is not None else (1.0 if gpus else 0.0)
    _check_gpus("cluster.gpus_per_worker", per_worker, gpus)
    most = max((m.gpus for m in machines), default=0.0)
    if per_worker > most:
        raise UserError(f"cluster.gpus_per_worker is {per_worker:g}, but no machine has more than {most:g} GPUs")
    able = [m for m in machines if m.gpus >= per_worker]  # those that can have a worker
    largest = max((m.cpus for m in able), default=1) or 1
    if workers is None:
        each = min(threads or MOST_THREADS, largest)
        workers = max(1, sum(int(m.gpus / per_worker) if per_worker else m.cpus // each for m in able))
    if threads is None:
        threads = max(1, min(MOST_THREADS, cpus // workers, largest))
    # One core in all is left for decoding; with more workers than that allows they share cores.
    reserved = max(0, min(threads - 1, (cpus - 1) // workers, largest)) or (1 if workers < cpus else 0)
    # Each worker lies on one machine, and all that the GPUs allow must find room.
    startable = min(workers, sum(int(m.gpus / per_worker) for m in able)) if per_worker else workers
    while reserved and _room(able, reserved, per_worker) < startable:
        reserved -= 1
    return Layout(workers, threads, per_worker, reserved)


@dataclass(frozen=True)
class ExecutionOptions:
    """Settings of `run_local`, `run_ray` and their workers.

    Attributes
    ----------
    threads
        The CPU threads of a process that computes; None for torch's own choice. Over a cluster the layout decides.
    weights_budget
        The bytes of weights that a worker holds at once; None for a quarter of its memory. Networks that need more are
        computed group by group.
    cache
        The cache folder; None for the user's. Compiled code lies below it, and `run_local` keeps its record of crashes
        there where the output is a URI.
    address
        The address of the Ray cluster; None for the job's own, or one that is started on this machine.
    layout
        Chooses how the workers lie on the machines of the cluster.
    """

    threads: int | None = None
    weights_budget: float | None = None
    cache: str | Path | None = None
    address: str | None = None
    layout: Callable[[Sequence[Machine]], Layout] = lay_out


def lay_out_trials(search: SearchConfig, batch_size: int, machines: Sequence[Machine]) -> Layout:
    """Return the layout of a search's trials; a trial's process asks Ray for all of its cores.

    Parameters
    ----------
    search
        The settings of the search.
    batch_size
        The images of a training step, which the processes of a trial share evenly.
    machines
        The machines of the cluster.

    Raises
    ------
    UserError
        If a trial asks for more than there is.

    Examples
    --------
    >>> lay_out_trials(SearchConfig(), 32, [Machine(8), Machine(2)])
    Layout(workers=5, threads=2, gpus=0.0, reserved_cpus=2, processes=1)
    """
    cpus, gpus = _totals(machines)
    cpus = cpus or 1
    per_trial = search.gpus_per_trial if search.gpus_per_trial is not None else min(1.0, gpus)
    _check_gpus("search.gpus_per_trial", per_trial, gpus)
    processes = search.workers_per_trial or max(1, int(per_trial))
    if processes > 1 and batch_size % processes:
        raise UserError(f"training.batch_size {batch_size} cannot be split among search.workers_per_trial={processes}")
    cores = [m.cpus for m in machines if m.cpus] or [cpus]
    trials = search.concurrent or (int(gpus / per_trial) if per_trial else max(1, cpus // (processes * MOST_THREADS)))
    threads = search.cpus_per_trial or max(1, min(MOST_THREADS, min(cores), cpus // (trials * processes)))
    if threads * processes > cpus or threads > max(cores):
        raise UserError(
            f"search.cpus_per_trial: a trial would need {threads * processes} cores, the cluster has {cpus}, "
            f"its largest machine {max(cores)}"
        )
    if not search.concurrent and not per_trial:
        trials = max(1, sum(count // threads for count in cores) // processes)
    return Layout(trials, threads, per_trial / processes, threads, processes)


def _totals(machines: Sequence[Machine]) -> tuple[int, float]:
    return sum(m.cpus for m in machines), sum(m.gpus for m in machines)


def _check_gpus(key: str, asked: float, there: float) -> None:
    if asked > there:
        raise UserError(f"{key} is {asked:g}, but the cluster has {there:g} GPUs")


def _room(machines: Sequence[Machine], cpus: int, gpus: float) -> int:
    """Return how many workers that ask for so much can run at once."""
    return sum(min(m.cpus // cpus, int(m.gpus / gpus) if gpus else m.cpus) for m in machines)
