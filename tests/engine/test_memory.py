"""Memory that runs out around the networks' passes: fewer images at a time, and the same bits."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from cnnsens_bench.datasets import Samples
from cnnsens_bench.defenses import Defense, parse_defense
from cnnsens_bench.degradations import Reach, degradation, degradations
from cnnsens_bench.engine import batch_norm, evaluate
from cnnsens_bench.engine.batch_norm import Recalibrated
from cnnsens_bench.engine.evaluate import Evaluator
from cnnsens_bench.engine.networks import LoadedEntrant, NetworkInput
from cnnsens_bench.engine.sweep import CalibrationImage, Condition, Entrant, Sweep
from cnnsens_bench.images import decode_row
from cnnsens_bench.models import Classifier
from cnnsens_bench.runtime.plan_store import Task
from cnnsens_bench.runtime.worker import TaskOutcome, Worker
from tests.conftest import TINY, RecordingReporter, tiny_checkpoint

GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
KEYS = ["image_id", "model", "degradation", "level", "trial"]
IMAGES = 7


class Room:
    """How many images fit (`most`) at the step `at`, and how many were tried."""

    def __init__(self) -> None:
        self.most, self.at, self.seen = 99, "", list[int]()

    def take(self, at: str, count: int) -> None:
        if at == self.at:
            self.seen.append(count)
            if count > self.most:
                raise GPU


@pytest.fixture(scope="module")
def registered() -> Iterator[Room]:
    found = Room()

    def draw(streams: object, size: int) -> Tensor:
        found.take("draw", len(streams.image_ids))  # type: ignore[attr-defined]
        return streams.normal(3, size, size)  # type: ignore[attr-defined]

    @degradation("mine:large", draw=draw, levels=(4, 9))
    def large(pixels: Tensor, noise: Tensor, level: float) -> Tensor:
        found.take("apply", len(pixels))
        return pixels + level * noise

    yield found
    del degradations.data["mine:large"]  # type: ignore[attr-defined]


@pytest.fixture
def room(registered: Room) -> Iterator[Room]:
    yield registered
    registered.__init__()  # type: ignore[misc]


SWEEP = Sweep(
    "r", "d", (Entrant(TINY, "a", "none", "a"), Entrant("timm/other", "b", "median_filter", "b")),
    (Condition("gaussian_rgb", (8.0,), 2), Condition("mine:large", (4.0, 9.0), 2), Condition("flip_lr", (0.0,), 1)),
    batch_size=8, sensitivity=True,
)  # fmt: skip


Ran = tuple[TaskOutcome, list[str], dict[str, pd.DataFrame]]


def ran(samples: Samples, parts: Path, sweep: Sweep = SWEEP) -> Ran:
    """Return what a worker makes of a task: outcome, messages, and kind → rows, with those of repeated parts once."""
    parts.mkdir()
    notes: list[str] = []
    checkpoints = {key: tiny_checkpoint(i, input_size=32) for i, key in enumerate("ab")}
    reporter = RecordingReporter(notes)
    worker = Worker(sweep, checkpoints, parts, "cpu", reporter=reporter)
    rows = samples.table.iloc[::5].head(IMAGES).to_dict("records")
    wanted, wanted_scores = (np.repeat(needed[None], IMAGES, axis=0) for needed in sweep.needed())
    task = Task(0, rows, wanted, wanted_scores, np.ones(IMAGES, bool))
    outcome = worker.compute(task, [decode_row(row, Reach()) for row in rows])
    # Each evaluation is reported once, however often it is computed.
    assert outcome.evaluations <= reporter.total <= wanted.sum() + wanted_scores.sum()
    worker.close()
    found = {}
    for kind in ("images", "predictions", "sensitivity", "failures"):
        files = sorted(parts.glob(f"{kind}-*.parquet"))
        plain, again = ([f for f in files if ("-retry" in f.name) == wanted] for wanted in (False, True))
        tables = [pd.concat([pd.read_parquet(f) for f in some]) for some in (plain, again) if some]
        # The store takes the rows of repeated parts once, and compares them with all others.
        assert not plain or not tables[0].duplicated().any()
        whole = pd.concat(tables).astype(dict.fromkeys(set(KEYS) & set(tables[0]), str)) if tables else pd.DataFrame()
        whole = whole.drop_duplicates()
        found[kind] = whole.sort_values(list(whole.columns), ignore_index=True)
    return outcome, notes, found


@pytest.fixture(scope="module")
def whole(samples: Samples, registered: Room, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A run with room for all images."""
    return ran(samples, tmp_path_factory.mktemp("whole") / "parts")


@pytest.mark.parametrize("at", ["draw", "apply"])
def test_a_task_is_split_and_gives_the_same_bits(
    samples: Samples, room: Room, whole: Ran, tmp_path: Path, at: str
) -> None:
    expected = whole
    room.at, room.most = at, 2
    outcome, notes, found = ran(samples, tmp_path / "parts")
    assert outcome == expected[0] == TaskOutcome(IMAGES, IMAGES * 2 * (1 + 2 + 4 + 1 + 1), 0)
    for kind, table in found.items():
        pd.testing.assert_frame_equal(table, expected[2][kind], check_exact=True)
    assert notes == [
        f"note: memory is short: {after} images are computed at a time instead of {before}"
        for before, after in ((7, 3), (3, 1))
    ]
    assert room.seen[:2] == [7, 3]
    assert set(room.seen[2:]) == {1}


def test_what_does_not_fit_alone_is_a_failure_and_all_else_goes_on(
    samples: Samples, room: Room, whole: Ran, tmp_path: Path
) -> None:
    expected = whole[2]["predictions"]
    room.at, room.most = "apply", 0
    outcome, _, found = ran(samples, tmp_path / "parts")
    assert outcome.failures == IMAGES
    kept = expected[expected["degradation"] != "mine:large"].reset_index(drop=True)
    pd.testing.assert_frame_equal(found["predictions"], kept, check_exact=True)
    assert set(found["failures"]["stage"]) == {"degrade"}
    assert found["failures"]["error"][0] == (f"'mine:large' raised OutOfMemoryError: {GPU} (first at level 4, trial 0)")


def test_an_image_that_does_not_fit_in_any_way_is_a_failure(
    samples: Samples, room: Room, whole: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where not even the undegraded pixels fit on the device."""
    expected = whole[2]["predictions"]
    large = samples.table.iloc[5]["image_id"]
    real = evaluate.Degrader

    def degrader(sweep: Sweep, size: int, ids: list[str], *rest: object) -> evaluate.Degrader:
        if large in ids:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return real(sweep, size, ids, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluate, "Degrader", degrader)
    outcome, _, found = ran(samples, tmp_path / "parts", replace(SWEEP, sensitivity=False))
    assert outcome == TaskOutcome(IMAGES - 1, (IMAGES - 1) * 2 * (1 + 2 + 4 + 1), 1)
    kept = expected[expected["image_id"] != large].reset_index(drop=True)
    pd.testing.assert_frame_equal(found["predictions"], kept, check_exact=True)
    ((image_id, stage, error),) = found["failures"][["image_id", "stage", "error"]].to_numpy().tolist()
    assert (image_id, stage) == (large, "worker")
    assert error.startswith("it does not fit into the memory with one image at a time (DefaultCPUAllocator: can't")


def entrants(prefilter: Callable[[Tensor], Tensor]) -> list[LoadedEntrant]:
    first, second = (tiny_checkpoint(i, input_size=32).classifier() for i in range(2))
    return [LoadedEntrant(first, Defense("none")), LoadedEntrant(second, Defense("mine_filter", prefilter=prefilter))]


def predicted(samples: Samples, loaded: list[LoadedEntrant], sweep: Sweep) -> tuple[pd.DataFrame, list, list[str]]:
    rows = samples.table.iloc[::5].head(IMAGES).to_dict("records")
    notes: list[str] = []
    evaluator = Evaluator(sweep, loaded, reporter=RecordingReporter(notes))
    wanted = np.ones((IMAGES, 2, len(sweep.cells())), bool)
    decoded = [image for row in rows if not isinstance(image := decode_row(row, Reach()), str)]
    results = list(evaluator.evaluate([str(row["image_id"]) for row in rows], [0] * IMAGES, decoded, wanted))
    evaluator.close()
    table = pd.concat([pd.DataFrame(r.columns).assign(degradation=r.degradation) for r in results])
    keys = ["entrant", "image", "degradation", "level", "trial"]
    return table.sort_values(keys).set_index(keys), [f for r in results for f in r.failures], notes


FILTERED = replace(
    SWEEP, entrants=(SWEEP.entrants[0], replace(SWEEP.entrants[1], defense="mine_filter")),
    conditions=(Condition("gaussian_rgb", (8.0,), 2),), sensitivity=False,
)  # fmt: skip


def test_a_filter_is_halved_and_gives_the_same_bits(samples: Samples, room: Room) -> None:
    def prefilter(pixels: Tensor) -> Tensor:
        room.take("filter", len(pixels))
        return torch.nn.functional.avg_pool2d(pixels, 3, 1, 1)

    expected, _, none = predicted(samples, entrants(prefilter), FILTERED)
    assert not none
    room.at, room.most = "filter", 3
    table, failures, notes = predicted(samples, entrants(prefilter), FILTERED)
    assert not failures
    pd.testing.assert_frame_equal(table, expected, check_exact=True)
    assert notes[-1] == "note: memory is short: mine_filter goes on with 2 images at a time instead of 4"
    room.most = 0
    table, failures, _ = predicted(samples, entrants(prefilter), FILTERED)
    pd.testing.assert_frame_equal(table, expected.loc[[0]], check_exact=True)
    sentence = "mine_filter does not fit into the memory with one image at a time"
    assert set(failures) == {(i, "predict", sentence) for i in range(IMAGES)}


def test_a_network_that_has_no_room_on_the_device(
    samples: Samples, room: Room, whole: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its images are failures, of scores too; the others' rows are the same."""
    expected = whole[2]
    real, asked = evaluate.to_device, [0]

    def to_device(*arguments: object) -> Classifier:
        asked[0] += 1
        if asked[0] == 1:
            raise GPU
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluate, "to_device", to_device)
    outcome, notes, found = ran(samples, tmp_path / "parts")
    assert not notes
    assert outcome.failures == IMAGES
    for kind in ("predictions", "sensitivity"):
        kept = expected[kind][expected[kind]["model"] == "timm/other"].reset_index(drop=True)
        pd.testing.assert_frame_equal(found[kind], kept, check_exact=True)
    assert set(found["failures"]["error"]) == {
        f"{TINY} does not fit into the memory with one image at a time",
        f"the gradients of {TINY} do not fit into the memory with one image at a time",
    }


def test_a_recalibration_that_is_broken_off_leaves_no_statistics_behind(
    samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = samples.table.head(4).to_dict("records")
    known = [CalibrationImage(**{key: row[key] for key in CalibrationImage.__dataclass_fields__}) for row in rows]
    defense = "batch_norm_recalibration(images=4)"
    sweep = replace(FILTERED, entrants=(replace(SWEEP.entrants[0], defense=defense),), calibration=tuple(known))
    loaded = LoadedEntrant(tiny_checkpoint(input_size=32).classifier(), parse_defense(defense))
    decoded = [image for row in rows if not isinstance(image := decode_row(row, Reach()), str)]
    evaluator = Evaluator(sweep, [loaded], calibration=decoded)
    full = Room()
    full.most = 0
    network: Recalibrated = evaluator.recalibrated[0]
    with torch.inference_mode():
        pixels = evaluator.recalibrated[0].calibration.pixels(4, NetworkInput(32), 0)
        before = network.at(1, evaluator.autocast())(pixels).clone()
        with monkeypatch.context() as patch:
            patch.setattr(batch_norm, "recalibrate", lambda *_: Room.take(full, "", 1))
            with pytest.raises(torch.OutOfMemoryError):
                network.at(2, evaluator.autocast())
        assert torch.equal(network.at(1, evaluator.autocast())(pixels), before)
    evaluator.close()
