"""Processes that die around the computing itself: while networks are loaded, or images packed."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from cnnsens_bench.datasets import Samples
from cnnsens_bench.degradations import Reach
from cnnsens_bench.engine.sweep import Condition, Entrant, Sweep
from cnnsens_bench.models import Checkpoint
from cnnsens_bench.runtime import serialization
from cnnsens_bench.runtime.crash_tracker import MAX_DEATHS, CrashTracker, FileCrashTracker
from cnnsens_bench.runtime.executor import TaskExecutor, decode_task, pack_task
from cnnsens_bench.runtime.partition import NetworkGroup
from cnnsens_bench.runtime.plan_store import Task
from cnnsens_bench.runtime.resources import ExecutionOptions
from cnnsens_bench.runtime.worker import TaskOutcome
from cnnsens_bench.utils.errors import UserError
from tests.conftest import TINY, tiny_checkpoint

SWEEP = Sweep(
    "r", "d", (Entrant(TINY, "a", "none", "a"), Entrant(TINY, "b", "none", "b")), (Condition("flip_lr", (0.0,), 1),),
    batch_size=4,
)  # fmt: skip
GROUPS = [NetworkGroup((0,), 1), NetworkGroup((1,), 1)]


class Killed(BaseException):
    """Stands for the end of the process."""


def task_of(samples: Samples, group: int = 0) -> Task:
    rows = samples.table.head(3).to_dict("records")
    wanted, scores = np.ones((3, 1, len(SWEEP.cells())), bool), np.ones((3, 1, 0), bool)
    return Task(group, rows, wanted, scores, np.ones(3, bool))


@pytest.fixture
def executors(tmp_path: Path) -> Iterator[Callable[..., TaskExecutor]]:
    made = []

    def make(load: Callable[[str], Checkpoint], crash_tracker: CrashTracker, name: str = "") -> TaskExecutor:
        crash_tracker.retry_hint = "again so"
        options = ExecutionOptions(weights_budget=1.5)
        executor = TaskExecutor(SWEEP, GROUPS, load, tmp_path, "cpu", crash_tracker, options=options, name=name)
        made.append(executor)
        return executor

    yield make
    for executor in made:
        executor.close()


def computed(executor: TaskExecutor, task: Task) -> TaskOutcome:
    crash_tracker = executor.crash_tracker
    return executor.compute(task, decode_task(task, Reach(), crash_tracker, "decode"), "compute")


def test_a_loading_that_kills_is_one_sentence_and_no_image_is_blamed(
    samples: Samples, executors: Callable[..., TaskExecutor], tmp_path: Path
) -> None:
    def load(key: str) -> Checkpoint:
        if key == "b":
            raise Killed
        return tiny_checkpoint()

    path = tmp_path / "begun.json"
    for _ in range(MAX_DEATHS):
        with pytest.raises(Killed):
            computed(executors(load, FileCrashTracker(path)), task_of(samples, 1))
    crash_tracker = FileCrashTracker(path)
    executor = executors(load, crash_tracker)
    assert computed(executor, task_of(samples, 0)) == TaskOutcome(3, 6, 0)  # another group's networks
    with pytest.raises(UserError) as caught:
        computed(executor, task_of(samples, 1))
    assert str(caught.value) == (
        "the process that loaded b was killed 3 times (out of memory, or a crash in a library): lower "
        "cluster.weights_gb or cluster.workers, or leave out what does not fit; again so"
    )
    assert not {row["image_id"] for row in task_of(samples).rows} & crash_tracker.set_aside


def test_a_loading_that_ends_is_cleared_and_executors_do_not_share_deaths(
    samples: Samples, executors: Callable[..., TaskExecutor]
) -> None:
    crash_tracker, fatal = CrashTracker(), [True]

    def load(key: str) -> Checkpoint:
        if fatal[0]:
            raise Killed
        return tiny_checkpoint()

    for _ in range(MAX_DEATHS - 1):
        with pytest.raises(Killed):
            computed(executors(load, crash_tracker, "one"), task_of(samples))
    # Others load the same networks at the same time: that they have begun there says nothing.
    for i in range(2 * MAX_DEATHS):
        with pytest.raises(Killed):
            computed(executors(load, crash_tracker, f"another {i}"), task_of(samples))
    fatal[0] = False
    assert computed(executors(load, crash_tracker, "one"), task_of(samples)).failures == 0
    assert not crash_tracker.set_aside
    assert not [key for key in (*crash_tracker.deaths, *crash_tracker.begun) if key[0] == "load one"]


@pytest.mark.parametrize("alone", [True, False])
def test_an_image_whose_packing_kills_is_set_aside(
    alone: bool, samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found among the others; where only all of them together kill (of memory), all are set aside."""
    crash_tracker, task = CrashTracker(), task_of(samples)
    fatal = task.ids[1]
    real = serialization.pack

    def killing(number: int, packed: Task, decoded: Sequence) -> object:
        good = {i for i, image in zip(packed.ids, decoded, strict=True) if not isinstance(image, str)}
        if (fatal in good) if alone else len(good) == 3:
            raise Killed
        return real(number, packed, decoded)

    monkeypatch.setattr(serialization, "pack", killing)
    deaths, block = 0, None
    while block is None:
        try:
            block = pack_task(5, task, decode_task(task, Reach(), crash_tracker, "decode"), crash_tracker, "pack")
        except Killed:
            deaths += 1
            assert deaths <= 2 * MAX_DEATHS + 1
    ((_, _, unpacked),) = serialization.unpack(block)
    sentences = [image if isinstance(image, str) else "" for image in unpacked]
    said = "set aside: the process that packed it was killed 3 times"
    assert sentences == (["", said, ""] if alone else [said] * 3)
    assert crash_tracker.begin("compute", [fatal]) == [MAX_DEATHS]  # no other process dies on it


def test_images_are_unpacked_once_they_have_begun(
    samples: Samples, executors: Callable[..., TaskExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that kills while it is unpacked is found and set aside; the others are computed."""
    crash_tracker, task = CrashTracker(), task_of(samples)
    block = serialization.pack(5, task, decode_task(task, Reach(), crash_tracker, "decode"))
    fatal = task.ids.index(sorted(task.ids)[1])
    real = serialization.LazyImages.__getitem__

    def killing(self: serialization.LazyImages, position: int) -> object:
        if position == fatal:
            raise Killed
        return real(self, position)

    monkeypatch.setattr(serialization.LazyImages, "__getitem__", killing)
    outcome = None
    for _ in range(2 * MAX_DEATHS):
        executor = executors(lambda _: tiny_checkpoint(), crash_tracker)
        ((_, unpacked, decoded),) = serialization.unpack(block)
        try:
            outcome = executor.compute(unpacked, decoded, "compute")
            break
        except Killed:
            continue
    assert outcome == TaskOutcome(2, 4, 1)
    assert crash_tracker.set_aside == {task.ids[fatal]}
