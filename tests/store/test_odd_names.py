"""Output folders with names that DuckDB, a glob or a URI could take for something else."""

import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from cnnsens_bench.store import new_attempt, reading, write_part, writing
from cnnsens_bench.store.read import results
from cnnsens_bench.store.submission.transfer import Selection, export, import_submission
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.storage import StoragePath, storage_path
from leaderboard.read import read
from tests.store.part_schemas import FAILURES, IMAGES, SENSITIVITY, SENSITIVITY_PREDICTIONS, SPEED
from tests.store.submissions import made
from tests.store.test_ingest import CELL, ids, table

ODD = """seed=1/it's/say "hi"/ a/100%/a %20 é/{x}/$HOME/-o/a#b/a;b/a,b/a|b/x\ny"""
PATTERNS = "a*b/**/a[1]b/[/]/label=3"
STARTS = ["seed=1", "~", "md:x", "file:"]
"""Names that matter most where a path begins with them."""
OTHER_ROWS = {
    "images": (IMAGES, {"dataset": "d", "image_id": "i", "label": 0}),
    "failures": (FAILURES, {"run_id": "r", "dataset": "d", "image_id": "j", "stage": "decode"}),
    "speed": (SPEED, {"run_id": "r", "device": "cpu", "images": 1, "seconds": 1.0}),
    "sensitivity": (SENSITIVITY, {"run_id": "r", "image_id": "i", "output": "margin"}),
    "sensitivity_predictions": (
        SENSITIVITY_PREDICTIONS,
        {"run_id": "r", "image_id": "i", "output": "margin", "predictor": "p", "degradation": "g", "level": 1.0},
    ),
}


def written_and_resumed(output: StoragePath, cache: Path) -> None:
    """Interrupt a run, and resume it with another one, which finds the rows of the first."""
    undegraded = {"degradation": "none", "level": 0.0}
    with writing(output, cache) as store:
        store.begin_run("r", "test", "p", {}, {})
        folder = new_attempt(output)
        write_part(folder, "predictions", "a", table(["i"], **undegraded))
        for kind, (schema, row) in OTHER_ROWS.items():
            rows = pa.Table.from_pylist([{"dataset": "d", "model": "s/m", "defense": "none", **row}], schema=schema)
            write_part(folder, kind, "a", rows)
        assert store.ingest(keep=folder) == 6
        store.publish()
        write_part(folder, "predictions", "b", table(["j"], **undegraded))
    with writing(output, cache) as store:
        store.begin_run("r", "test", "p", {}, {})
        assert store.ingest() == 1
        wanted = pa.Table.from_pylist([CELL | undegraded]).to_pandas()
        assert store.missing("p", "d", ["i", "j", "k"], wanted)["image_id"].tolist() == ["k"]
        write_part(new_attempt(output), "predictions", "a", table(["j", "k"], **undegraded))
        assert store.ingest() == 1
    with reading(output / "results.duckdb") as store:
        assert ids(store) == ["r:i", "r:j", "r:k"]
        for kind in OTHER_ROWS:
            assert store.query("SELECT count(*) AS n FROM query_table(?)", [kind])["n"].tolist() == [1]


@pytest.mark.parametrize("name", [ODD, PATTERNS, *STARTS])
def test_an_output_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path is relative, so that it begins with the name."""
    monkeypatch.chdir(tmp_path)
    output = Path(name)
    written_and_resumed(output, tmp_path / "cache")
    database = output / "results.duckdb"
    assert ids(results(database)) == ["r:i", "r:j", "r:k"]
    assert len(read([database]).entrants) == 1
    assert [path.name for path in output.iterdir() if path.name != "parts"] == ["results.duckdb"]
    assert [path.name for path in tmp_path.iterdir()] == [output.parts[0]]


@pytest.mark.parametrize("name", [ODD, "seed=1"])
def test_an_output_uri(name: str, tmp_path: Path) -> None:
    """The working copy lies in a folder whose name begins as the URI ends."""
    written_and_resumed(storage_path(f"memory://odd-names/{name}"), tmp_path / PATTERNS)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("made"))


@pytest.mark.parametrize("name", ["seed=1", "a[1]b", "~", "md:x"])
def test_a_submission(name: str, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path(name)
    folder.mkdir()
    shutil.copy(database, folder / "results.duckdb")
    export(folder / "results.duckdb", folder / "submission", Selection(datasets=["birds"], models=["timm/b"]))
    counts = import_submission(folder / "submission", folder / "board.duckdb")
    assert counts.new == counts.predictions == len(results(folder / "board.duckdb").query("FROM predictions"))
    assert [found.name for found in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a?b", "a\\b"])
def test_names_that_duckdb_cannot_open(name: str, database: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the output folder .* has a '.' in its name"), writing(tmp_path / name):
        pass
    copy = Path(shutil.copy(database, tmp_path / name / "results.duckdb"))
    for ask in (lambda: reading(copy).__enter__(), lambda: results(copy), lambda: read([copy])):
        with pytest.raises(UserError, match=r"results\.duckdb has a '.' in its name, which DuckDB cannot open"):
            ask()
    with pytest.raises(UserError, match=r"ends in \.duckdb and has no '\?' and no"):
        import_submission(tmp_path, copy)
