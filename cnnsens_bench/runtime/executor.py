"""What computes pieces of work one after the other: loads the networks of their groups, and sets aside what kills."""

import dataclasses
import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa
import torch

from cnnsens_bench import images
from cnnsens_bench.degradations import Reach
from cnnsens_bench.engine.oom_backoff import free_memory
from cnnsens_bench.engine.plan import Sweep
from cnnsens_bench.images import decode_row
from cnnsens_bench.models import Checkpoint
from cnnsens_bench.runtime import serialization
from cnnsens_bench.runtime.crash_tracker import KILLS
from cnnsens_bench.runtime.partition import NetworkGroup
from cnnsens_bench.runtime.plan_store import Task
from cnnsens_bench.runtime.worker import Outcome, Worker
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.storage import StoragePath


class CrashRecorder(Protocol):
    """A `CrashTracker`, or one that is reached through Ray."""

    def begin(self, scope: str, ids: Sequence[str], alone: bool = False) -> list[int]: ...
    def step(self, scope: str, image_id: str, place: int) -> None: ...
    def end(self, scope: str, ids: Sequence[str]) -> None: ...


def decode_task(item: Task, reach: Reach, crash_tracker: CrashRecorder, scope: str) -> list[images.Decoded | str]:
    """The pictures of an item, or the sentences that say why there are none."""
    ids = item.ids
    if not any(crash_tracker.begin(scope, ids)):
        decoded = [decode_row(row, reach) for row in item.rows]
        crash_tracker.end(scope, ids)
        return decoded
    return [decode_alone(row, reach, crash_tracker, scope) for row in item.rows]


def decode_alone(
    row: Mapping[str, Any], reach: Reach, crash_tracker: CrashRecorder, scope: str
) -> images.Decoded | str:
    """One of several of which one has killed a process."""
    image_id = str(row["image_id"])
    if crash_tracker.begin(scope, [image_id], alone=True)[0] >= KILLS:
        crash_tracker.end(scope, [image_id])
        return f"set aside: its decoder was killed {KILLS} times"
    decoded = decode_row(row, reach)
    crash_tracker.end(scope, [image_id])
    return decoded


def pack_task(
    number: int, item: Task, decoded: Sequence[images.Decoded | str], crash_tracker: CrashRecorder, scope: str
) -> pa.Table:
    """`serialization.pack`; where that has killed a process, each picture is tried alone first."""
    ids = item.ids
    if any(crash_tracker.begin(scope, ids)):
        decoded = [pack_alone(item, i, image, crash_tracker, scope) for i, image in enumerate(decoded)]
        scope = f"{scope} together"
        kills = crash_tracker.begin(scope, ids, alone=True)
        decoded = [PACKED if count >= KILLS else image for count, image in zip(kills, decoded, strict=True)]
    block = serialization.pack(number, item, decoded)
    crash_tracker.end(scope, ids)
    return block


def pack_alone(
    item: Task, place: int, image: images.Decoded | str, crash_tracker: CrashRecorder, scope: str
) -> images.Decoded | str:
    """The picture, if packing it kills nobody."""
    ids = [item.ids[place]]
    good = crash_tracker.begin(scope, ids, alone=True)[0] < KILLS
    if good:
        serialization.pack(0, item.part([place]), [image])
    crash_tracker.end(scope, ids)
    return image if good else PACKED


PACKED = f"set aside: the process that packed it was killed {KILLS} times"


class TaskExecutor:
    """The workers for the groups of a sweep, loaded as they are needed; those used last stay, up to `budget` bytes.

    `load(key)`: the checkpoint of that key; `again`: how what is set aside is tried again, for a sentence; `who`: the
    name of this one of several crews that share a ledger, the same after it died; what else there is: see `Worker`.
    """

    def __init__(
        self,
        sweep: Sweep,
        groups: Sequence[NetworkGroup],
        load: Callable[[str], Checkpoint],
        parts: StoragePath,
        device: torch.device | str,
        crash_tracker: CrashRecorder,
        again: str,
        budget: float = float("inf"),
        threads: int | None = None,
        report: Callable[[int], None] | None = None,
        note: Callable[[str], None] | None = None,
        who: str = "",
    ) -> None:
        self.sweep, self.groups, self.load, self.crash_tracker, self.again = sweep, groups, load, crash_tracker, again
        self.budget, self.scope = budget, f"load {who}"  # its own: several load the same networks at a time
        self.make = functools.partial(Worker, parts=parts, device=device, threads=threads, report=report, note=note)
        self.workers: OrderedDict[int, Worker] = OrderedDict()

    def __call__(self, item: Task, decoded: Sequence[images.Decoded | str], scope: str) -> Outcome:
        """Compute an item. `scope`: see `CrashTracker`; where a process died on it before, image by image.

        `decoded` may unpack its pictures as they are asked for: they are only once the item is under way.
        """
        worker = self._worker(item.group)
        ids = item.ids
        kills = self.crash_tracker.begin(scope, ids)
        if not any(kills):
            outcome = worker(item, list(decoded))
            self.crash_tracker.end(scope, ids)
            return outcome
        outcome = Outcome()
        innocent = [i for i, count in enumerate(kills) if not count]
        if innocent:
            these = [ids[i] for i in innocent]
            self.crash_tracker.begin(scope, these)
            outcome += worker(item.part(innocent), [decoded[i] for i in innocent], again=True)
            self.crash_tracker.end(scope, these)
        for i, image_id in enumerate(ids):
            if kills[i]:
                outcome += self._alone(worker, item.part([i]), decoded, i, kills[i], scope, image_id)
        return outcome

    def _alone(
        self, worker: Worker, item: Task, decoded: Sequence[images.Decoded | str], place: int, kills: int, scope: str,
        image_id: str,
    ) -> Outcome:  # fmt: skip
        if kills >= KILLS:
            sentence = (
                f"the process that computed it was killed {KILLS} times (out of memory, or a crash in a library): "
                f"set aside; {self.again}"
            )
            worker.fail([(image_id, "worker", sentence)], worker.name_of([image_id]) + "-aside")
            return Outcome(failures=1)
        self.crash_tracker.begin(scope, [image_id], alone=True)
        step = functools.partial(self.crash_tracker.step, scope, image_id)
        outcome = worker(item, [decoded[place]], again=True, step=step)
        self.crash_tracker.end(scope, [image_id])
        return outcome

    def _worker(self, number: int) -> Worker:
        if number in self.workers:
            self.workers.move_to_end(number)
            return self.workers[number]
        group = self.groups[number]
        while self.workers and group.size + sum(self.groups[n].size for n in self.workers) > self.budget:
            self.workers.popitem(last=False)[1].close()
            free_memory()
        entrants = tuple(self.sweep.entrants[i] for i in group.entrants)
        own = dataclasses.replace(self.sweep, entrants=entrants)
        keys = list(dict.fromkeys(entrant.checkpoint for entrant in entrants))
        loading = [f"loading {', '.join(keys)}"]
        if self.crash_tracker.begin(self.scope, loading, alone=True)[0] >= KILLS:
            named = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            raise UserError(
                f"the process that loaded {named} was killed {KILLS} times (out of memory, or a crash in a library): "
                f"lower cluster.weights_gb or cluster.workers, or leave out what does not fit; {self.again}"
            )
        self.workers[number] = self.make(own, {key: self.load(key) for key in keys})
        self.crash_tracker.end(self.scope, loading)
        return self.workers[number]
