"""What dies around the computing itself: while networks are loaded, while pictures are packed."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from cnnsens_bench.datasets import Samples
from cnnsens_bench.degradations import Reach
from cnnsens_bench.engine import parcel
from cnnsens_bench.engine.crew import Crew, decode_item, pack_item
from cnnsens_bench.engine.groups import Group
from cnnsens_bench.engine.ledger import KILLS, FileLedger, Ledger
from cnnsens_bench.engine.plan import Condition, Entrant, Sweep
from cnnsens_bench.engine.worker import Outcome
from cnnsens_bench.engine.written import Item
from cnnsens_bench.errors import UserError
from cnnsens_bench.models import Checkpoint
from tests.conftest import TINY, tiny_checkpoint

SWEEP = Sweep(
    "r", "d", (Entrant(TINY, "a", "none", "a"), Entrant(TINY, "b", "none", "b")), (Condition("flip_lr", (0.0,), 1),),
    batch_size=4,
)  # fmt: skip
GROUPS = [Group((0,), 1), Group((1,), 1)]


class Killed(BaseException):
    """The process ends here."""


def item_of(samples: Samples, group: int = 0) -> Item:
    rows = samples.table.head(3).to_dict("records")
    return Item(group, rows, np.ones((3, 1, len(SWEEP.cells())), bool), np.ones(3, bool))


@pytest.fixture
def crews(tmp_path: Path) -> Iterator[Callable[..., Crew]]:
    made = []

    def make(load: Callable[[str], Checkpoint], ledger: Ledger, who: str = "") -> Crew:
        made.append(Crew(SWEEP, GROUPS, load, tmp_path, "cpu", ledger, "again so", 1.5, who=who))
        return made[-1]

    yield make
    for crew in made:
        for worker in crew.workers.values():
            worker.close()


def computed(crew: Crew, item: Item) -> Outcome:
    ledger = crew.ledger
    return crew(item, decode_item(item, Reach(), ledger, "decode"), "compute")


def test_a_loading_that_kills_is_one_sentence_and_no_image_is_blamed(
    samples: Samples, crews: Callable[..., Crew], tmp_path: Path
) -> None:
    def load(key: str) -> Checkpoint:
        if key == "b":
            raise Killed
        return tiny_checkpoint()

    path = tmp_path / "begun.json"
    for _ in range(KILLS):
        with pytest.raises(Killed):
            computed(crews(load, FileLedger(path)), item_of(samples, 1))
    ledger = FileLedger(path)
    crew = crews(load, ledger)
    assert computed(crew, item_of(samples, 0)) == Outcome(3, 6, 0)  # another group's networks
    with pytest.raises(UserError) as caught:
        computed(crew, item_of(samples, 1))
    assert str(caught.value) == (
        "the process that loaded b was killed 3 times (out of memory, or a crash in a library): lower "
        "cluster.weights_gb or cluster.workers, or leave out what does not fit; again so"
    )
    assert not {row["image_id"] for row in item_of(samples).rows} & ledger.poisoned


def test_a_loading_that_ends_clears_it_and_crews_do_not_meet(samples: Samples, crews: Callable[..., Crew]) -> None:
    ledger, fatal = Ledger(), [True]

    def load(key: str) -> Checkpoint:
        if fatal[0]:
            raise Killed
        return tiny_checkpoint()

    for _ in range(KILLS - 1):
        with pytest.raises(Killed):
            computed(crews(load, ledger, "one"), item_of(samples))
    # Others load the same networks at the same time: that they are under way there says nothing.
    for i in range(2 * KILLS):
        with pytest.raises(Killed):
            computed(crews(load, ledger, f"another {i}"), item_of(samples))
    fatal[0] = False
    assert computed(crews(load, ledger, "one"), item_of(samples)).failures == 0
    assert not ledger.poisoned
    assert not [key for key in (*ledger.killed, *ledger.under_way) if key[0] == "load one"]


@pytest.mark.parametrize("alone", [True, False])
def test_a_picture_whose_packing_kills_is_set_aside(
    alone: bool, samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found among the others; where only all of them together kill (of memory), all are set aside."""
    ledger, item = Ledger(), item_of(samples)
    fatal = item.ids[1]
    real = parcel.pack

    def killing(number: int, of: Item, decoded: Sequence) -> object:
        good = {i for i, image in zip(of.ids, decoded, strict=True) if not isinstance(image, str)}
        if (fatal in good) if alone else len(good) == 3:
            raise Killed
        return real(number, of, decoded)

    monkeypatch.setattr(parcel, "pack", killing)
    deaths, block = 0, None
    while block is None:
        try:
            block = pack_item(5, item, decode_item(item, Reach(), ledger, "decode"), ledger, "pack")
        except Killed:
            deaths += 1
            assert deaths <= 2 * KILLS + 1
    ((_, _, unpacked),) = parcel.unpack(block)
    sentences = [image if isinstance(image, str) else "" for image in unpacked]
    said = "set aside: the process that packed it was killed 3 times"
    assert sentences == (["", said, ""] if alone else [said] * 3)
    assert ledger.begin("compute", [fatal]) == [KILLS]  # nobody else dies on it


def test_pictures_are_unpacked_while_their_image_is_under_way(
    samples: Samples, crews: Callable[..., Crew], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that kills while it is unpacked is found and set aside; the others are computed."""
    ledger, item = Ledger(), item_of(samples)
    block = parcel.pack(5, item, decode_item(item, Reach(), ledger, "decode"))
    fatal = item.ids.index(sorted(item.ids)[1])
    real = parcel.Pictures.__getitem__

    def killing(self: parcel.Pictures, place: int) -> object:
        if place == fatal:
            raise Killed
        return real(self, place)

    monkeypatch.setattr(parcel.Pictures, "__getitem__", killing)
    outcome = None
    for _ in range(2 * KILLS):
        crew = crews(lambda _: tiny_checkpoint(), ledger)
        ((_, unpacked, decoded),) = parcel.unpack(block)
        try:
            outcome = crew(unpacked, decoded, "compute")
            break
        except Killed:
            continue
    assert outcome == Outcome(2, 4, 1)
    assert ledger.poisoned == {item.ids[fatal]}
