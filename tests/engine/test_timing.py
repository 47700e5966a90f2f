"""What counts as an entrant's speed: which images, which seconds, on which device. No timing is tested."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from cnnsens_bench.datasets import Samples
from cnnsens_bench.engine import timing
from cnnsens_bench.engine.evaluate import Evaluator
from cnnsens_bench.engine.plan import plan
from cnnsens_bench.engine.timing import Stopwatch, device_name
from cnnsens_bench.runtime.local import run_local
from cnnsens_bench.runtime.plan_store import stored_plan
from cnnsens_bench.runtime.resources import ExecutionOptions
from cnnsens_bench.store import Store, new_attempt, write_part
from tests.conftest import tiny_checkpoint
from tests.engine.test_evaluate import batch, loaded, make_sweep  # noqa: F401
from tests.store.part_schemas import PREDICTIONS, SPEED


def test_seconds_are_those_of_rows_that_were_asked_for(batch: tuple, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """With a clock that ticks at each look, a pass of a network takes a second, and one behind a filter two."""
    sweep = make_sweep()
    wanted = np.random.default_rng(0).random((len(batch[0]), 4, len(sweep.cells()))) < 0.6
    evaluator = Evaluator(sweep, loaded(sweep))
    ticks = itertools.count()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(ticks)))
    every = np.ones_like(wanted)
    list(evaluator.evaluate(*batch, every))
    found = evaluator.stopwatch.take()
    warming = sweep.batch_size  # the first pass of each is left out
    assert {e: images for e, (images, _) in found.items()} == dict.fromkeys(range(4), every[:, 0].sum() - warming)
    for entrant, (images, seconds) in found.items():
        assert seconds == pytest.approx((1 + entrant % 2) * images / sweep.batch_size)
    list(evaluator.evaluate(*batch, wanted))
    found = evaluator.stopwatch.take()
    assert {e: images for e, (images, _) in found.items()} == {e: wanted[:, e].sum() for e in range(4)}
    for entrant, (images, seconds) in found.items():
        assert seconds == pytest.approx((1 + entrant % 2) * images / sweep.batch_size)
    assert evaluator.stopwatch.take() == {}


def test_on_a_gpu_events_are_read_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Event:
        """Knows no way to wait."""

        now = 0.0

        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            Event.now += 5
            self.at = Event.now

        def elapsed_time(self, end: "Event") -> float:
            return end.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: pytest.fail("the sweep waits for the GPU"))
    watch = Stopwatch(torch.device("cuda"))
    for _ in range(3):
        watch.add(7, 16, 32, [(watch.mark(), watch.mark()), (watch.mark(), watch.mark())])
    assert watch.take() == {7: (32, pytest.approx(0.01))}


def test_devices_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: A Chip: 3 GHz\nprocessor\t: 1\nmodel name\t: A Chip: 3 GHz\n")
    monkeypatch.setattr(timing, "CPU_INFO", info)
    assert device_name(torch.device("cpu")) == "A Chip: 3 GHz"
    info.write_text("processor\t: 0\n")  # as on ARM
    assert device_name(torch.device("cpu"))
    monkeypatch.setattr(timing, "CPU_INFO", tmp_path / "none")
    assert device_name(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")
    assert device_name(torch.device("cuda")) == "A GPU"


def swept(store: Store, run_id: str, images: pd.DataFrame) -> None:
    sweep = make_sweep(run_id=run_id)
    store.begin_run(run_id, "test", "p", {}, {})
    checkpoints = {"a": tiny_checkpoint(0), "b": tiny_checkpoint(1, input_size=32)}
    parts = new_attempt(store.output)
    with stored_plan(sweep, plan(sweep, images), parts) as stored:
        list(run_local(sweep, stored, checkpoints, parts, ExecutionOptions(threads=torch.get_num_threads())))
    store.ingest()


def test_a_run_stores_its_timings_and_a_resumed_one_adds_to_them(samples: Samples, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    cells, size = len(make_sweep().cells()), make_sweep().batch_size
    swept(store, "r1", samples.table.iloc[:12])
    first = store.query("FROM speed")
    assert list(first.columns) == SPEED.names
    assert len(first) == 2 * 4  # tasks × entrants
    assert first.groupby(["model", "defense"])["images"].sum().tolist() == [12 * cells - size] * 4
    assert (first["threads"] == torch.get_num_threads()).all()
    assert (first["device"] == device_name(torch.device("cpu"))).all()
    assert (first["seconds"] > 0).all()
    swept(store, "r2", samples.table.iloc[12:28])
    both = store.query("FROM speed")
    assert both["run_id"].value_counts().to_dict() == {"r1": 8, "r2": 8}
    sums = both.groupby(["model", "defense"])[["images", "seconds"]].sum()
    view = store.query("FROM leaderboard").set_index(["model", "defense"])["images_per_second"]
    pd.testing.assert_series_equal(view.sort_index(), sums["images"] / sums["seconds"], check_names=False)


def test_a_database_from_before_the_table(tmp_path: Path) -> None:
    """It gets the table and the new view when it is opened."""
    store = Store(tmp_path)
    store.open()
    with store.connect() as connection:
        connection.execute("DROP VIEW leaderboard; DROP TABLE speed; CREATE VIEW leaderboard AS FROM accuracy")
    assert "images_per_second" not in store.query("FROM leaderboard LIMIT 0")
    store.open()
    assert "images_per_second" in store.query("FROM leaderboard LIMIT 0")
    assert store.query("FROM meta")["schema_version"].tolist() == [1]


def test_of_several_devices_the_view_takes_the_one_that_computed_most(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    store.begin_run("r", "test", "p", {}, {})
    store.begin_run("s", "test", "another", {}, {})
    key = {"dataset": "d", "model": "s/m", "defense": "none", "precision": "float32"}
    rows = [
        {"run_id": "r", "device": "a", "threads": 2, "images": 30, "seconds": 3.0},
        {"run_id": "r", "device": "a", "threads": 1, "images": 35, "seconds": 7.0},
        {"run_id": "r", "device": "b", "threads": None, "images": 20, "seconds": 1.0},
        {"run_id": "r", "device": "b", "threads": None, "images": 20, "seconds": 0.5},
        {"run_id": "s", "device": "a", "threads": 2, "images": 90, "seconds": 3.0},
    ]
    prediction = {"image_id": "i", "architecture": "m", "degradation": "none", "level": 0.0, "trial": 0, "label": 0, "prediction": 0, "confidence": 0.5, "true_probability": 0.5, "true_rank": 1, "reference_logit": 0.0, "reference_probability": 0.5}  # fmt: skip  # noqa: E501
    parts = new_attempt(store.output)
    write_part(parts, "speed", "a", pa.Table.from_pylist([key | row for row in rows], schema=SPEED))
    made = [key | prediction | {"run_id": run} for run in "rs"]
    write_part(parts, "predictions", "a", pa.Table.from_pylist(made, schema=PREDICTIONS))
    store.ingest()
    view = store.query("SELECT protocol, images_per_second, device, threads FROM leaderboard ORDER BY protocol")
    assert view["device"].tolist() == ["a", "b"]
    assert view["images_per_second"].tolist() == pytest.approx([30, 40 / 1.5])
    assert view["threads"].fillna(0).tolist() == [2, 0]


def test_a_part_without_its_device_is_refused(tmp_path: Path) -> None:
    row = dict.fromkeys(SPEED.names) | {"images": 1, "seconds": 1.0}
    with pytest.raises(ValueError, match="run_id"):
        write_part(new_attempt(tmp_path), "speed", "a", pa.Table.from_pylist([row]))
