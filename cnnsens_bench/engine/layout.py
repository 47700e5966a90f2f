"""How a sweep lies on a cluster."""

from dataclasses import dataclass

from cnnsens_bench.errors import UserError


@dataclass(frozen=True)
class Layout:
    """How a sweep lies on a cluster: `workers` actors, each with `threads` CPU threads and `gpus` GPUs.

    `reserved_cpus`: what each actor asks Ray for; fewer than its threads, so that decoding always finds a core.
    """

    workers: int
    threads: int
    gpus: float
    reserved_cpus: int


def lay_out(cpus: int, gpus: float, workers: int | None, gpus_per_worker: float | None, threads: int | None) -> Layout:
    """A layout for a cluster of `cpus` cores and `gpus` GPUs; None leaves a choice to us.

    With GPUs: one worker a GPU. Without: workers of up to 8 threads that together have all cores. Raises
    `UserError` when more is asked for than there is.
    """
    per_worker = gpus_per_worker if gpus_per_worker is not None else (1.0 if gpus else 0.0)
    if per_worker > gpus:
        raise UserError(f"cluster.gpus_per_worker is {per_worker:g}, but the cluster has {gpus:g} GPUs")
    if workers is None:
        workers = max(1, int(gpus / per_worker)) if per_worker else max(1, cpus // min(threads or 8, cpus))
    if threads is None:
        threads = max(1, min(8, cpus // workers))
    # One core in all is left for decoding; with more workers than that allows they share cores.
    reserved = max(0, min(threads - 1, (cpus - 1) // workers)) or (1 if workers < cpus else 0)
    return Layout(workers, threads, per_worker, reserved)
