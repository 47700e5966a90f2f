"""What computes pieces of work one after the other: loads the networks of their groups, and sets aside what kills."""

import dataclasses
import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from cnnsens_bench import images
from cnnsens_bench.degradations import Reach
from cnnsens_bench.engine.groups import Group
from cnnsens_bench.engine.ledger import KILLS
from cnnsens_bench.engine.plan import Sweep
from cnnsens_bench.engine.worker import Outcome, Worker, decode_row
from cnnsens_bench.engine.written import Item
from cnnsens_bench.models import Checkpoint
from cnnsens_bench.places import Place


class Witness(Protocol):
    """A `Ledger`, or one that is reached through Ray."""

    def begin(self, scope: str, ids: Sequence[str], alone: bool = False) -> list[int]: ...
    def step(self, scope: str, image_id: str, place: int) -> None: ...
    def end(self, scope: str, ids: Sequence[str]) -> None: ...


def decode_item(item: Item, reach: Reach, ledger: Witness, scope: str) -> list[images.Decoded | str]:
    """The pictures of an item, or the sentences that say why there are none."""
    ids = item.ids
    if not any(ledger.begin(scope, ids)):
        decoded = [decode_row(row, reach) for row in item.rows]
        ledger.end(scope, ids)
        return decoded
    return [decode_alone(row, reach, ledger, scope) for row in item.rows]


def decode_alone(row: Mapping[str, Any], reach: Reach, ledger: Witness, scope: str) -> images.Decoded | str:
    """One of several of which one has killed a process."""
    image_id = str(row["image_id"])
    if ledger.begin(scope, [image_id], alone=True)[0] >= KILLS:
        ledger.end(scope, [image_id])
        return f"set aside: its decoder was killed {KILLS} times"
    decoded = decode_row(row, reach)
    ledger.end(scope, [image_id])
    return decoded


class Crew:
    """The workers for the groups of a sweep, loaded as they are needed; those used last stay, up to `budget` bytes.

    `load(key)`: the checkpoint of that key; `again`: how an image that is set aside is tried again, for a sentence;
    what else there is: see `Worker`.
    """

    def __init__(
        self,
        sweep: Sweep,
        groups: Sequence[Group],
        load: Callable[[str], Checkpoint],
        parts: Place,
        device: torch.device | str,
        ledger: Witness,
        again: str,
        budget: float = float("inf"),
        threads: int | None = None,
        report: Callable[[int], None] | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.sweep, self.groups, self.load, self.ledger, self.again = sweep, groups, load, ledger, again
        self.budget = budget
        self.make = functools.partial(Worker, parts=parts, device=device, threads=threads, report=report, note=note)
        self.workers: OrderedDict[int, Worker] = OrderedDict()

    def __call__(self, item: Item, decoded: Sequence[images.Decoded | str], scope: str) -> Outcome:
        """Compute an item. `scope`: see `Ledger`; where a process died on it before, image by image."""
        worker = self._worker(item.group)
        ids = item.ids
        kills = self.ledger.begin(scope, ids)
        if not any(kills):
            outcome = worker(item, decoded)
            self.ledger.end(scope, ids)
            return outcome
        outcome = Outcome()
        innocent = [i for i, count in enumerate(kills) if not count]
        if innocent:
            these = [ids[i] for i in innocent]
            self.ledger.begin(scope, these)
            outcome += worker(item.part(innocent), [decoded[i] for i in innocent], again=True)
            self.ledger.end(scope, these)
        for i, image_id in enumerate(ids):
            if kills[i]:
                outcome += self._alone(worker, item.part([i]), decoded[i], kills[i], scope, image_id)
        return outcome

    def _alone(
        self, worker: Worker, item: Item, decoded: images.Decoded | str, kills: int, scope: str, image_id: str
    ) -> Outcome:
        if kills >= KILLS:
            sentence = (
                f"the process that computed it was killed {KILLS} times (out of memory, or a crash in a library): "
                f"set aside; {self.again}"
            )
            worker.fail([(image_id, "worker", sentence)], worker.name_of([image_id]) + "-aside")
            return Outcome(failures=1)
        self.ledger.begin(scope, [image_id], alone=True)
        outcome = worker(item, [decoded], again=True, step=lambda place: self.ledger.step(scope, image_id, place))
        self.ledger.end(scope, [image_id])
        return outcome

    def _worker(self, number: int) -> Worker:
        if number in self.workers:
            self.workers.move_to_end(number)
            return self.workers[number]
        group = self.groups[number]
        while self.workers and group.size + sum(self.groups[n].size for n in self.workers) > self.budget:
            self.workers.popitem(last=False)[1].close()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        entrants = tuple(self.sweep.entrants[i] for i in group.entrants)
        own = dataclasses.replace(self.sweep, entrants=entrants)
        checkpoints = {key: self.load(key) for key in dict.fromkeys(entrant.checkpoint for entrant in entrants)}
        self.workers[number] = self.make(own, checkpoints)
        return self.workers[number]
