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
from cnnsens_bench.engine import parcel
from cnnsens_bench.engine.groups import Group
from cnnsens_bench.engine.halving import free_memory
from cnnsens_bench.engine.ledger import KILLS
from cnnsens_bench.engine.plan import Sweep
from cnnsens_bench.engine.worker import Outcome, Worker, decode_row
from cnnsens_bench.engine.written import Item
from cnnsens_bench.errors import UserError
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


def pack_item(
    number: int, item: Item, decoded: Sequence[images.Decoded | str], ledger: Witness, scope: str
) -> pa.Table:
    """`parcel.pack`; where that has killed a process, each picture is tried alone before all are packed together."""
    ids = item.ids
    if any(ledger.begin(scope, ids)):
        decoded = [pack_alone(item, i, image, ledger, scope) for i, image in enumerate(decoded)]
        scope = f"{scope} together"
        kills = ledger.begin(scope, ids, alone=True)
        decoded = [PACKED if count >= KILLS else image for count, image in zip(kills, decoded, strict=True)]
    block = parcel.pack(number, item, decoded)
    ledger.end(scope, ids)
    return block


def pack_alone(
    item: Item, place: int, image: images.Decoded | str, ledger: Witness, scope: str
) -> images.Decoded | str:
    """The picture, if packing it kills nobody."""
    ids = [item.ids[place]]
    good = ledger.begin(scope, ids, alone=True)[0] < KILLS
    if good:
        parcel.pack(0, item.part([place]), [image])
    ledger.end(scope, ids)
    return image if good else PACKED


PACKED = f"set aside: the process that packed it was killed {KILLS} times"


class Crew:
    """The workers for the groups of a sweep, loaded as they are needed; those used last stay, up to `budget` bytes.

    `load(key)`: the checkpoint of that key; `again`: how what is set aside is tried again, for a sentence; `who`: the
    name of this one of several crews that share a ledger, the same after it died; what else there is: see `Worker`.
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
        who: str = "",
    ) -> None:
        self.sweep, self.groups, self.load, self.ledger, self.again = sweep, groups, load, ledger, again
        self.budget, self.scope = budget, f"load {who}"  # its own: several load the same networks at a time
        self.make = functools.partial(Worker, parts=parts, device=device, threads=threads, report=report, note=note)
        self.workers: OrderedDict[int, Worker] = OrderedDict()

    def __call__(self, item: Item, decoded: Sequence[images.Decoded | str], scope: str) -> Outcome:
        """Compute an item. `scope`: see `Ledger`; where a process died on it before, image by image.

        `decoded` may unpack its pictures as they are asked for: they are only once the item is under way.
        """
        worker = self._worker(item.group)
        ids = item.ids
        kills = self.ledger.begin(scope, ids)
        if not any(kills):
            outcome = worker(item, list(decoded))
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
                outcome += self._alone(worker, item.part([i]), decoded, i, kills[i], scope, image_id)
        return outcome

    def _alone(
        self, worker: Worker, item: Item, decoded: Sequence[images.Decoded | str], place: int, kills: int, scope: str,
        image_id: str,
    ) -> Outcome:  # fmt: skip
        if kills >= KILLS:
            sentence = (
                f"the process that computed it was killed {KILLS} times (out of memory, or a crash in a library): "
                f"set aside; {self.again}"
            )
            worker.fail([(image_id, "worker", sentence)], worker.name_of([image_id]) + "-aside")
            return Outcome(failures=1)
        self.ledger.begin(scope, [image_id], alone=True)
        step = functools.partial(self.ledger.step, scope, image_id)
        outcome = worker(item, [decoded[place]], again=True, step=step)
        self.ledger.end(scope, [image_id])
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
        if self.ledger.begin(self.scope, loading, alone=True)[0] >= KILLS:
            named = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            raise UserError(
                f"the process that loaded {named} was killed {KILLS} times (out of memory, or a crash in a library): "
                f"lower cluster.weights_gb or cluster.workers, or leave out what does not fit; {self.again}"
            )
        self.workers[number] = self.make(own, {key: self.load(key) for key in keys})
        self.ledger.end(self.scope, loading)
        return self.workers[number]
