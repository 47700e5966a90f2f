"""The sweep in this process: the next piece of work is decoded while one is computed."""

import os
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from cnnsens_bench import images
from cnnsens_bench.degradations import Reach
from cnnsens_bench.engine.plan import Sweep
from cnnsens_bench.images import decode_row
from cnnsens_bench.models import Checkpoint
from cnnsens_bench.models.base import best_device
from cnnsens_bench.runtime.crash_tracker import FileCrashTracker
from cnnsens_bench.runtime.executor import TaskExecutor, decode_alone
from cnnsens_bench.runtime.partition import NetworkSize, cut
from cnnsens_bench.runtime.plan_store import StoredPlan, Task, tasks_of
from cnnsens_bench.runtime.worker import Outcome
from cnnsens_bench.utils.memory import WEIGHTS_SHARE, total_memory
from cnnsens_bench.utils.storage import StoragePath, local_folder


def run_local(
    sweep: Sweep,
    work: StoredPlan,
    checkpoints: Mapping[str, Checkpoint],
    parts: StoragePath,
    threads: int | None = None,
    report: Callable[[int], None] | None = None,
    note: Callable[[str], None] | None = None,
    budget: float | None = None,
    cache: str | Path | None = None,
) -> Generator[Outcome]:
    """Compute a plan piece by piece; gives each one's outcome when its parts are written.

    `budget`: bytes of weights that are held at once, None: a quarter of the memory; a lineup that takes more is
    computed group by group. A ledger beside the folder of the parts (`begun.json`) outlives a crash of this process:
    the run that follows computes what was under way image by image, and sets aside an image that is always there when
    a process dies; for a URI's output it lies below `cache` (default: the user's).
    """
    device = best_device()
    weights = network_sizes(checkpoints)
    groups, pieces = cut(
        sweep.entrants, weights, budget or default_weights_budget(device), work.chunks, sweep.batch_size, workers=1
    )
    # It is of this process: of a URI's output it lies on this machine.
    beside = parts.parent if isinstance(parts, Path) else local_folder(parts.parent.parent, cache)
    beside.mkdir(parents=True, exist_ok=True)
    crash_tracker = FileCrashTracker(beside / "begun.json")
    again = f"to try it again, delete {crash_tracker.path}"
    executor = TaskExecutor(
        sweep, groups, checkpoints.__getitem__, parts, device, crash_tracker, again,
        max(group.size for group in groups), threads, report, note,
    )  # fmt: skip
    items = (item for n in range(len(groups)) for chunk in work.read() for item in tasks_of(chunk, groups, n, pieces))
    reach = sweep.reach(min(weight.input_size for weight in weights.values()))
    scope = f"{sweep.dataset}: compute"
    pool = ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 2)))
    try:
        waiting = None
        for item in items:
            ahead = PendingDecode(item, reach, crash_tracker, f"{sweep.dataset}: decode", pool)
            if waiting:
                yield executor(waiting.item, waiting.result(), scope)
            waiting = ahead
        if waiting:
            yield executor(waiting.item, waiting.result(), scope)
    finally:
        pool.shutdown(cancel_futures=True)  # who stops the run does not wait for what nobody will use
        crash_tracker.close()


class PendingDecode:
    """An item whose pictures are being decoded, side by side; here and now where that has killed a process before."""

    def __init__(
        self, item: Task, reach: Reach, crash_tracker: FileCrashTracker, scope: str, pool: ThreadPoolExecutor
    ) -> None:
        self.item, self.crash_tracker, self.scope = item, crash_tracker, scope
        self.pending: list[Future[images.Decoded | str]] = []
        self.done: list[images.Decoded | str] = []
        if any(crash_tracker.begin(scope, item.ids)):
            self.done = [decode_alone(row, reach, crash_tracker, scope) for row in item.rows]
        else:
            self.pending = [pool.submit(decode_row, row, reach) for row in item.rows]

    def result(self) -> list[images.Decoded | str]:
        """When all are there."""
        if self.pending:
            self.done = [future.result() for future in self.pending]
            self.crash_tracker.end(self.scope, self.item.ids)
            self.pending = []
        return self.done


def network_sizes(checkpoints: Mapping[str, Checkpoint]) -> dict[str, NetworkSize]:
    """What each takes; they are looked at one by one, so that a mapping may load them lazily."""
    return {key: network_size(checkpoints[key]) for key in checkpoints}


def network_size(checkpoint: Checkpoint) -> NetworkSize:
    """Bytes of all weights and statistics."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in checkpoint.state_dict.values())
    return NetworkSize(size, checkpoint.preprocessing.input_size)


def default_weights_budget(device: torch.device) -> float:
    """Bytes of weights that a process which has a device to itself holds at once."""
    on_device = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else total_memory()
    return WEIGHTS_SHARE * on_device
