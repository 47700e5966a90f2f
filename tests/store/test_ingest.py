"""Ingestion when things go wrong: duplicates, damage, late workers, kills, and databases of other versions."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnsens_bench.store import SCHEMA_VERSION, Store, ingestion, new_attempt, write_part
from cnnsens_bench.store.ingestion import _overlaps
from cnnsens_bench.store.parts import damage
from cnnsens_bench.utils.errors import StorageError, UserError
from tests.store.empty import empty_store
from tests.store.part_schemas import FAILURES, PREDICTIONS

CELL = {"model": "s/m", "defense": "none", "degradation": "g", "level": 4.0, "trial": 0}
ROOT = Path(__file__).parents[2]


def table(images: list[str], run_id: str = "r", **changes: object) -> pa.Table:
    rest = {"architecture": "m", "label": 0, "prediction": 1, "confidence": 0.5, "true_probability": 0.25}
    last = {"true_rank": 1, "reference_logit": 1.5, "reference_probability": 0.5}
    rows = [{"run_id": run_id, "dataset": "d", "image_id": i, **CELL, **rest, **last, **changes} for i in images]
    return pa.Table.from_pylist(rows, schema=PREDICTIONS)


def opened(output: Path) -> Store:
    store = empty_store(output)
    for run_id, protocol in (("r", "p"), ("resumed", "p"), ("other", "q")):
        store.begin_run(run_id, "test", protocol, {}, {})
    return store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return opened(tmp_path / "out")


def ids(store: Store) -> list[str]:
    return store.query("SELECT run_id || ':' || image_id AS id FROM predictions ORDER BY id")["id"].tolist()


def test_what_a_protocol_has_is_not_taken_twice(store: Store) -> None:
    """It does not matter who computed it: the same run, a resumed one, or two attempts that are ingested together."""
    write_part(new_attempt(store.output), "predictions", "a", table(["i", "j"]))
    store.ingest()
    write_part(new_attempt(store.output), "predictions", "a", table(["j", "k"], "resumed"))
    write_part(new_attempt(store.output), "predictions", "a", table(["k"], "resumed"))
    write_part(new_attempt(store.output), "predictions", "a", table(["i"], "other"))
    write_part(new_attempt(store.output), "predictions", "a", table(["i"], "resumed", level=8.0))
    assert store.ingest() == 4
    assert ids(store) == ["other:i", "r:i", "r:j", "resumed:i", "resumed:k"]


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the number of parts of each transaction."""
    found: list[int] = []
    insert = ingestion.insert
    monkeypatch.setattr(
        ingestion, "insert", lambda connection, files: found.append(len(files)) or insert(connection, files)
    )
    return found


def test_parts_know_their_rows(store: Store, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnsens_bench.store.ingestion.FILES_AT_ONCE", 2)
    folder = new_attempt(store.output)
    for i in range(5):
        write_part(folder, "predictions", str(i), table([f"{i}-{j}" for j in range(i + 1)]))
    store.ingest(keep=Path(os.path.relpath(folder)))
    assert sizes == [2, 2, 1]
    assert sorted(store.query("SELECT rows FROM parts")["rows"]) == [1, 2, 3, 4, 5]
    assert folder.is_dir()  # kept: it is still written to


def test_the_parts_of_a_task_come_in_together(store: Store, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no image is new in one transaction and known in the next, which would be compared row by row."""
    monkeypatch.setattr("cnnsens_bench.store.ingestion.FILES_AT_ONCE", 4)
    folder = new_attempt(store.output)
    for task in "abc":
        for name in ("blur", "flip-lr", "none"):
            write_part(folder, "predictions", f"{task}-{name}", table([f"{task}1", f"{task}2"], degradation=name))
    compared = []
    monkeypatch.setattr(
        "cnnsens_bench.store.ingestion._overlaps",
        lambda connection: compared.append(_overlaps(connection)) or compared[-1],
    )
    assert store.ingest() == 9
    assert sizes == [6, 3]
    assert compared == [False, False]
    assert len(ids(store)) == 18


def test_damage_inside_a_part_costs_only_that_part(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """The footer of a file can be good where its pages are damaged."""
    folder = new_attempt(store.output)
    path = write_part(folder, "predictions", "bad", table([f"i{i}" for i in range(2000)]))
    content = bytearray(path.read_bytes())
    content[4:400] = os.urandom(396)
    path.write_bytes(content)
    other = pa.table({"x": [1]})
    pq.write_table(other, folder / "predictions-columns.parquet")
    write_part(folder, "predictions", "good", table(["i"]))
    with caplog.at_level(logging.WARNING):
        assert store.ingest() == 1
    assert ids(store) == ["r:i"]
    assert sorted(p.name for p in folder.iterdir()) == ["predictions-bad.corrupt", "predictions-columns.corrupt"]
    assert caplog.text.count("cannot be read") == 2


def test_a_failure_that_is_not_the_parts_fault_keeps_them(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = new_attempt(store.output)
    path = write_part(folder, "predictions", "a", table(["i"]))

    def full(*_: object) -> None:
        raise duckdb.IOException("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("cnnsens_bench.store.ingestion.insert", full)
        with pytest.raises(StorageError, match="No space"):
            store.ingest()
    assert path.exists()
    store.ingest()
    assert ids(store) == ["r:i"]


def test_a_file_of_an_unknown_kind_is_left_alone(store: Store) -> None:
    folder = new_attempt(store.output)
    pq.write_table(pa.table({"x": [1]}), folder / "future-a.parquet")
    assert store.ingest() == 0
    assert (folder / "future-a.parquet").exists()


@pytest.mark.parametrize("name", ["a*b", "a[1]b", "it's", "blocked", "a {x} %20 é"])
def test_odd_folders_are_no_patterns(tmp_path: Path, name: str) -> None:
    """The same attempt below a folder that the name would match as a pattern must not be ingested."""
    store = opened(tmp_path / name)
    folder = new_attempt(store.output)
    write_part(folder, "predictions", "x", table(["yes"]))
    for neighbour in ("a-b", "a1b"):
        decoy = tmp_path / neighbour / folder.relative_to(store.output)
        decoy.mkdir(parents=True)
        write_part(decoy, "predictions", "x", table(["no"]))
    store.ingest()
    assert ids(store) == ["r:yes"]


def test_a_folder_that_duckdb_cannot_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has a '\?' in its name"):
        Store(tmp_path / "a?b").open()


def test_a_worker_that_outlived_its_run_gets_a_sentence(store: Store) -> None:
    folder = new_attempt(store.output)
    folder.rmdir()
    with pytest.raises(FileNotFoundError, match="is closed: the run that this worker belongs to has ended"):
        write_part(folder, "predictions", "late", table(["i"]))
    assert not folder.exists()


def test_a_folder_closed_while_a_part_is_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = new_attempt(store.output)
    monkeypatch.setattr(os, "fsync", lambda _: store.ingest())
    with pytest.raises(FileNotFoundError, match="is closed"):
        write_part(folder, "predictions", "late", table(["i"]))
    assert not folder.exists()
    assert ids(store) == []


def test_a_full_disk_leaves_no_file(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    folder = new_attempt(store.output)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_part(folder, "predictions", "a", table(["i"]))
    assert list(folder.iterdir()) == []


def test_a_part_without_its_key_is_refused_when_written(store: Store) -> None:
    folder = new_attempt(store.output)
    columns = PREDICTIONS.names
    broken = table(["i"]).to_pandas().assign(image_id=None)
    with pytest.raises(ValueError, match="image_id"):
        write_part(folder, "predictions", "a", pa.Table.from_pandas(broken[columns], preserve_index=False))
    assert list(folder.iterdir()) == []


def test_columns_in_another_order_and_of_wider_types(store: Store) -> None:
    wide = table(["i"]).to_pandas()[PREDICTIONS.names[::-1]].astype({"trial": "int64", "confidence": "float64"})
    path = write_part(new_attempt(store.output), "predictions", "a", pa.Table.from_pandas(wide, preserve_index=False))
    assert damage(path) is None
    assert pq.read_schema(path).names == PREDICTIONS.names


def test_failures_without_a_sentence_are_kept_once(store: Store) -> None:
    folder = new_attempt(store.output)
    row = {"run_id": "r", "dataset": "d", "image_id": "i", "stage": "decode", "error": None}
    for name in "ab":
        write_part(folder, "failures", name, pa.Table.from_pylist([row, row], schema=FAILURES))
    store.ingest()
    assert len(store.query("FROM failures")) == 1


def test_images_are_replaced(store: Store) -> None:
    for width in (7, 8):
        store.put("images", pd.DataFrame([{"dataset": "d", "image_id": "i", "width": width, "class_name": "<b>'"}]))
    assert store.query("SELECT width, class_name FROM images").to_numpy().tolist() == [[8, "<b>'"]]


def test_killed_while_it_ingests(tmp_path: Path) -> None:
    """A real SIGKILL at several moments: in the end every row is stored once."""
    store = opened(tmp_path)
    expected = []
    for batch in range(3):
        folder = new_attempt(tmp_path)
        for i in range(20):
            expected.append(f"r:{batch}-{i:02d}")
            write_part(folder, "predictions", str(i), table([expected[-1][2:]]))
        code = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom pathlib import Path\n" + (
            "from cnnsens_bench.store import Store, ingestion\ningestion.FILES_AT_ONCE = 2\n"
            f"print('go', flush=True)\nStore(Path({str(tmp_path)!r})).ingest()"
        )
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.03 + 0.05 * batch)
        process.send_signal(signal.SIGKILL)
        process.wait()
    store.open()
    store.ingest()
    assert ids(store) == sorted(expected)
    assert not list((tmp_path / "parts").iterdir())


@given(
    rows=st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), st.integers(0, 2), st.booleans()),
        max_size=12,
        unique_by=lambda row: row[:2],
    )
)
@settings(max_examples=8, deadline=None)
def test_written_ingested_missing(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, bool]]) -> None:
    """Whatever the names are, each row that is asked for was either written or is missing."""
    store = opened(tmp_path_factory.mktemp("round"))
    folder = new_attempt(store.output)
    for number, (image, trial, stored) in enumerate(rows):
        if stored:
            write_part(folder, "predictions", str(number), table([image], trial=trial))
    store.ingest()
    images = sorted({row[0] for row in rows})
    wanted = pd.DataFrame([{**CELL, "trial": trial} for trial in range(3)])
    missing = store.missing("p", "d", images, wanted)
    present = {(image, trial) for image, trial, stored in rows if stored}
    product = {(image, trial) for image in images for trial in range(3)}
    assert set(zip(missing["image_id"], missing["trial"], strict=True)) == product - present
    assert len(missing) == len(product - present)


def test_a_question_cannot_change_anything(store: Store) -> None:
    with pytest.raises(duckdb.InvalidInputException, match="read-only"):
        store.query("DELETE FROM runs")


def test_the_version_is_in_the_database(store: Store) -> None:
    store.open()
    assert store.query("FROM meta")["schema_version"].tolist() == [SCHEMA_VERSION]


def test_a_database_of_the_first_layout_goes_on(tmp_path: Path) -> None:
    """The first layout had no table `meta`, and no column `rows` in `parts`."""
    store = opened(tmp_path)
    with store.connect() as connection:
        connection.execute("DROP TABLE meta; ALTER TABLE parts DROP COLUMN rows")
    store.open()
    write_part(new_attempt(tmp_path), "predictions", "a", table(["i"]))
    store.ingest()
    assert ids(store) == ["r:i"]


def test_a_database_gets_the_columns_that_its_version_lacked(store: Store) -> None:
    write_part(new_attempt(store.output), "predictions", "a", table(["i"]))
    store.ingest()
    columns = {name: store.query(f"FROM {name} LIMIT 0").columns for name in ("predictions", "images", "sensitivity")}
    with store.connect() as connection:
        connection.execute("ALTER TABLE predictions DROP COLUMN reference_probability")
        connection.execute("ALTER TABLE predictions DROP COLUMN true_rank")
        connection.execute("ALTER TABLE images DROP COLUMN hue_entropy; ALTER TABLE sensitivity DROP COLUMN entropy")
    store.open()
    for name, names in columns.items():
        assert set(store.query(f"FROM {name} LIMIT 0").columns) == set(names)
    write_part(new_attempt(store.output), "predictions", "a", table(["j"]))
    store.ingest()
    ranks = store.query("SELECT image_id, true_rank FROM protocol_predictions ORDER BY image_id")
    assert ranks["image_id"].tolist() == ["i", "j"]
    assert ranks["true_rank"].isna().tolist() == [True, False]


def test_a_part_of_a_version_that_lacked_a_column(store: Store) -> None:
    """It is ingested with parts that have the column, and with a part that is damaged."""
    folder = new_attempt(store.output)
    assert isinstance(folder, Path)
    pq.write_table(table(["old"]).drop_columns("true_rank"), folder / "predictions-a.parquet")
    write_part(folder, "predictions", "b", table(["new"]))
    (folder / "predictions-c.parquet").write_bytes(b"not parquet")
    pq.write_table(table(["keyless"]).drop_columns("trial"), folder / "predictions-d.parquet")
    assert store.ingest() == 2
    found = store.query("SELECT image_id, true_rank FROM predictions ORDER BY image_id")
    assert found["image_id"].tolist() == ["new", "old"]
    assert found["true_rank"].isna().tolist() == [False, True]
    assert sorted(path.name for path in folder.iterdir()) == ["predictions-c.corrupt", "predictions-d.corrupt"]


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "results.duckdb")) as connection:
        connection.execute("CREATE TABLE runs (distance DOUBLE)")
    with pytest.raises(UserError, match="cannot be used") as caught:
        Store(tmp_path).open()
    assert "\n" not in str(caught.value)


def test_patience_waits_for_a_reader(store: Store) -> None:
    path = str(store.path)
    code = f"import duckdb, time; c = duckdb.connect({path!r}, read_only=True); print(1, flush=True); time.sleep(1)"
    reader = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert reader.stdout is not None
    reader.stdout.readline()
    write_part(new_attempt(store.output), "predictions", "a", table(["i"]))
    with pytest.raises(UserError, match=f"held by process {reader.pid}"):
        store.ingest()
    assert store.query("SELECT count(*) AS n FROM predictions")["n"][0] == 0  # readers do not exclude readers
    store.ingest(patience=10)
    reader.wait()
    assert ids(store) == ["r:i"]
