"""The sweep over a Ray cluster: the only Ray Data code.

Tickets, which name pieces of the plan, are the dataset's read tasks: free CPUs read the pieces and decode their images;
a pool of actors (one a GPU, or one for several CPU cores) holds networks and writes the parts. Only counts come back to
the driver.
"""

import functools
import socket
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
import torch
from ray.data.block import BlockMetadata
from ray.data.datasource.datasource import Datasource, ReadTask
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cnnsens_bench.degradations import Reach
from cnnsens_bench.engine.plan import Sweep
from cnnsens_bench.models import Checkpoint, checkpoint_from_bytes
from cnnsens_bench.runtime import serialization
from cnnsens_bench.runtime.cluster import Watch, connect, machines, memory, quiet, reporting, require_plugins
from cnnsens_bench.runtime.coordinator import Coordinator
from cnnsens_bench.runtime.executor import TaskExecutor, decode_task, pack_task
from cnnsens_bench.runtime.local import network_size
from cnnsens_bench.runtime.partition import NetworkGroup, NetworkSize, cut
from cnnsens_bench.runtime.plan_store import StoredPlan, task_at
from cnnsens_bench.runtime.resources import Layout, Machine
from cnnsens_bench.runtime.worker import Outcome
from cnnsens_bench.utils.errors import StorageError, UserError
from cnnsens_bench.utils.memory import WEIGHTS_SHARE, keep_freed_memory
from cnnsens_bench.utils.plugins import load_plugins
from cnnsens_bench.utils.storage import StoragePath

# Of `max_restarts` and `max_task_retries` below, which have no other place yet.
warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")

MAX_READ_TASKS = 2048
"""Read tasks at most: each costs the driver some memory."""


@dataclass(frozen=True)
class SharedWork:
    """What those who decode and those who compute share; once in the object store, not in every task."""

    sweep: Sweep
    work: StoredPlan
    groups: list[NetworkGroup]
    pieces: int
    reaches: list[Reach]

    @property
    def items(self) -> int:
        """Numbers of items; of some numbers nothing is wanted."""
        return len(self.groups) * self.work.chunks * self.pieces


def run_ray(
    sweep: Sweep,
    work: StoredPlan,
    checkpoints: Mapping[str, Checkpoint],
    parts: StoragePath,
    layout: Callable[[list[Machine]], Layout],
    address: str | None = None,
    report: Callable[[int], None] | None = None,
    note: Callable[[str], None] | None = None,
    budget: float | None = None,
) -> Generator[Outcome]:
    """As `run_local`, over the cluster; outcomes come in the order in which pieces end.

    `layout`: the machines of the cluster → how to use them. A piece whose worker dies is computed again, image by
    image; an image that took its worker with it three times is set aside. Where a machine is lost for good, the
    run goes on with those that are left.
    """
    connect(address)
    quiet()
    ray.data.DataContext.get_current().enable_progress_bars = False
    require_plugins(sweep.plugins)
    plan, cores = _laid_out(layout)
    weights: dict[str, NetworkSize] = {}
    stored: dict[str, Any] = {}
    for key, checkpoint in checkpoints.items():
        weights[key] = network_size(checkpoint)
        stored[key] = ray.put(checkpoint.to_bytes())  # one by one: the object store spills what does not fit
    has = memory(plan, note)  # asked in any case: it waits for a GPU, and says so
    budget = budget or WEIGHTS_SHARE * has
    groups, pieces = cut(sweep.entrants, weights, budget, work.chunks, sweep.batch_size, plan.workers)
    reaches = [
        sweep.reach(min(weights[sweep.entrants[i].checkpoint].input_size for i in group.entrants)) for group in groups
    ]
    job = SharedWork(sweep, work, groups, pieces, reaches)
    # On the driver's node: it must outlive the others.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    lasting = {"scheduling_strategy": here, "max_restarts": -1, "max_task_retries": -1}
    coordinator: Any = ray.remote(num_cpus=0)(Coordinator).options(**lasting).remote()
    shared = ray.put(job)
    kept = {"shared": shared, "stored": stored, "parts": parts, "budget": budget, "desk": coordinator}
    left = np.ones(job.items, bool)
    watch = Watch()
    while left.any():
        try:
            with reporting(coordinator, report, note, watch):
                for number, outcome in watch.each(_round(job, np.flatnonzero(left), plan, cores, kept)):
                    left[number] = False
                    yield outcome
            return
        except ray.exceptions.RayError as error:
            fault = ray.get(coordinator.failed.remote())
            if fault is None:
                raise
            kind, sentence = fault
            raise (StorageError if kind == "StorageError" else UserError)(sentence) from error
        except KeyboardInterrupt:
            if not watch.stalled:
                raise
        if note:
            note("note: the cluster has lost a machine and has no room for its worker: going on with what is left")
        watch.stalled = False
        plan, cores = _laid_out(layout)


def _laid_out(layout: Callable[[list[Machine]], Layout]) -> tuple[Layout, int]:
    """How the cluster is used as it is now, and its cores."""
    there = machines()
    return layout(there), sum(machine.cpus for machine in there) or 1


def _round(
    job: SharedWork, numbers: np.ndarray, plan: Layout, cores: int, kept: dict[str, Any]
) -> Iterator[tuple[int, Outcome]]:
    """Compute the items of those numbers: (number, outcome), as they end."""
    tickets = np.array_split(numbers, min(MAX_READ_TASKS, len(numbers)))
    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = 1  # each item a block of its own, as soon as it is there
    with ray.data.DataContext.current(context):
        outcomes = ray.data.read_datasource(
            _TaskSource([functools.partial(_decoded, kept["shared"], kept["desk"], ticket) for ticket in tickets]),
            override_num_blocks=len(tickets),
            num_cpus=int(plan.reserved_cpus * plan.workers < cores or plan.reserved_cpus < plan.threads),
        ).map_batches(
            _RayWorker,
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=plan.workers, max_tasks_in_flight_per_actor=2),
            num_cpus=plan.reserved_cpus,
            num_gpus=plan.gpus,
            # Said, so that the two stages are not made one.
            max_restarts=-1,
            max_task_retries=-1,
            fn_constructor_kwargs={**kept, "threads": plan.threads},
        )
        for batch in outcomes.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in pa.Table.to_pylist(batch):
                yield row["number"], Outcome(row["images"], row["evaluations"], row["failures"])


class _TaskSource(Datasource):
    """Read tasks that are given."""

    def __init__(self, tickets: Sequence[Callable[[], Iterable[pa.Table]]]) -> None:
        super().__init__()
        self.tickets = tickets

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        nothing = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None)
        return [ReadTask(ticket, nothing) for ticket in self.tickets]


def _decoded(shared: Any, coordinator: Any, ticket: np.ndarray) -> Iterator[pa.Table]:
    """The items of a ticket with their pictures, each a block of one row."""
    job: SharedWork = ray.get(shared)
    with _telling(coordinator):
        load_plugins(job.sweep.plugins)
    crash_tracker = _RemoteCrashTracker(coordinator)
    for number in ticket:
        rest, place = divmod(int(number), job.pieces)
        group, chunk = divmod(rest, job.work.chunks)
        with _telling(coordinator), _seen(job.work.folder):
            item = task_at(job.work.chunk(chunk), job.groups, group, job.pieces, place)
        if item:
            with _telling(coordinator):
                decoded = decode_task(item, job.reaches[group], crash_tracker, f"decode {group}")
            yield pack_task(int(number), item, decoded, crash_tracker, f"pack {group}")


@contextmanager
def _telling(coordinator: Any) -> Iterator[None]:
    """Errors of one sentence reach the driver as such."""
    try:
        yield
    except (StorageError, UserError) as error:
        ray.get(coordinator.fail.remote(type(error).__name__, str(error)))
        raise ray.exceptions.UserCodeException(str(error)) from error  # of other errors Ray Data prints tracebacks


@contextmanager
def _seen(folder: StoragePath) -> Iterator[None]:
    """A `UserError` where a file was missing because the run's `folder` is not there on this machine."""
    try:
        yield
    except FileNotFoundError as error:
        if not isinstance(folder, Path) or folder.is_dir():
            raise
        raise UserError(
            f"{folder} is not seen by the machine {socket.gethostname()}: output must lie on storage that all "
            "machines see, a shared folder or a URI"
        ) from error


class _RemoteCrashTracker:
    """The ledger on the desk."""

    def __init__(self, coordinator: Any) -> None:
        self.coordinator = coordinator

    def begin(self, scope: str, ids: Sequence[str], alone: bool = False) -> list[int]:
        return ray.get(self.coordinator.begin.remote(scope, ids, alone))

    def step(self, scope: str, image_id: str, place: int) -> None:
        ray.get(self.coordinator.step.remote(scope, image_id, place))  # it must have arrived before the worker can die

    def end(self, scope: str, ids: Sequence[str]) -> None:
        ray.get(self.coordinator.end.remote(scope, ids))


class _RayWorker:
    """An actor's `TaskExecutor`."""

    def __init__(
        self, shared: Any, stored: dict[str, Any], parts: StoragePath, threads: int, budget: float, coordinator: Any
    ) -> None:
        keep_freed_memory()
        job: SharedWork = ray.get(shared)
        self.coordinator, self.parts = coordinator, parts
        # Ray gives an actor OMP_NUM_THREADS=1; `threads` overrides it.
        self.executor = TaskExecutor(
            job.sweep,
            job.groups,
            lambda key: checkpoint_from_bytes(ray.get(stored[key])),
            parts,
            "cuda" if torch.cuda.is_available() else "cpu",
            _RemoteCrashTracker(coordinator),
            "the same command tries it again",
            budget,
            threads,
            lambda n: coordinator.add.remote(n),
            lambda sentence: coordinator.note.remote(sentence),
            ray.get_runtime_context().get_actor_id() or "",
        )

    def __call__(self, block: pa.Table) -> pa.Table:
        outcomes = []
        for number, item, decoded in serialization.unpack(block):
            with _telling(self.coordinator), _seen(self.parts):
                outcome = self.executor(item, decoded, f"compute {item.group}")
            outcomes.append({"number": number, **asdict(outcome)})
        return pa.Table.from_pylist(outcomes)
