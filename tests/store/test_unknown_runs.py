"""Parts of a run that the published database does not know: its driver was killed before the run was published, the
database was lost, or an older one was put in its place. Nothing counts twice, and nothing is lost."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from cnnsens_bench.experiment import runner
from cnnsens_bench.run import main
from cnnsens_bench.store import RunStore, Store, new_attempt, write_part, writing
from cnnsens_bench.utils.storage import StoragePath
from tests.conftest import TINY
from tests.store.part_schemas import SENSITIVITY, SENSITIVITY_PREDICTIONS
from tests.store.test_ingest import table
from tests.store.test_publication import files_in


@contextmanager
def run(output: Path, run_id: str) -> Iterator[RunStore]:
    """Begin a run as a suite does."""
    with writing(output) as store:
        store.begin_run(run_id, "test", "p", {}, {})
        store.ingest()
        store.share(begins=True)
        yield store


def killed(output: Path, run_id: str, *parts: tuple[str, pa.Table]) -> None:
    """Leave what a run leaves whose driver dies before anything is published, even that the run began."""
    database, kept = output / "results.duckdb", output / "kept"
    shutil.copyfile(database, kept)
    with run(output, run_id):
        pass
    kept.replace(database)
    folder = new_attempt(output)
    for name, rows in parts:
        write_part(folder, name.partition("-")[0], name.partition("-")[2], rows)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    with run(tmp_path, "r1"):
        pass
    return tmp_path


def counted(output: Path, of: str = "predictions") -> dict[str, int]:
    found = Store(output).query(f"SELECT run_id, count(*) AS n FROM {of} GROUP BY run_id")  # noqa: S608
    return dict(zip(found["run_id"], found["n"], strict=True))


def test_rows_of_a_retried_part_count_once(output: Path) -> None:
    killed(output, "r2", ("predictions-a", table(["i", "j"], "r2")), ("predictions-b-retry", table(["j"], "r2")))
    with writing(output) as store:
        assert store.ingest() == 0  # it is not known yet which rows they repeat
    with run(output, "r2"):
        pass
    assert counted(output) == {"r2": 2}
    assert files_in(output) == ["results.duckdb"]


def test_rows_that_another_run_computed_again_count_once(output: Path, caplog: pytest.LogCaptureFixture) -> None:
    killed(output, "r2", ("predictions-a", table(["i", "j"], "r2")))
    with run(output, "r3") as store:
        store.ingest()
        write_part(new_attempt(output), "predictions", "a", table(["i", "k"], "r3"))
    assert caplog.text.count("1 parts in") == 1
    assert "are of runs that are not in the database" in caplog.text
    with run(output, "r3"):
        pass
    assert counted(output) == {"r3": 2}
    assert len(files_in(output)) == 2  # the part of r2 waits
    with run(output, "r2"):
        pass
    assert counted(output) == {"r3": 2, "r2": 1}
    accuracy = Store(output).query("SELECT n_trials, n_images FROM accuracy")
    assert accuracy.to_numpy().tolist() == [[1, 3]]
    assert files_in(output) == ["results.duckdb"]


def test_scores_are_not_lost(output: Path) -> None:
    row = {"run_id": "r2", "dataset": "d", "image_id": "i", "model": "m", "defense": "none", "output": "margin"}
    seen = {**row, "predictor": "p", "degradation": "g", "level": 1.0}
    scores = [
        (f"{kind}-a", pa.Table.from_pylist([found], schema=schema))
        for kind, found, schema in (
            ("sensitivity", row, SENSITIVITY),
            ("sensitivity_predictions", seen, SENSITIVITY_PREDICTIONS),
        )
    ]
    killed(output, "r2", *scores)
    with run(output, "r3"):
        pass
    assert (counted(output, "sensitivity"), counted(output, "sensitivity_predictions")) == ({}, {})
    with run(output, "r2"):
        pass
    assert (counted(output, "sensitivity"), counted(output, "sensitivity_predictions")) == ({"r2": 1}, {"r2": 1})


def test_known_and_unknown_runs_in_one_go(output: Path) -> None:
    """The parts of an attempt may belong to several runs."""
    folder = new_attempt(output)
    for name, run_id in (("a", "r1"), ("b", "strange"), ("c", "r1")):
        write_part(folder, "predictions", name, table([name], run_id))
    with writing(output) as store:
        assert store.ingest() == 2
        assert store.ingest() == 0
        store.begin_run("strange", "test", "p", {}, {})
        assert store.ingest() == 1
    assert counted(output) == {"r1": 2, "strange": 1}
    assert files_in(output) == ["results.duckdb"]


def test_a_run_is_published_before_its_parts(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds too for an output that has a database, which is otherwise published after a minute at the earliest."""
    output, seen = tmp_path / "out", []

    def stopped(output: StoragePath) -> StoragePath:
        found = Store(output).query("SELECT run_id FROM runs ORDER BY started_at")["run_id"]
        seen.append(found.nunique())
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "new_attempt", stopped)
    arguments = [
        "dataset=folder", f"dataset.root={pictures}", f"cache={tmp_path}", f"output={output}", "tracking=off",
        f"models=[{{name: {TINY}, weights: random}}]", "training.epochs=0", "input_size=40",
    ]  # fmt: skip
    for seed in (0, 1, 1):
        assert main([*arguments, f"seed={seed}"]) == 130
    assert seen == [1, 2, 2]
    status = Store(output).query("SELECT status FROM runs")["status"]
    assert status.tolist() == ["interrupted"] * 2


def test_only_a_new_run_is_published_at_once(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishing a large database takes long, and a run that is known already does not need it."""
    published: list[None] = []
    monkeypatch.setattr(RunStore, "publish", lambda self: published.append(None))
    with run(output, "r1"):
        assert len(published) == 0
    with run(output, "r2"):
        assert len(published) == 1
