"""The processes of a sweep over a cluster: some read and decode tasks, and actors compute them."""

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch

from cnnsens_bench.degradations import Reach
from cnnsens_bench.engine.sweep import Sweep
from cnnsens_bench.models import Checkpoint, checkpoint_from_bytes
from cnnsens_bench.runtime import serialization
from cnnsens_bench.runtime.crash_tracker import CrashTracker
from cnnsens_bench.runtime.executor import TaskExecutor, decode_task, pack_task
from cnnsens_bench.runtime.partition import NetworkGroup
from cnnsens_bench.runtime.plan_store import StoredPlan, Task, task_at
from cnnsens_bench.runtime.resources import ExecutionOptions
from cnnsens_bench.utils.errors import StorageError, UserError
from cnnsens_bench.utils.memory import keep_freed_memory
from cnnsens_bench.utils.plugins import load_plugins
from cnnsens_bench.utils.reporter import Reporter
from cnnsens_bench.utils.storage import StoragePath


@dataclass(frozen=True)
class SharedWork:
    """The values that all processes of a sweep share. They lie in the object store once, instead of in every task.

    Attributes
    ----------
    sweep, plan, groups
        The sweep, its stored plan, and the groups of its networks.
    tasks_per_batch
        How many tasks each group makes of an image batch.
    reaches
        For each group, how far around their boxes images are needed.
    checkpoints
        The references of the checkpoints' bytes, by their keys.
    parts
        The folder of the part files.
    weights_budget
        The bytes of weights that a worker holds at once.
    coordinator
        The actor of the `Coordinator`.
    cache
        The cache folder of each machine; None for the user's.
    """

    sweep: Sweep
    plan: StoredPlan
    groups: list[NetworkGroup]
    tasks_per_batch: int
    reaches: list[Reach]
    checkpoints: dict[str, Any]
    parts: StoragePath
    weights_budget: float
    coordinator: Any
    cache: str | Path | None = None

    @property
    def tasks(self) -> int:
        """The number of tasks, with those in which nothing is wanted."""
        return len(self.groups) * self.plan.batches * self.tasks_per_batch

    def task(self, number: int) -> Task | None:
        """Return the task of a number, or None where nothing is wanted. Raises `StorageError`."""
        rest, position = divmod(number, self.tasks_per_batch)
        group, batch = divmod(rest, self.plan.batches)
        return task_at(self.plan.batch(batch), self.groups, group, self.tasks_per_batch, position)


def decoded_tasks(shared: Any, numbers: np.ndarray) -> Iterator[pa.Table]:
    """Yield the tasks of some numbers with their images, each as a block of one row.

    Parameters
    ----------
    shared
        The reference of the `SharedWork`.
    numbers
        The numbers of the tasks; where nothing is wanted, none is yielded.
    """
    work: SharedWork = ray.get(shared)
    with _faults_reported(work.coordinator):
        load_plugins(work.sweep.plugins)
    crash_tracker = RemoteCrashTracker(work.coordinator)
    for number in map(int, numbers):
        with _faults_reported(work.coordinator), _folder_required(work.plan.folder):
            task = work.task(number)
        if task:
            with _faults_reported(work.coordinator):
                decoded = decode_task(task, work.reaches[task.group], crash_tracker, f"decode {task.group}")
            yield pack_task(number, task, decoded, crash_tracker, f"pack {task.group}")


@contextmanager
def _faults_reported(coordinator: Any) -> Iterator[None]:
    """Leave errors of one sentence with the coordinator, so that they reach the driver as such."""
    try:
        yield
    except (StorageError, UserError) as error:
        ray.get(coordinator.fail.remote(type(error).__name__, str(error)))
        # Ray Data prints tracebacks of other errors.
        raise ray.exceptions.UserCodeException(str(error)) from error


@contextmanager
def _folder_required(folder: StoragePath) -> Iterator[None]:
    """Raise a `UserError` where a file is missing because this machine does not see the run's folder."""
    try:
        yield
    except FileNotFoundError as error:
        if not isinstance(folder, Path) or folder.is_dir():
            raise
        raise UserError(
            f"{folder} is not seen by the machine {socket.gethostname()}: output must lie on storage that all "
            "machines see, a shared folder or a URI"
        ) from error


class RemoteCrashTracker(CrashTracker):
    """The coordinator's crash tracker, as workers reach it. Each call waits until it has arrived there."""

    def __init__(self, coordinator: Any) -> None:
        self.coordinator = coordinator

    def begin(self, scope: str, ids: Sequence[str], alone: bool = False) -> list[int]:
        return ray.get(self.coordinator.begin.remote(scope, ids, alone))

    def advance(self, scope: str, image_id: str, position: int) -> None:
        ray.get(self.coordinator.advance.remote(scope, image_id, position))

    def end(self, scope: str, ids: Sequence[str]) -> None:
        ray.get(self.coordinator.end.remote(scope, ids))


class CoordinatorReporter(Reporter):
    """Sends the progress and the messages of a worker to the coordinator; progress at most once an interval.

    Parameters
    ----------
    coordinator
        The actor of the `Coordinator`.
    """

    INTERVAL = 0.5
    """The seconds between two reports of progress, each of which takes time from cores that compute."""

    def __init__(self, coordinator: Any) -> None:
        self.coordinator, self.last = coordinator, 0.0
        self.begin(0)

    def begin(self, task: int) -> None:
        """Begin an attempt at a task."""
        self.task = task
        self.done = self.sent = 0

    def evaluations(self, count: int) -> None:
        self.done += count
        if time.monotonic() - self.last >= self.INTERVAL:
            self.send()

    def send(self) -> None:
        """Send the progress that was not sent yet."""
        if self.done > self.sent:
            self.coordinator.count.remote(self.task, self.done)
            self.sent, self.last = self.done, time.monotonic()

    def message(self, sentence: str) -> None:
        self.coordinator.message.remote(sentence)


class RayWorker:
    """The callable of Ray Data's actors, which computes packed tasks.

    Parameters
    ----------
    shared
        The reference of the `SharedWork`.
    threads
        The CPU threads of torch. Ray itself gives an actor one.
    """

    def __init__(self, shared: Any, threads: int) -> None:
        keep_freed_memory()
        self.work = work = ray.get(shared)
        self.reporter = reporter = CoordinatorReporter(work.coordinator)

        def load(key: str) -> Checkpoint:
            return checkpoint_from_bytes(ray.get(work.checkpoints[key]))

        device = "cuda" if torch.cuda.is_available() else "cpu"
        tracker = RemoteCrashTracker(work.coordinator)
        options = ExecutionOptions(threads, work.weights_budget, work.cache)
        name = ray.get_runtime_context().get_actor_id() or ""
        self.executor = TaskExecutor(
            work.sweep, work.groups, load, work.parts, device, tracker, options=options, reporter=reporter, name=name
        )

    def __call__(self, block: pa.Table) -> pa.Table:
        """Compute the tasks of a block, and return a row with the outcome of each."""
        outcomes = []
        for number, task, decoded in serialization.unpack(block):
            self.reporter.begin(number)
            with _faults_reported(self.work.coordinator), _folder_required(self.work.parts):
                outcome = self.executor.compute(task, decoded, f"compute {task.group}")
            self.reporter.send()
            outcomes.append({"number": number, **asdict(outcome)})
        return pa.Table.from_pylist(outcomes)
