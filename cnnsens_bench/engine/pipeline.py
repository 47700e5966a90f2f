"""The sweep over a Ray cluster: the only Ray Data code.

Chunks of the plan are blocks of a dataset; free CPUs decode them, a pool of actors (one a GPU, or one for several
CPU cores) holds the networks and writes the parts. Only counts come back to the driver.
"""

import logging
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cnnsens_bench import images
from cnnsens_bench.degradations import Reach
from cnnsens_bench.engine.desk import Desk
from cnnsens_bench.engine.plan import Chunk, Sweep
from cnnsens_bench.engine.worker import Outcome, Worker, decode_row, load_plugins
from cnnsens_bench.errors import UserError
from cnnsens_bench.memory import keep_freed_memory
from cnnsens_bench.models import Checkpoint, checkpoint_from_bytes


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


def connect(address: str | None) -> None:
    """Join the cluster at `address` (or the job's own), or start one on this machine. Raises `UserError`."""
    if ray.is_initialized():
        return
    stop = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"no Ray cluster can be reached at {address or 'this machine'} ({reason}): check cluster.address"
        ) from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)  # Ray's own handler aborts
    ray.data.DataContext.get_current().enable_progress_bars = False
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)  # its notes would tear our own progress apart


def require_plugins(names: Sequence[str]) -> None:
    """Import users' modules once on every machine. Raises `UserError`: what is importable here need not be there."""
    if not names:
        return
    tried = ray.remote(num_cpus=0)(_complaint)
    asked = [
        tried.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)).remote(names)
        for node in ray.nodes()
        if node["Alive"]
    ]
    for complaint in ray.get(asked):
        if complaint:
            raise UserError(f"on a machine of the cluster, {complaint}")


def _complaint(names: Sequence[str]) -> str | None:
    try:
        load_plugins(names)
    except UserError as error:
        return str(error)
    return None


def run_ray(
    sweep: Sweep,
    chunks: Iterable[Chunk],
    checkpoints: Mapping[str, Checkpoint],
    parts: Path,
    layout: Callable[[int, float], Layout],
    address: str | None = None,
    report: Callable[[int], None] | None = None,
) -> Iterator[Outcome]:
    """As `run_local`, over the cluster; outcomes come in the order in which chunks end.

    `layout`: (cores, GPUs of the cluster) → how to use them.
    """
    connect(address)
    require_plugins(sweep.plugins)
    resources = ray.cluster_resources()
    plan = layout(int(resources.get("CPU", 1)), resources.get("GPU", 0.0))
    blocks = [_block(chunk) for chunk in chunks]
    if not blocks:
        return
    smallest = min(c.preprocessing.input_size for c in checkpoints.values())
    desk = ray.remote(num_cpus=0)(Desk).remote({key: c.to_bytes() for key, c in checkpoints.items()})
    outcomes = (
        ray.data.from_arrow(blocks)
        .map_batches(
            _decode_block,  # type: ignore[arg-type]  # a function of one argument and keywords
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=1 if plan.reserved_cpus * plan.workers < int(resources.get("CPU", 1)) else 0,
            fn_kwargs={"sweep": sweep, "reach": sweep.reach(smallest)},
        )
        .map_batches(
            _RayWorker,
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=plan.workers, max_tasks_in_flight_per_actor=2),
            num_cpus=plan.reserved_cpus,
            num_gpus=plan.gpus,
            fn_constructor_kwargs={
                "sweep": sweep,
                "parts": parts,
                "threads": plan.threads,
                "desk": desk,
            },
        )
    )
    with _reporting(desk, report):
        for batch in outcomes.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield from (Outcome(**row) for row in pa.Table.to_pylist(batch))


@contextmanager
def _reporting(desk: Any, report: Callable[[int], None] | None) -> Iterator[None]:
    """While the body waits for outcomes, ask the workers' counter and report what is new."""
    stop = threading.Event()

    def poll() -> None:
        told = 0
        while report:
            over = stop.wait(1.0)
            total = ray.get(desk.total.remote())
            if total > told:
                report(total - told)
                told = total
            if over:
                return

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5)


def _block(chunk: Chunk) -> pa.Table:
    """One chunk as one block: the sample's columns and its packed row of the plan."""
    packed = np.packbits(chunk.wanted.reshape(len(chunk.rows), -1), axis=1)
    table = pa.Table.from_pandas(chunk.rows.reset_index(drop=True), preserve_index=False)
    return table.append_column("wanted", pa.array([row.tobytes() for row in packed], pa.binary()))


def _decode_block(block: Any, sweep: Sweep, reach: Reach) -> pa.Table:
    """Add the pixels, or the sentence that says why there are none, to a block."""
    load_plugins(sweep.plugins)
    rows = block.to_pylist()
    empty = {**dict.fromkeys(images.ROW_COLUMNS), "error": None}
    decoded = [decode_row(row, reach) for row in rows]
    extra = [
        {**empty, "error": image} if isinstance(image, str) else {**empty, **images.to_row(image)} for image in decoded
    ]
    return pa.Table.from_pylist([row | more for row, more in zip(rows, extra, strict=True)])


class _RayWorker:
    """An actor's `Worker`."""

    def __init__(self, sweep: Sweep, parts: Path, threads: int, desk: Any) -> None:
        keep_freed_memory()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        weights = ray.get(desk.weights.remote())
        checkpoints = {key: checkpoint_from_bytes(data) for key, data in weights.items()}
        self.shape = (len(sweep.entrants), len(sweep.cells()))
        # Ray gives an actor OMP_NUM_THREADS=1; `threads` overrides it.
        self.worker = Worker(sweep, checkpoints, parts, device, threads, lambda n: desk.add.remote(n))

    def __call__(self, block: pa.Table) -> pa.Table:
        rows = block.to_pylist()
        decoded = [row["error"] or images.from_row(row) for row in rows]
        bits = np.stack([np.frombuffer(row["wanted"], np.uint8) for row in rows])
        count = self.shape[0] * self.shape[1]
        wanted = np.unpackbits(bits, axis=1, count=count).astype(bool).reshape(len(rows), *self.shape)
        return pa.Table.from_pylist([asdict(self.worker(rows, decoded, wanted))])
