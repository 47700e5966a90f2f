"""Estimates are compared with what a run then computes; no timing is judged."""

import hashlib
import re
from pathlib import Path

import pytest
from rich.console import Console

from cnnsens_bench.config.compose import compose
from cnnsens_bench.config.schema import Config
from cnnsens_bench.experiment import profiling
from cnnsens_bench.experiment.estimate import EMPTY_DATABASE, CostEstimate, estimate
from cnnsens_bench.run import main
from cnnsens_bench.store import Store
from cnnsens_bench.utils.errors import UserError
from tests.conftest import TINY
from tests.test_run import words as request_words


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each timing take one call only."""
    monkeypatch.setattr(profiling, "LEAST", 0.0)


ONE = f"models=[{{name: {TINY}, weights: random}}]"
FEW = "degradations=[{name: pepper, levels: [0.04, 0.3]},{name: translation, levels: [8]},flip_lr]"


def words(pictures: Path, cache: Path, output: Path, *more: str) -> list[str]:
    return request_words(pictures, cache, output, "tracking=off", "cluster.threads=1", *more)


def estimated(arguments: list[str]) -> CostEstimate:
    return estimate(compose(arguments), Console(quiet=True))


def size(folder: Path, pattern: str) -> int:
    return sum(file.stat().st_size for file in folder.rglob(pattern))


def test_it_counts_what_a_run_computes(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    request = words(pictures, tmp_path / "cache", output, "limit=4", "sensitivity=on", "training.epochs=1", ONE, FEW)
    request.append("sensitivity.predictors=[noisy_gradients]")
    request.append("defenses=[none,'batch_norm_recalibration(images=4)',input_dropout]")
    whole = estimated(request)
    assert not output.exists()
    assert not (tmp_path / "cache").exists()
    assert (whole.images, whole.entrants, whole.stored, whole.trainings) == (4, 3, 0, 2)
    assert all(whole.seconds[stage] > 0 for stage in ("decode", "degrade", "forward", "score", "train"))
    assert whole.memory_bytes > whole.network_bytes > 100_000
    assert whole.hours > 0

    part_bytes: list[int] = []
    brought_in = Store.ingest

    def ingest(store: Store, *arguments: object, **more: object) -> object:
        part_bytes.append(size(output, "*.parquet"))
        return brought_in(store, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "ingest", ingest)
    assert main(request) == 0
    computed = re.search(r"sweep: (\d+) evaluations", capsys.readouterr().out)
    assert computed
    assert whole.evaluations == int(computed[1])
    store = Store(output)
    for table, count in whole.rows.items():
        assert store.query(f"SELECT count(*) AS n FROM {table}")["n"][0] == count  # noqa: S608  # names of ours
    assert store.path.stat().st_size / 2 < whole.database_bytes < store.path.stat().st_size * 2
    assert max(part_bytes) < 40 * whole.part_bytes  # small files are mostly heads

    again = estimated(request)
    assert (again.evaluations, again.stored) == (0, whole.evaluations)
    assert again.seconds["forward"] == again.seconds["degrade"] == again.seconds["score"] == 0
    more = estimated([*request, "limit=6"])
    assert more.evaluations == whole.evaluations // 2
    assert more.stored == whole.evaluations


def test_it_leaves_the_store_as_it_is(pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    request = words(pictures, tmp_path / "cache", output, "limit=3", "training.epochs=0", "defenses=[none]", ONE, FEW)
    assert main(request) == 0
    before = {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in output.rglob("*") if p.is_file()}
    estimated([*request, "trials=3"])
    assert {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in output.rglob("*") if p.is_file()} == before


def test_a_command_prints_it(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # No such weights: an estimate needs none.
    model = f"models=[{{name: {TINY}, weights: auto}}]"
    request = words(pictures, tmp_path / "cache", tmp_path / "out", model, "defenses=[none]", "training.epochs=7")
    assert main([*request, "estimate=true"]) == 0
    said = capsys.readouterr().out
    for expected in ("evaluations (", "trainings: 1 (", "on this device (", "storage: ", "memory: about "):
        assert expected in said
    assert not (tmp_path / "out").exists()
    assert "Traceback" not in said


@pytest.mark.parametrize("word", ["models=[timm/resnet118]", "degradations=[peper]", "dataset.root=/nowhere"])
def test_it_refuses_what_a_run_refuses(word: str, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        estimated([*words(pictures, tmp_path, tmp_path / "out"), word])


def test_speeds_in_the_store_tell_the_hours_elsewhere(pictures: Path, tmp_path: Path) -> None:
    import duckdb

    output = tmp_path / "out"
    request = words(pictures, tmp_path / "cache", output, "limit=3", "training.epochs=0", "defenses=[none]", FEW)
    assert main(request) == 0
    with duckdb.connect(str(output / "results.duckdb")) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS speed (run_id VARCHAR, dataset VARCHAR, model VARCHAR, defense VARCHAR, "
            "device VARCHAR, threads INTEGER, precision VARCHAR, images BIGINT, seconds DOUBLE)"
        )
        connection.execute("DELETE FROM speed")
        for model in (TINY, "timm/test_efficientnet"):
            row = ["r", "folder", model, "none", "A GPU", None, "float32", 1000, 36.0]
            connection.execute("INSERT INTO speed VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        only_one = ["r", "folder", TINY, "none", "Another GPU", None, "float32", 1000, 1.0]
        connection.execute("INSERT INTO speed VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", only_one)
    found = estimated([*request, "limit=6"])
    assert found.hours_elsewhere == pytest.approx({"A GPU": found.rows["predictions"] * 0.036 / 3600})


def test_the_smallest_database_is_as_large_as_said(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    assert store.path.stat().st_size < EMPTY_DATABASE


def test_it_is_no_part_of_what_a_run_is() -> None:
    assert Config(estimate=True).run_id == Config().run_id
