"""The sweep in this process: the images of the next task are decoded while one is computed."""

import dataclasses
import itertools
import os
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from cnnsens_bench.degradations import Reach
from cnnsens_bench.engine.sweep import Sweep
from cnnsens_bench.images import decode_row, read_ahead, stop_reading
from cnnsens_bench.models import Checkpoint
from cnnsens_bench.models.classifier import best_device
from cnnsens_bench.runtime.crash_tracker import FileCrashTracker
from cnnsens_bench.runtime.executor import TaskExecutor, decode_alone
from cnnsens_bench.runtime.partition import NetworkSize, cut
from cnnsens_bench.runtime.plan_store import StoredPlan, Task, tasks_of
from cnnsens_bench.runtime.resources import ExecutionOptions
from cnnsens_bench.runtime.worker import Decoded, TaskOutcome
from cnnsens_bench.utils.memory import WEIGHTS_SHARE, total_memory
from cnnsens_bench.utils.reporter import SILENT, Reporter
from cnnsens_bench.utils.storage import StoragePath, local_folder


def run_local(
    sweep: Sweep,
    plan: StoredPlan,
    checkpoints: Mapping[str, Checkpoint],
    parts: StoragePath,
    options: ExecutionOptions = ExecutionOptions(),  # noqa: B008  # it is frozen
    reporter: Reporter = SILENT,
) -> Generator[TaskOutcome]:
    """Compute a plan task by task, and yield the outcome of each when its part files are written.

    The file `begun.json` beside the folder of the parts outlives a crash of this process. The run that follows computes
    the images that were begun one by one, and sets aside an image that is always there when a process dies. Where the
    output is a URI, the file lies on this machine, below the cache folder.

    Parameters
    ----------
    sweep
        The sweep.
    plan
        What is to be computed.
    checkpoints
        The checkpoints of the entrants, by their keys. They may be loaded as they are asked for.
    parts
        The folder of the part files.
    options
        How the sweep is executed.
    reporter
        Hears of evaluations and of memory that runs out.
    """
    device = best_device()
    # One is held at a time, because a mapping may load them as they are asked for.
    weights = {key: network_size(checkpoints[key], sweep.compile) for key in checkpoints}
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else total_memory()
    budget = options.weights_budget or WEIGHTS_SHARE * memory
    groups, tasks_per_batch = cut(sweep.entrants, weights, budget, plan.batches, sweep.batch_size, workers=1)
    beside = parts.parent if isinstance(parts, Path) else local_folder(parts.parent.parent, options.cache)
    beside.mkdir(parents=True, exist_ok=True)
    crash_tracker = FileCrashTracker(beside / "begun.json")
    own = dataclasses.replace(options, weights_budget=max(group.size for group in groups))
    load = checkpoints.__getitem__
    executor = TaskExecutor(sweep, groups, load, parts, device, crash_tracker, options=own, reporter=reporter)
    numbers = range(len(groups))
    tasks = (task for n in numbers for batch in plan.read() for task in tasks_of(batch, groups, n, tasks_per_batch))
    reach = sweep.reach(min(weight.input_size for weight in weights.values()))
    scope = sweep.dataset
    pool = ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 2)))
    try:
        waiting = None
        for task in itertools.chain(tasks, [None]):
            ahead = (task, _decode_ahead(task, reach, crash_tracker, f"{scope}: decode", pool)) if task else None
            if waiting:
                yield executor.compute(waiting[0], waiting[1](), f"{scope}: compute")
            waiting = ahead
    finally:
        stop_reading()
        pool.shutdown(cancel_futures=True)  # a run that is stopped does not wait for images that nobody will use
        executor.close()
        crash_tracker.close()


def _decode_ahead(
    task: Task, reach: Reach, crash_tracker: FileCrashTracker, scope: str, pool: ThreadPoolExecutor
) -> Callable[[], list[Decoded]]:
    """Decode the images of a task in a pool, and return what waits for them.

    Where that has killed a process before, they are decoded at once, one by one.
    """
    if any(crash_tracker.begin(scope, task.ids)):
        alone = [decode_alone(row, reach, crash_tracker, scope) for row in task.rows]
        return lambda: alone
    readers = read_ahead([row["uri"] for row in task.rows])
    pending = [pool.submit(decode_row, row, reach, read) for row, read in zip(task.rows, readers, strict=True)]

    def result() -> list[Decoded]:
        decoded = [future.result() for future in pending]
        crash_tracker.end(scope, task.ids)
        return decoded

    return result


def network_size(checkpoint: Checkpoint, compiled: bool) -> NetworkSize:
    """Return the bytes of all weights and statistics, and the side of the input.

    A compiled network holds its weights twice: as they are, and as constants of the compiled code.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in checkpoint.state_dict.values())
    return NetworkSize(2 * size if compiled else size, checkpoint.preprocessing.input_size)
