"""The sweep over a Ray cluster; only this file knows Ray Data.

The numbers of tasks are the dataset's read tasks: free cores read the tasks from the stored plan and decode their
images. A pool of actors, one a GPU or one for several cores, holds the networks and writes the part files. Only counts
come back to the driver.
"""

import functools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource.datasource import Datasource, ReadTask
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cnnsens_bench.engine.sweep import Sweep
from cnnsens_bench.models import Checkpoint
from cnnsens_bench.runtime.cluster import SweepMonitor, connect, machines, quiet, require_plugins, worker_memory
from cnnsens_bench.runtime.coordinator import Coordinator
from cnnsens_bench.runtime.local import network_size
from cnnsens_bench.runtime.partition import NetworkSize, cut
from cnnsens_bench.runtime.plan_store import StoredPlan
from cnnsens_bench.runtime.ray_worker import RayWorker, SharedWork, decoded_tasks
from cnnsens_bench.runtime.resources import ExecutionOptions, Layout
from cnnsens_bench.runtime.worker import TaskOutcome
from cnnsens_bench.utils.errors import StorageError, UserError
from cnnsens_bench.utils.memory import WEIGHTS_SHARE
from cnnsens_bench.utils.reporter import SILENT, Reporter
from cnnsens_bench.utils.storage import StoragePath

Checkpoints = Mapping[str, Checkpoint]
"""The checkpoints of a sweep, by their keys."""

MAX_READ_TASKS = 2048
"""The read tasks at most: each costs the driver some memory."""


def run_ray(
    sweep: Sweep,
    plan: StoredPlan,
    checkpoints: Checkpoints,
    parts: StoragePath,
    options: ExecutionOptions = ExecutionOptions(),  # noqa: B008  # it is frozen
    reporter: Reporter = SILENT,
) -> Generator[TaskOutcome]:
    """Compute a plan over the cluster, and yield the outcomes of its tasks in the order in which they end.

    A task whose worker dies is computed again, image by image, and an image that took its worker with it three times is
    set aside. Where a machine is lost for good, the run goes on with those that are left. Parameters are as in
    `run_local`.

    Raises
    ------
    UserError
        If the cluster cannot be reached, or lacks a plugin or the output folder.
    StorageError
        If a worker cannot read or write.
    """
    connect(options.address)
    quiet()
    ray.data.DataContext.get_current().enable_progress_bars = False
    require_plugins(sweep.plugins)
    layout, cores = _lay_out(options)
    memory = worker_memory(layout, reporter)  # asked in any case, because it waits for a GPU and says so
    budget = options.weights_budget or WEIGHTS_SHARE * memory
    work = _share(sweep, plan, checkpoints, parts, budget, layout.workers, options.cache)
    shared, monitor = ray.put(work), SweepMonitor(work.coordinator, reporter)
    unfinished = np.ones(work.tasks, bool)
    while unfinished.any():
        try:
            with monitor.running():
                outcomes = _compute(np.flatnonzero(unfinished), shared, layout, cores)
                for number, outcome in monitor.outcomes(outcomes):
                    unfinished[number] = False
                    yield outcome
            return
        except ray.exceptions.RayError as error:
            _raise_fault(work.coordinator, error)
        except KeyboardInterrupt:
            if not monitor.stalled:
                raise
        lost = "note: the cluster has lost a machine and has no room for its worker: going on with what is left"
        reporter.message(lost)
        layout, cores = _lay_out(options)


def _lay_out(options: ExecutionOptions) -> tuple[Layout, int]:
    """Return how the cluster is used as it is at this moment, and the number of its cores."""
    there = machines()
    return options.layout(there), sum(machine.cpus for machine in there) or 1


def _share(
    sweep: Sweep, plan: StoredPlan, checkpoints: Checkpoints, parts: StoragePath, budget: float, workers: int,
    cache: str | Path | None,
) -> SharedWork:  # fmt: skip
    """Cut the sweep into tasks, and return what its processes share; the checkpoints lie in the object store."""
    weights: dict[str, NetworkSize] = {}
    stored: dict[str, Any] = {}
    for key, checkpoint in checkpoints.items():
        weights[key] = network_size(checkpoint, sweep.compile)
        stored[key] = ray.put(checkpoint.to_bytes())  # one by one: the object store spills what does not fit
    groups, tasks_per_batch = cut(sweep.entrants, weights, budget, plan.batches, sweep.batch_size, workers)
    smallest = [min(weights[sweep.entrants[i].checkpoint].input_size for i in group.entrants) for group in groups]
    reaches = [sweep.reach(size) for size in smallest]
    # The coordinator lies on the driver's machine, because it must outlive the workers.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    lasting = {"scheduling_strategy": here, "max_restarts": -1, "max_task_retries": -1}
    coordinator: Any = ray.remote(num_cpus=0)(Coordinator).options(**lasting).remote()
    return SharedWork(sweep, plan, groups, tasks_per_batch, reaches, stored, parts, budget, coordinator, cache)


def _raise_fault(coordinator: Any, error: Exception) -> NoReturn:
    """Raise the error of one sentence that a worker has left with the coordinator, or else Ray's error."""
    fault = ray.get(coordinator.failed.remote())
    if fault is None:
        raise error
    kind, sentence = fault
    raise (StorageError if kind == "StorageError" else UserError)(sentence) from error


def _compute(numbers: np.ndarray, shared: Any, layout: Layout, cores: int) -> Iterator[tuple[int, TaskOutcome]]:
    """Compute the tasks of some numbers, and yield (number, outcome) as they end."""
    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = 1  # each task is a block of its own, as soon as it is there
    with ray.data.DataContext.current(context):
        dataset = outcome_dataset(np.array_split(numbers, min(MAX_READ_TASKS, len(numbers))), shared, layout, cores)
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in pa.Table.to_pylist(batch):
                yield row["number"], TaskOutcome(row["images"], row["evaluations"], row["failures"])


def outcome_dataset(read_tasks: Sequence[np.ndarray], shared: Any, layout: Layout, cores: int) -> ray.data.Dataset:
    """Return the dataset of outcomes: tasks are read and decoded by free cores, and computed by a pool of actors.

    Ray Data restarts actors that die, and computes their tasks again, without being asked to.

    Parameters
    ----------
    read_tasks
        The numbers of tasks that each read task yields.
    shared
        The reference of the `SharedWork`.
    layout
        How the actors lie on the cluster.
    cores
        The cores of the cluster.
    """
    source = _TaskSource([functools.partial(decoded_tasks, shared, numbers) for numbers in read_tasks])
    return ray.data.read_datasource(
        source,
        override_num_blocks=len(read_tasks),
        num_cpus=int(layout.reserved_cpus * layout.workers < cores or layout.reserved_cpus < layout.threads),
    ).map_batches(
        RayWorker,
        # A batch is a task. With a size given Ray Data does not fuse the two stages, and it demands one with GPUs.
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=layout.workers, max_tasks_in_flight_per_actor=2),
        num_cpus=layout.reserved_cpus,
        num_gpus=layout.gpus,
        fn_constructor_kwargs={"shared": shared, "threads": layout.threads},
    )


class _TaskSource(Datasource):
    """A datasource of given read tasks."""

    def __init__(self, read_tasks: Sequence[Callable[[], Iterable[pa.Table]]]) -> None:
        super().__init__()
        self.read_tasks = read_tasks

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        nothing = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None)
        return [ReadTask(read_task, nothing) for read_task in self.read_tasks]
