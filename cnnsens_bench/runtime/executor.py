"""Computes tasks one after the other with the networks of their groups.

An image is set aside, which means given up, after `MAX_DEATHS` processes died while they computed it.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import torch

from cnnsens_bench import images
from cnnsens_bench.degradations import Reach
from cnnsens_bench.engine.oom_backoff import free_memory
from cnnsens_bench.engine.sweep import Sweep
from cnnsens_bench.models import Checkpoint
from cnnsens_bench.runtime import serialization
from cnnsens_bench.runtime.compiled_code import keep_compiled_code
from cnnsens_bench.runtime.crash_tracker import MAX_DEATHS, CrashTracker
from cnnsens_bench.runtime.partition import NetworkGroup
from cnnsens_bench.runtime.plan_store import Task
from cnnsens_bench.runtime.resources import ExecutionOptions
from cnnsens_bench.runtime.worker import Decoded, TaskOutcome, Worker
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.reporter import SILENT, Reporter
from cnnsens_bench.utils.storage import StoragePath

PACKING_CRASHED = f"set aside: the process that packed it was killed {MAX_DEATHS} times"


def decode_task(task: Task, reach: Reach, crash_tracker: CrashTracker, scope: str) -> list[Decoded]:
    """Return the images of a task, each decoded or as the sentence that says why it cannot be.

    They are decoded one by one where a process died while it decoded them.

    Parameters
    ----------
    task
        The task.
    reach
        How far around their boxes images are needed.
    crash_tracker, scope
        Where deaths are looked up, and under which scope.
    """
    ids = task.ids
    if not any(crash_tracker.begin(scope, ids)):
        readers = images.read_ahead([row["uri"] for row in task.rows])
        decoded = [images.decode_row(row, reach, read) for row, read in zip(task.rows, readers, strict=True)]
        crash_tracker.end(scope, ids)
        return decoded
    return [decode_alone(row, reach, crash_tracker, scope) for row in task.rows]


def decode_alone(row: Mapping[str, Any], reach: Reach, crash_tracker: CrashTracker, scope: str) -> Decoded:
    """Return one image, or a sentence where decoding it has killed too many processes."""
    image_id = str(row["image_id"])
    may_try = crash_tracker.begin(scope, [image_id], alone=True)[0] < MAX_DEATHS
    decoded = images.decode_row(row, reach) if may_try else f"set aside: its decoder was killed {MAX_DEATHS} times"
    crash_tracker.end(scope, [image_id])
    return decoded


def pack_task(number: int, task: Task, decoded: Sequence[Decoded], crash_tracker: CrashTracker, scope: str) -> pa.Table:
    """Return `serialization.pack` of a task; where that has killed a process, each image is packed alone first."""
    ids = task.ids
    if any(crash_tracker.begin(scope, ids)):
        decoded = [_pack_alone(task, i, image, crash_tracker, scope) for i, image in enumerate(decoded)]
        scope = f"{scope} together"
        deaths = crash_tracker.begin(scope, ids, alone=True)
        decoded = [
            PACKING_CRASHED if count >= MAX_DEATHS else image for count, image in zip(deaths, decoded, strict=True)
        ]
    block = serialization.pack(number, task, decoded)
    crash_tracker.end(scope, ids)
    return block


def _pack_alone(task: Task, position: int, image: Decoded, crash_tracker: CrashTracker, scope: str) -> Decoded:
    """Return an image that can be packed without killing the process, or a sentence."""
    ids = [task.ids[position]]
    may_try = crash_tracker.begin(scope, ids, alone=True)[0] < MAX_DEATHS
    if may_try:
        serialization.pack(0, task.take([position]), [image])
    crash_tracker.end(scope, ids)
    return image if may_try else PACKING_CRASHED


class TaskExecutor:
    """Computes tasks with a worker for each group of networks.

    Workers are loaded when they are needed. The most recently used are kept, up to `options.weights_budget` bytes of
    weights.

    Parameters
    ----------
    sweep
        The sweep.
    groups
        All groups of its networks.
    load
        Returns the checkpoint of a key.
    parts
        The folder of the part files.
    device
        Where the networks run.
    crash_tracker
        Where deaths of processes are counted.
    options
        The threads, the budget and the cache folder of this process.
    reporter
        Is told how many evaluations are done, and when memory runs out.
    name
        The name of this executor among several that share a crash tracker; the same after its process has died.
    """

    def __init__(
        self,
        sweep: Sweep,
        groups: Sequence[NetworkGroup],
        load: Callable[[str], Checkpoint],
        parts: StoragePath,
        device: torch.device | str,
        crash_tracker: CrashTracker,
        *,
        options: ExecutionOptions,
        reporter: Reporter = SILENT,
        name: str = "",
    ) -> None:
        self.sweep, self.groups, self.load, self.crash_tracker = sweep, groups, load, crash_tracker
        self.budget = float("inf") if options.weights_budget is None else options.weights_budget
        self.scope = f"load {name}"  # its own scope, because several executors load the same networks at a time
        self.make_worker = functools.partial(
            Worker, parts=parts, device=device, threads=options.threads, reporter=reporter
        )
        if sweep.compile:
            keep_compiled_code(options.cache)
        self.workers: dict[int, Worker] = {}  # the one that was used last is last

    def compute(self, task: Task, decoded: Sequence[Decoded], scope: str) -> TaskOutcome:
        """Compute a task; where a process died while it computed the task, image by image.

        Parameters
        ----------
        task
            The task.
        decoded
            Its images. The sequence may be lazy: it is indexed only once the crash tracker knows of the task.
        scope
            The crash tracker's scope.
        """
        worker = self._worker(task.group)
        ids = task.ids
        deaths = self.crash_tracker.begin(scope, ids)
        if not any(deaths):
            outcome = worker.compute(task, list(decoded))
            self.crash_tracker.end(scope, ids)
            return outcome
        outcome = TaskOutcome()
        unsuspected = [i for i, count in enumerate(deaths) if not count]
        if unsuspected:
            these = [ids[i] for i in unsuspected]
            self.crash_tracker.begin(scope, these)
            outcome += worker.compute(task.take(unsuspected), [decoded[i] for i in unsuspected], again=True)
            self.crash_tracker.end(scope, these)
        for i, count in enumerate(deaths):
            if count >= MAX_DEATHS:
                outcome += self._set_aside(worker, ids[i])
            elif count:
                outcome += self._compute_alone(task, decoded, i, scope)
        return outcome

    def _set_aside(self, worker: Worker, image_id: str) -> TaskOutcome:
        sentence = (
            f"the process that computed it was killed {MAX_DEATHS} times (out of memory, or a crash in a library): "
            f"set aside; {self.crash_tracker.retry_hint}"
        )
        worker.fail([(image_id, "worker", sentence)], worker.part_name([image_id]) + "-aside")
        return TaskOutcome(failures=1)

    def _compute_alone(self, task: Task, decoded: Sequence[Decoded], position: int, scope: str) -> TaskOutcome:
        image_id = task.ids[position]
        self.crash_tracker.begin(scope, [image_id], alone=True)
        advance = functools.partial(self.crash_tracker.advance, scope, image_id)
        single, images = task.take([position]), [decoded[position]]
        outcome = self._worker(task.group).compute(single, images, again=True, report=advance)
        self.crash_tracker.end(scope, [image_id])
        return outcome

    def close(self) -> None:
        """Release all workers."""
        while self.workers:
            self.workers.popitem()[1].close()

    def _worker(self, number: int) -> Worker:
        if number in self.workers:
            self.workers[number] = self.workers.pop(number)
            return self.workers[number]
        group = self.groups[number]
        while self.workers and group.size + sum(self.groups[n].size for n in self.workers) > self.budget:
            self.workers.pop(next(iter(self.workers))).close()
            free_memory()
        entrants = tuple(self.sweep.entrants[i] for i in group.entrants)
        group_sweep = dataclasses.replace(self.sweep, entrants=entrants)
        keys = list(dict.fromkeys(entrant.checkpoint for entrant in entrants))
        loading = [f"loading {', '.join(keys)}"]
        if self.crash_tracker.begin(self.scope, loading, alone=True)[0] >= MAX_DEATHS:
            named = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            raise UserError(
                f"the process that loaded {named} was killed {MAX_DEATHS} times (out of memory, or a crash in a "
                "library): lower cluster.weights_gb or cluster.workers, or leave out what does not fit; "
                f"{self.crash_tracker.retry_hint}"
            )
        self.workers[number] = self.make_worker(group_sweep, {key: self.load(key) for key in keys})
        self.crash_tracker.end(self.scope, loading)
        return self.workers[number]
