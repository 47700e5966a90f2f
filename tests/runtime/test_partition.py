"""How a sweep is cut: every evaluation in one piece of work, networks within their memory, enough for all workers."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import s3fs
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnsens_bench.engine.plan import Condition, Entrant, ImageBatch, Sweep
from cnnsens_bench.runtime.partition import TASKS_PER_WORKER, NetworkSize, cut, group
from cnnsens_bench.runtime.plan_store import stored_plan, tasks_of
from cnnsens_bench.store import new_attempt
from cnnsens_bench.utils.errors import StorageError
from cnnsens_bench.utils.storage import storage_path
from tests.s3 import served


@st.composite
def lineups(draw: st.DrawFn) -> tuple[list[Entrant], dict[str, NetworkSize]]:
    """Entrants that share checkpoints, in any order, and what the checkpoints take."""
    keys = [f"m{i}" for i in range(draw(st.integers(1, 9)))]
    chosen = keys + draw(st.lists(st.sampled_from(keys), max_size=9))
    order = draw(st.permutations(range(len(chosen))))
    entrants = [Entrant(f"s/{chosen[i]}", chosen[i], f"d{i}", chosen[i]) for i in order]
    sizes = st.builds(NetworkSize, st.integers(1, 100), st.sampled_from([32, 64, 128]))
    return entrants, {key: draw(sizes) for key in keys}


@given(pairing=lineups(), budget=st.integers(1, 400), at_least=st.integers(1, 9))
def test_groups_hold_everyone_once_within_the_budget(pairing: tuple, budget: int, at_least: int) -> None:
    entrants, weights = pairing
    groups = group(entrants, weights, budget, min(at_least, len(weights)))
    assert sorted(i for g in groups for i in g.entrants) == list(range(len(entrants)))
    assert len(groups) >= min(at_least, len(weights))
    for g in groups:
        keys = {entrants[i].checkpoint for i in g.entrants}
        assert g.size == sum(weights[key].size for key in keys)
        assert g.size <= budget or len(keys) == 1
        # Those of one checkpoint are together.
        assert sum(entrant.checkpoint in keys for entrant in entrants) == len(g.entrants)
    sizes = [weights[entrants[i].checkpoint].input_size for g in groups for i in g.entrants[:1]]
    assert sizes == sorted(sizes)


@given(
    pairing=lineups(),
    budget=st.integers(1, 400),
    chunks=st.integers(1, 40),
    batch=st.sampled_from([1, 2, 8, 32]),
    workers=st.integers(1, 9),
)
def test_there_is_work_for_all_workers_where_there_is_any(
    pairing: tuple, budget: int, chunks: int, batch: int, workers: int
) -> None:
    entrants, weights = pairing
    groups, pieces = cut(entrants, weights, budget, chunks, batch, workers)
    assert 1 <= pieces <= batch
    fewest = len(group(entrants, weights, budget))
    most = len(weights) * chunks * batch
    if workers > 1:
        assert len(groups) * chunks * pieces >= min(TASKS_PER_WORKER * workers, most)
    else:
        assert (len(groups), pieces) == (fewest, 1)
    if fewest * chunks >= TASKS_PER_WORKER * workers:  # nothing is cut without need
        assert (len(groups), pieces) == (fewest, 1)


def test_one_network_and_many_images_or_many_networks_and_few_images_fill_a_cluster() -> None:
    one = [Entrant("s/a", "a", "none", "a")]
    groups, pieces = cut(one, {"a": NetworkSize(10**8, 224)}, 4e9, chunks=1563, batch_size=32, workers=64)
    assert (len(groups), pieces) == (1, 1)
    many = [Entrant(f"s/{i}", f"{i}", "none", f"{i}") for i in range(500)]
    weights = {f"{i}": NetworkSize(10**8, 224) for i in range(500)}
    groups, pieces = cut(many, weights, 4e9, chunks=2, batch_size=32, workers=64)
    assert len(groups) * 2 * pieces >= 256
    assert max(g.size for g in groups) <= 4e9
    assert pieces <= 4


@settings(max_examples=40, deadline=None)
@given(
    pairing=lineups(),
    budget=st.integers(1, 400),
    images=st.integers(1, 30),
    pieces=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_evaluation_is_in_one_piece_of_work(
    tmp_path_factory, pairing: tuple, budget: int, images: int, pieces: int, seed: int
) -> None:
    """Through the files, too."""
    entrants, weights = pairing
    sweep = Sweep("r", "d", tuple(entrants), (Condition("pepper", (0.1, 0.2), 1),), batch_size=4)
    rng = np.random.default_rng(seed)
    wanted = rng.random((images, len(entrants), 3)) < rng.choice([0.02, 0.5, 1])
    rows = pd.DataFrame({"image_id": [f"i{n}" for n in range(images)], "mask_uri": [None] * images})
    rows.loc[5:, "mask_uri"] = "a file"  # of no type in the first chunk
    chunks = [ImageBatch(rows[i : i + 4], wanted[i : i + 4]) for i in range(0, images, 4)]
    groups = group(entrants, weights, budget)
    seen = np.zeros(wanted.shape, int)
    described = np.zeros(images, int)
    output: Path = tmp_path_factory.mktemp("output")
    with stored_plan(sweep, chunks, output / "parts" / "attempt") as work:
        assert (work.chunks, work.images, work.evaluations) == (len(chunks), images, wanted.sum())
        for number in range(len(groups)):
            for chunk in work.read():
                for item in tasks_of(chunk, groups, number, pieces):
                    assert item.wanted.any(axis=(1, 2)).all()
                    places = [int(image_id[1:]) for image_id in item.ids]
                    assert [row["mask_uri"] == "a file" for row in item.rows] == [place >= 5 for place in places]
                    seen[np.ix_(places, groups[number].entrants)] += item.wanted
                    described[places] += item.first
    assert np.array_equal(seen, wanted)
    assert np.array_equal(described, wanted.any(axis=(1, 2)))
    assert not (output / "plan").exists()


def test_a_server_that_goes_away_while_the_plan_is_written_or_read(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = Sweep("r", "d", (Entrant("s/a", "a", "none", "a"),), (), batch_size=4)
    rows = pd.DataFrame({"image_id": [f"i{n}" for n in range(2)]})
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    with served() as server:
        parts = storage_path("s3://bench/runs/gone/parts/now")
        chunks = [ImageBatch(rows[i : i + 1], np.ones((1, 1, 1), bool)) for i in range(2)]
        with stored_plan(sweep, chunks, parts) as work:
            assert [chunk.rows["image_id"].tolist() for chunk in work.read()] == [["i0"], ["i1"]]
            server.stop()
            with pytest.raises(StorageError, match="s3://bench/runs/gone/plan/now cannot be used now"):
                next(work.read())
            with pytest.raises(StorageError, match="s3://bench/runs/gone/plan/now cannot be used now"):
                work.chunk(1)
        with pytest.raises(StorageError, match=r"gone/plan/now/000000\.parquet cannot be used now"):  # noqa: SIM117
            with stored_plan(sweep, chunks, parts):
                pass


def test_the_plan_of_a_relative_output_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster's workers have a working folder of their own."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    sweep = Sweep("r", "d", (Entrant("s/a", "a", "none", "a"),), (), batch_size=4)
    chunk = ImageBatch(pd.DataFrame({"image_id": ["i"]}), np.ones((1, 1, 1), bool))
    with stored_plan(sweep, [chunk], new_attempt(Path("out"))) as work:
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert work.chunk(0).evaluations == 1


def test_what_a_killed_run_left_of_its_plan_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "plan" / "earlier"
    left.mkdir(parents=True)
    (left / "000000.parquet").write_bytes(b"x")
    sweep = Sweep("r", "d", (Entrant("s/a", "a", "none", "a"),), (), batch_size=4)
    with stored_plan(sweep, [], tmp_path / "parts" / "now") as work:
        assert not left.exists()
        assert dataclasses.astuple(work)[1:4] == (0, 0, 0)
