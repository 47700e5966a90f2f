"""How a sweep is cut: every evaluation in one task, networks within their memory, enough tasks for all workers."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import s3fs
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnsens_bench.engine.plan import ImageBatch
from cnnsens_bench.engine.sweep import Condition, Entrant, Sweep
from cnnsens_bench.runtime import plan_store
from cnnsens_bench.runtime.partition import TASKS_PER_WORKER, NetworkSize, cut, group
from cnnsens_bench.runtime.plan_store import stored_plan, tasks_of
from cnnsens_bench.store import new_attempt
from cnnsens_bench.utils.errors import StorageError
from cnnsens_bench.utils.storage import storage_path
from tests.s3 import served


@st.composite
def pairings(draw: st.DrawFn) -> tuple[list[Entrant], dict[str, NetworkSize]]:
    """Return entrants that share checkpoints, in any order, and the sizes of the checkpoints."""
    keys = [f"m{i}" for i in range(draw(st.integers(1, 9)))]
    chosen = keys + draw(st.lists(st.sampled_from(keys), max_size=9))
    order = draw(st.permutations(range(len(chosen))))
    entrants = [Entrant(f"s/{chosen[i]}", chosen[i], f"d{i}", chosen[i]) for i in order]
    sizes = st.builds(NetworkSize, st.integers(1, 100), st.sampled_from([32, 64, 128]))
    return entrants, {key: draw(sizes) for key in keys}


@given(pairing=pairings(), budget=st.integers(1, 400), at_least=st.integers(1, 9))
def test_groups_hold_everyone_once_within_the_budget(pairing: tuple, budget: int, at_least: int) -> None:
    entrants, weights = pairing
    groups = group(entrants, weights, budget, min(at_least, len(weights)))
    assert sorted(i for g in groups for i in g.entrants) == list(range(len(entrants)))
    assert len(groups) >= min(at_least, len(weights))
    for g in groups:
        keys = {entrants[i].checkpoint for i in g.entrants}
        assert g.size == sum(weights[key].size for key in keys)
        assert g.size <= budget or len(keys) == 1
        # Entrants of one checkpoint are together.
        assert sum(entrant.checkpoint in keys for entrant in entrants) == len(g.entrants)
    sizes = [weights[entrants[i].checkpoint].input_size for g in groups for i in g.entrants[:1]]
    assert sizes == sorted(sizes)


@given(
    pairing=pairings(),
    budget=st.integers(1, 400),
    batches=st.integers(1, 40),
    batch=st.sampled_from([1, 2, 8, 32]),
    workers=st.integers(1, 9),
)
def test_there_are_tasks_for_all_workers_where_there_are_any(
    pairing: tuple, budget: int, batches: int, batch: int, workers: int
) -> None:
    entrants, weights = pairing
    groups, tasks = cut(entrants, weights, budget, batches, batch, workers)
    assert 1 <= tasks <= batch
    fewest = len(group(entrants, weights, budget))
    most = len(weights) * batches * batch
    if workers > 1:
        assert len(groups) * batches * tasks >= min(TASKS_PER_WORKER * workers, most)
    else:
        assert (len(groups), tasks) == (fewest, 1)
    if fewest * batches >= TASKS_PER_WORKER * workers:  # nothing is cut without need
        assert (len(groups), tasks) == (fewest, 1)


def test_one_network_and_many_images_or_many_networks_and_few_images_fill_a_cluster() -> None:
    one = [Entrant("s/a", "a", "none", "a")]
    groups, tasks = cut(one, {"a": NetworkSize(10**8, 224)}, 4e9, batches=1563, batch_size=32, workers=64)
    assert (len(groups), tasks) == (1, 1)
    many = [Entrant(f"s/{i}", f"{i}", "none", f"{i}") for i in range(500)]
    weights = {f"{i}": NetworkSize(10**8, 224) for i in range(500)}
    groups, tasks = cut(many, weights, 4e9, batches=2, batch_size=32, workers=64)
    assert len(groups) * 2 * tasks >= 256
    assert max(g.size for g in groups) <= 4e9
    assert tasks <= 4


@settings(max_examples=40, deadline=None)
@given(
    pairing=pairings(),
    budget=st.integers(1, 400),
    images=st.integers(1, 30),
    tasks_per_batch=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_evaluation_is_in_one_task(
    tmp_path_factory, pairing: tuple, budget: int, images: int, tasks_per_batch: int, seed: int
) -> None:
    """Through the files of the stored plan, too."""
    entrants, weights = pairing
    conditions = (Condition("gaussian_rgb", (1.0, 2.0), 1),)
    scored = {"sensitivity": True, "predictors": ("sampling(copies=3)",)}
    sweep = Sweep("r", "d", tuple(entrants), conditions, batch_size=4, **scored)
    assert (len(sweep.cells()), len(sweep.score_cells())) == (3, 3)
    rng = np.random.default_rng(seed)
    wanted, wanted_scores = (rng.random((images, len(entrants), n)) < rng.choice([0.02, 0.5, 1]) for n in (3, 3))
    rows = pd.DataFrame({"image_id": [f"i{n}" for n in range(images)], "mask_uri": [None] * images})
    rows.loc[5:, "mask_uri"] = "a file"  # of no type in the first batch
    whole = ImageBatch(rows, wanted, wanted_scores)
    batches = [whole.take(slice(i, i + 4)) for i in range(0, images, 4)]
    groups = group(entrants, weights, budget)
    seen, scored = np.zeros(wanted.shape, int), np.zeros(wanted_scores.shape, int)
    described = np.zeros(images, int)
    output: Path = tmp_path_factory.mktemp("output")
    with stored_plan(sweep, batches, output / "parts" / "attempt") as stored:
        evaluations = wanted.sum() + wanted_scores.sum()
        assert (stored.batches, stored.images, stored.evaluations) == (len(batches), images, evaluations)
        for number in range(len(groups)):
            for batch in stored.read():
                for task in tasks_of(batch, groups, number, tasks_per_batch):
                    assert (task.wanted.any(axis=(1, 2)) | task.wanted_scores.any(axis=(1, 2))).all()
                    positions = [int(image_id[1:]) for image_id in task.ids]
                    assert [row["mask_uri"] == "a file" for row in task.rows] == [i >= 5 for i in positions]
                    seen[np.ix_(positions, groups[number].entrants)] += task.wanted
                    scored[np.ix_(positions, groups[number].entrants)] += task.wanted_scores
                    described[positions] += task.first
    assert np.array_equal(seen, wanted)
    assert np.array_equal(scored, wanted_scores)
    assert np.array_equal(described, wanted.any(axis=(1, 2)) | wanted_scores.any(axis=(1, 2)))
    assert not (output / "plan").exists()


def batch_of(rows: pd.DataFrame) -> ImageBatch:
    """Return a batch of images that want one cell of one entrant."""
    return ImageBatch(rows, np.ones((len(rows), 1, 1), bool), np.ones((len(rows), 1, 0), bool))


def test_a_server_that_goes_away_while_the_plan_is_written_or_read(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = Sweep("r", "d", (Entrant("s/a", "a", "none", "a"),), (), batch_size=1)
    rows = pd.DataFrame({"image_id": [f"i{n}" for n in range(2)]})
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    with served() as server:
        parts = storage_path("s3://bench/runs/gone/parts/now")
        batches = [batch_of(rows[i : i + 1]) for i in range(2)]
        with stored_plan(sweep, batches, parts) as stored:
            assert [batch.rows["image_id"].tolist() for batch in stored.read()] == [["i0"], ["i1"]]
            server.stop()
            plan_store._row_group.cache_clear()
            with pytest.raises(StorageError, match="s3://bench/runs/gone/plan/now cannot be used now"):
                next(stored.read())
            with pytest.raises(StorageError, match="s3://bench/runs/gone/plan/now cannot be used now"):
                stored.batch(1)
        with pytest.raises(StorageError, match=r"gone/plan/now/000000\.parquet cannot be used now"):  # noqa: SIM117
            with stored_plan(sweep, batches, parts):
                pass


def test_the_plan_of_a_relative_output_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster's workers have a working folder of their own."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    sweep = Sweep("r", "d", (Entrant("s/a", "a", "none", "a"),), (), batch_size=4)
    batch = batch_of(pd.DataFrame({"image_id": ["i"]}))
    with stored_plan(sweep, [batch], new_attempt(Path("out"))) as stored:
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert stored.batch(0).evaluations == 1


def test_what_a_killed_run_left_of_its_plan_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "plan" / "earlier"
    left.mkdir(parents=True)
    (left / "000000.parquet").write_bytes(b"x")
    sweep = Sweep("r", "d", (Entrant("s/a", "a", "none", "a"),), (), batch_size=4)
    with stored_plan(sweep, [], tmp_path / "parts" / "now") as stored:
        assert not left.exists()
        assert dataclasses.astuple(stored)[1:4] == (0, 0, 0)
