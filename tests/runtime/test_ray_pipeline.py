"""How the Ray pipeline lies on a cluster, and that it computes what one process computes."""

import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from cnnsens_bench import images
from cnnsens_bench.degradations import Reach
from cnnsens_bench.run import main
from cnnsens_bench.runtime import serialization
from cnnsens_bench.runtime.cluster import connect
from cnnsens_bench.runtime.crash_tracker import CrashTracker
from cnnsens_bench.runtime.executor import decode_task
from cnnsens_bench.runtime.plan_store import Task
from cnnsens_bench.runtime.ray_pipeline import outcome_dataset
from cnnsens_bench.runtime.resources import Layout, Machine, lay_out
from cnnsens_bench.store import Store
from cnnsens_bench.utils.errors import UserError
from tests.conftest import TINY
from tests.test_run import ROWS, words


@pytest.mark.parametrize(
    ("cpus", "gpus", "asked", "expected"),
    [
        # (workers, threads, gpus, reserved CPUs of each)
        (1, 0, (None, None, None), (1, 1, 0.0, 0)),
        (2, 0, (None, None, None), (1, 2, 0.0, 1)),
        (2, 0, (2, None, None), (2, 1, 0.0, 0)),
        (4, 0, (None, None, None), (1, 4, 0.0, 3)),
        (16, 0, (None, None, None), (2, 8, 0.0, 7)),
        (64, 0, (None, None, None), (8, 8, 0.0, 7)),
        (16, 1, (None, None, None), (1, 8, 1.0, 7)),
        (64, 8, (None, None, None), (8, 8, 1.0, 7)),
        (16, 2, (None, 0.5, None), (4, 4, 0.5, 3)),
        (8, 4, (None, None, 1), (4, 1, 1.0, 1)),
        (8, 0, (None, None, 2), (4, 2, 0.0, 1)),
    ],
)
def test_layouts(cpus: int, gpus: float, asked: tuple, expected: tuple) -> None:
    layout = lay_out([Machine(cpus, gpus)], *asked)
    assert (layout.workers, layout.threads, layout.gpus, layout.reserved_cpus) == expected


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 8, 16, 96, 10_000])
@pytest.mark.parametrize("gpus", [0, 1, 4, 100])
@pytest.mark.parametrize("workers", [None, 1, 2, 7])
def test_there_is_always_a_core_left_that_decodes(cpus: int, gpus: int, workers: int | None) -> None:
    layout = lay_out([Machine(cpus, gpus)], workers, None, None)
    assert layout.workers >= 1
    assert layout.threads >= 1
    assert layout.workers * layout.reserved_cpus <= max(0, cpus - 1)


def test_more_gpus_than_there_are_are_refused() -> None:
    with pytest.raises(UserError, match="gpus_per_worker is 2"):
        lay_out([Machine(8, 1)], None, 2.0, None)
    with pytest.raises(UserError, match="no machine has more than 1 GPUs"):
        lay_out([Machine(8, 1), Machine(8, 1)], None, 2.0, None)


@pytest.mark.parametrize(
    ("machines", "workers", "expected"),
    [
        # (workers, threads, reserved CPUs of each): a worker lies on one machine.
        ([(1, 0), (1, 0), (1, 0)], None, (3, 1, 0)),
        ([(1, 0), (1, 0), (1, 0)], 2, (2, 1, 1)),
        ([(0, 0), (4, 0), (4, 0)], None, (2, 4, 3)),
        ([(2, 0), (16, 0), (16, 0)], None, (4, 8, 7)),
        ([(2, 0), (2, 0), (2, 0)], 1, (1, 2, 1)),
        ([(8, 0), (2, 0)], 2, (2, 5, 4)),
        ([(4, 0), (32, 8), (32, 8)], None, (16, 4, 3)),
    ],
)
def test_layouts_of_several_machines(machines: list, workers: int | None, expected: tuple) -> None:
    layout = lay_out([Machine(*m) for m in machines], workers, None, None)
    assert (layout.workers, layout.threads, layout.reserved_cpus) == expected


@given(
    st.lists(st.tuples(st.integers(0, 200), st.sampled_from([0, 0, 1, 8])), min_size=1, max_size=6),
    st.one_of(st.none(), st.integers(1, 40)),
    st.one_of(st.none(), st.integers(1, 40)),
)
def test_what_is_asked_of_ray_can_be_had(machines: list, workers: int | None, threads: int | None) -> None:
    """All workers start at once, except where there are too few GPUs for those that were asked for."""
    there = [Machine(*m) for m in machines]
    layout = lay_out(there, workers, None, threads)
    room = sum(
        min(m.cpus // layout.reserved_cpus if layout.reserved_cpus else 10**9, m.gpus if layout.gpus else 10**9)
        for m in there
    )
    assert room >= min(layout.workers, sum(m.gpus for m in there) or layout.workers)


def test_packed_tasks_carry_the_plan_and_the_pixels(pictures: Path) -> None:
    from cnnsens_bench.datasets import load

    rows = load("folder", pictures, None, {}).table.head(5).copy()
    rows.loc[2, "uri"] = "/nowhere.png"
    rng = np.random.default_rng(0)
    wanted, wanted_scores = (rng.random((5, 3, n)) < 0.5 for n in (7, 2))
    task = Task(3, rows.to_dict("records"), wanted, wanted_scores, rng.random(5) < 0.5)
    ((number, back, decoded),) = serialization.unpack(
        serialization.pack(17, task, decode_task(task, Reach(0.5), CrashTracker(), "d"))
    )
    assert (number, back.group, back.ids) == (17, 3, task.ids)
    assert np.array_equal(back.wanted, task.wanted)
    assert np.array_equal(back.wanted_scores, task.wanted_scores)
    assert np.array_equal(back.first, task.first)
    assert [isinstance(image, str) for image in decoded] == [False, False, True, False, False]
    box = (rows["box_x"][0], rows["box_y"][0], rows["box_w"][0], rows["box_h"][0])
    expected = images.decode(rows["uri"][0], box, 0.5)
    assert np.array_equal(decoded[0].pixels, expected.pixels)
    assert decoded[0].box == expected.box


@pytest.mark.slow
@pytest.mark.parametrize("gpus", [0.0, 1.0])
def test_ray_data_keeps_decoding_and_computing_apart(gpus: float, capsys: pytest.CaptureFixture[str]) -> None:
    """Fused into one stage, a GPU's worker would decode its images itself; and no option is used that Ray gives up."""
    connect(None)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*will be removed in Ray")
        dataset = outcome_dataset([np.array([0])], None, Layout(1, threads=2, gpus=gpus, reserved_cpus=1), cores=2)
        dataset.explain()
    plan = capsys.readouterr().out.partition("Physical Plan (Optimized)")[2]
    assert "ActorPoolMapOperator[MapBatches(RayWorker)]" in plan
    assert "TaskPoolMapOperator[Read_TaskSource]" in plan


DEFENDED = "defenses=[none,'batch_norm_recalibration(images=9)',input_dropout]"


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_ray_gives_the_same_rows_as_one_process(
    workers: int, pictures: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path_factory.getbasetemp() / "ray-cache"
    here, there = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("there")
    # As many threads on both sides: some convolutions of oneDNN round by how their work is split.
    request = (DEFENDED, f"cluster.threads={2 // workers}")
    assert main(words(pictures, cache, here, *request)) == 0
    assert main(words(pictures, cache, there, *request, "cluster.engine=ray", f"cluster.workers={workers}")) == 0
    one, other = (Store(output).query(ROWS) for output in (here, there))
    pd.testing.assert_frame_equal(other, one)
    assert "evaluations" in capsys.readouterr().out


@pytest.mark.slow
def test_ray_chooses_the_cells_that_one_process_chooses(
    pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.getbasetemp() / "ray-cache"
    request = (
        "budget=0.3", "limit=9", f"models=[{{name: {TINY}, weights: random}}]", "defenses=[none]", "training.epochs=0",
        "cluster.threads=1",
    )  # fmt: skip
    here, there = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("there")
    assert main(words(pictures, cache, here, *request)) == 0
    assert main(words(pictures, cache, there, *request, "cluster.engine=ray", "cluster.workers=1")) == 0
    one, other = (Store(output).query(ROWS) for output in (here, there))
    pd.testing.assert_frame_equal(other, one)
    assert 9 * (1 + 3) <= len(one) <= 9 * (1 + 4)


def test_a_plugin_that_only_the_driver_finds_is_one_sentence(
    pictures: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Only this process knows the folder, and only after the cluster has started."""
    connect(None)
    folder, output = tmp_path_factory.mktemp("mine"), tmp_path_factory.mktemp("out")
    (folder / "found_here_only.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(folder)
    more = (
        "plugins=[found_here_only]", "cluster.engine=ray", "cluster.workers=1", "limit=2", "training.epochs=0",
        f"models=[{{name: {TINY}, weights: random}}]", "defenses=[none]", "tracking=off",
    )  # fmt: skip
    assert main(words(pictures, tmp_path_factory.getbasetemp() / "ray-cache", output, *more)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: on a machine of the cluster, plugin 'found_here_only' cannot be imported")
    assert said.count("\n") == 1


PLUGIN = """
import os
import warnings
from pathlib import Path

from cnnsens_bench.degradations import Motion, degradation


@degradation("mine:darker", draw=lambda streams, size: streams.uniform(1, 1, 1), levels=(10, 90))
def darker(pixels, draw, level):
    Path(__file__).with_name(f"seen_by_{os.getpid()}").touch()
    return pixels - level * draw


@degradation("mine:aside", draw=lambda streams, size: streams.normal(1)[:, 0], levels=(3,), geometric=True)
def aside(draw, level):
    return Motion(dx=level * draw)
"""


@pytest.mark.slow
def test_users_degradations_come_from_their_module_on_the_workers(
    pictures: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module lies in the folder in which the run is started, as the docs say."""
    cache = tmp_path_factory.getbasetemp() / "ray-cache"
    here, there, folder = (tmp_path_factory.mktemp(name) for name in ("here", "there", "folder"))
    (folder / "a_plugin_over_ray.py").write_text(PLUGIN)
    monkeypatch.chdir(folder)
    more = (
        "plugins=[a_plugin_over_ray]", "degradations=['mine:*','mine:darker(30) + pepper(0.1)']", "limit=9",
        "training.epochs=0", f"models=[{{name: {TINY}, weights: random}}]", "defenses=[none]",
    )  # fmt: skip
    ray.shutdown()  # a cluster of this folder, as a new command has it
    try:
        assert main(words(pictures, cache, there, *more, "cluster.engine=ray", "cluster.workers=1")) == 0
    finally:
        ray.shutdown()
    seen = {path.name for path in folder.glob("seen_by_*")} - {f"seen_by_{os.getpid()}"}
    assert seen
    assert main(words(pictures, cache, here, *more)) == 0
    one, other = (Store(output).query(ROWS) for output in (here, there))
    pd.testing.assert_frame_equal(other, one)
    assert set(one["degradation"]) == {"none", "mine:darker", "mine:aside", "mine:darker(30) + pepper(0.1)"}
