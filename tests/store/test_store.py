"""The store: rows are stored exactly once, never corrupt, and errors are clear."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnsens_bench.store import Store, new_attempt, write_part
from cnnsens_bench.utils.errors import UserError
from tests.store.empty import empty_store
from tests.store.part_schemas import FAILURES, IMAGES, PREDICTIONS

KEYS = ["image_id", "model", "defense", "degradation", "level", "trial"]


def predictions(
    images: list[str], run_id: str = "r", model: str = "s/m", trials: int = 2, defense: str = "none"
) -> pa.Table:
    rows = [
        {
            "run_id": run_id, "dataset": "d", "image_id": image, "model": model, "architecture": "m",
            "defense": defense, "degradation": "g", "level": level, "trial": trial, "label": 0, "prediction": trial,
            "confidence": 0.5, "true_probability": 0.25, "true_rank": 1, "reference_logit": 1.5,
            "reference_probability": 0.5,
        }
        for image in images for level in (1.0, 4.0) for trial in range(trials)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=PREDICTIONS)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = empty_store(tmp_path / "out")
    made.begin_run("r", "test", "p", {"a": 1}, {})
    return made


def count(store: Store, table: str = "predictions") -> int:
    return int(store.query(f"FROM {table} SELECT count(*) AS n")["n"][0])


CONTRACT = {
    "runs": "run_id suite schema_version protocol status started_at finished_at config environment",
    "images": "dataset split image_id uri label class_name box_x box_y box_w box_h width height hue_entropy",
    "models": "model architecture source dataset defense weights_sha256 num_parameters input_size trained_by",
    "predictions": "run_id dataset image_id model architecture defense degradation level trial label prediction "
    "confidence true_probability true_rank reference_logit reference_probability",
    "sensitivity": "run_id dataset image_id model defense output value grad_sq_norm pepper_sum pepper_sq_norm shift_x "
    "shift_y margin margin_grad_sq_norm",
    "failures": "run_id dataset image_id stage error",
    "accuracy": "dataset model architecture defense degradation level value low high n_images n_trials",
    "label_change": "dataset model architecture defense degradation level value low high n_images n_trials",
    "leaderboard": "dataset model defense",
    "sensitivity_check": "degradation level pearson spearman n",
}


@pytest.mark.parametrize("table", CONTRACT)
def test_the_contract_of_tables_and_views(store: Store, table: str) -> None:
    columns = set(store.query(f"FROM {table} LIMIT 0").columns)
    assert set(CONTRACT[table].split()) <= columns


@pytest.mark.parametrize(
    ("table", "schema"), [("predictions", PREDICTIONS), ("images", IMAGES), ("failures", FAILURES)]
)
def test_parts_have_the_columns_of_their_table(store: Store, table: str, schema: pa.Schema) -> None:
    assert list(store.query(f"FROM {table} LIMIT 0").columns) == schema.names


def test_ingestion_brings_every_row_once(store: Store) -> None:
    folder = new_attempt(store.output)
    for i in range(5):
        write_part(folder, "predictions", str(i), predictions([f"i{i}"]))
    assert store.ingest(keep=folder) == 5
    assert store.ingest() == 0
    assert count(store) == 20
    assert not folder.exists()


def test_a_crash_between_commit_and_deletion_doubles_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = new_attempt(store.output)
    write_part(folder, "predictions", "a", predictions(["i"]))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *a, **k: (_ for _ in ()).throw(OSError("killed here")))
        with pytest.raises(OSError, match="killed here"):
            store.ingest()
    assert len(list(folder.glob("*.parquet"))) == 1
    store.ingest()
    assert count(store) == 4
    assert not folder.exists()


def test_a_worker_that_outlived_its_run_cannot_write(store: Store) -> None:
    folder = new_attempt(store.output)
    store.ingest()
    with pytest.raises(FileNotFoundError):
        write_part(folder, "predictions", "late", predictions(["i"]))


def test_a_half_written_part_is_no_part(store: Store) -> None:
    folder = new_attempt(store.output)
    (folder / "tmp123.partial").write_bytes(b"PAR1 half")
    write_part(folder, "predictions", "a", predictions(["i"]))
    store.ingest()
    assert count(store) == 4
    assert not folder.exists()


def test_a_corrupt_part_is_set_aside(store: Store) -> None:
    folder = new_attempt(store.output)
    (folder / "predictions-bad.parquet").write_bytes(b"not parquet")
    write_part(folder, "predictions", "good", predictions(["i"]))
    store.ingest()
    assert count(store) == 4
    assert [path.name for path in folder.iterdir()] == ["predictions-bad.corrupt"]


def test_a_failed_write_leaves_nothing(store: Store) -> None:
    folder = new_attempt(store.output)
    with pytest.raises(KeyError):
        write_part(folder, "predictions", "a", pa.table({"x": [1]}))
    assert list(folder.iterdir()) == []


def test_images_and_failures_are_kept_once(store: Store) -> None:
    folder = new_attempt(store.output)
    image = dict.fromkeys(IMAGES.names) | {"dataset": "d", "image_id": "i", "width": 7}
    failure = {"run_id": "r", "dataset": "d", "image_id": "j", "stage": "decode", "error": "bad"}
    for name in "ab":
        write_part(folder, "images", name, pa.Table.from_pylist([image], schema=IMAGES))
        write_part(folder, "failures", name, pa.Table.from_pylist([failure], schema=FAILURES))
    store.ingest()
    assert (count(store, "images"), count(store, "failures")) == (1, 1)
    store.clear_failures("r")
    assert count(store, "failures") == 0


@given(present=st.sets(st.integers(0, 6)))
@settings(max_examples=10, deadline=None)
def test_missing_is_the_product_less_what_is_there(tmp_path_factory: pytest.TempPathFactory, present: set[int]) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    store.open()
    store.begin_run("r", "test", "p", {}, {})
    store.begin_run("other", "test", "another protocol", {}, {})
    folder = new_attempt(store.output)
    write_part(folder, "predictions", "other", predictions(["i0", "i1"], run_id="other"))
    if present:
        write_part(folder, "predictions", "a", predictions([f"i{i}" for i in present]))
    store.ingest()
    assert store.has_predictions("p", "d") == bool(present)
    wanted = predictions(["x"]).to_pandas()[KEYS[1:]].astype({"model": str, "defense": str, "degradation": str})
    ids = [f"i{i}" for i in range(7)]
    missing = store.missing("p", "d", ids, wanted)
    assert list(missing.columns) == KEYS
    assert sorted(missing["image_id"]) == sorted([f"i{i}" for i in range(7) if i not in present] * len(wanted))


HOSTILE = ["it's", 'say "hi"', "a\nb", "<script>alert(1)</script>", "'; DROP TABLE predictions; --", "עברית", "x" * 300]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text(store: Store, name: str) -> None:
    folder = new_attempt(store.output)
    write_part(folder, "predictions", "a", predictions([name], model=name))
    store.ingest()
    store.put("models", pd.DataFrame([{"model": name, "dataset": "d", "defense": "none", "weights_sha256": "abc"}]))
    found = store.query("SELECT DISTINCT image_id, model FROM predictions")
    assert found.to_numpy().tolist() == [[name, name]]
    assert store.model_digests(name, "d") == {"none": "abc"}
    assert store.query("SELECT model FROM leaderboard").empty


def test_a_run_that_begins_again_keeps_its_row(store: Store) -> None:
    store.finish_run("r", "interrupted")
    store.begin_run("r", "test", "p", {}, {})
    runs = store.query("SELECT status, finished_at FROM runs")
    assert runs["status"].tolist() == ["running"]
    assert runs["finished_at"].isna().all()


def test_models_are_replaced_and_only_those_in_use_have_a_digest(store: Store) -> None:
    row = {"model": "s/m", "dataset": "d", "defense": "none", "weights_sha256": "one"}
    store.put("models", pd.DataFrame([row]))
    assert store.model_digests("s/m", "d") == {}  # no predictions yet
    folder = new_attempt(store.output)
    write_part(folder, "predictions", "a", predictions(["i"]))
    store.ingest()
    trained = row | {"defense": "input_dropout(p=0.1)", "weights_sha256": "three"}
    store.put("models", pd.DataFrame([row | {"weights_sha256": "two"}, trained]))
    assert store.model_digests("s/m", "d") == {"none": "two"}
    write_part(new_attempt(store.output), "predictions", "b", predictions(["i"], defense="input_dropout(p=0.1)"))
    store.ingest()
    assert store.model_digests("s/m", "d") == {"none": "two", "input_dropout(p=0.1)": "three"}


def test_a_database_that_another_process_holds(store: Store) -> None:
    code = f"import duckdb, time; c = duckdb.connect({str(store.path)!r}); print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        began = time.monotonic()
        with pytest.raises(UserError, match=f"held by process {holder.pid}"):
            store.open()
        assert time.monotonic() - began < 5
    finally:
        holder.kill()
        holder.wait()
    store.open()


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.duckdb").write_text("hello, I am a text file, " * 1000)
    with pytest.raises(UserError, match="not a DuckDB database"):
        Store(tmp_path).open()


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_an_output_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Store(tmp_path / name).open()


def test_another_schema_version_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnsens_bench.store.database.SCHEMA_VERSION", 99)
    with pytest.raises(UserError, match="schema version 1"):
        store.open()


def test_values_survive_the_way(store: Store) -> None:
    folder = new_attempt(store.output)
    table = predictions([f"i{i}" for i in range(50)]).to_pandas()
    table["confidence"] = np.random.default_rng(0).random(len(table)).astype(np.float32)
    write_part(folder, "predictions", "a", pa.Table.from_pandas(table, preserve_index=False))
    store.ingest()
    back = store.query("SELECT * FROM predictions ORDER BY image_id, level, trial")
    expected = table.astype(dict.fromkeys(table.columns[:7], str)).sort_values(["image_id", "level", "trial"])
    pd.testing.assert_frame_equal(back, expected.reset_index(drop=True), check_dtype=False)


def test_ctrl_c_while_the_database_works_stops_the_run_and_is_no_fault(store: Store) -> None:
    """DuckDB raises a `RuntimeError` where it notices a signal during a query."""
    with pytest.raises(KeyboardInterrupt), store.connect():
        raise RuntimeError("Query interrupted")
    with pytest.raises(RuntimeError, match="something else"), store.connect():
        raise RuntimeError("something else")
    assert store.query("SELECT count(*) AS n FROM runs")["n"].tolist() == [1]


def test_a_run_of_other_images_is_refused(tmp_path: Path) -> None:
    """A run's id does not know the folder of its images; the protocol knows them."""
    store = Store(tmp_path)
    store.open()
    store.check_protocol("r", "p")
    store.begin_run("r", "test", "p", {}, {})
    store.check_protocol("r", "p")
    with pytest.raises(UserError, match=r"has the run r with other images or classes: give this run an output="):
        store.check_protocol("r", "q")
