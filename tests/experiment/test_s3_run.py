"""Whole runs with data and output on an S3 server: the same rows as on a disk, whatever happens on the way."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import ray
import s3fs
from upath import UPath

from cnnsens_bench.experiment import runner
from cnnsens_bench.run import main
from cnnsens_bench.store import RunStore, Store, lock, reading
from cnnsens_bench.utils.storage import names_below, storage_path
from tests.conftest import TINY
from tests.s3 import Server, served
from tests.test_run import ROWS


@pytest.fixture(scope="module")
def server(pictures: Path) -> Iterator[Server]:
    """With `pictures` in s3://bench/data/pictures."""
    with served() as running:
        data = UPath("s3://bench/data/pictures")
        for name in names_below(pictures):
            data.fs.pipe_file((data / name).path, (pictures / name).read_bytes())
        yield running


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """What a run on this machine's disk gives."""
    output = tmp_path_factory.mktemp("local")
    assert main(words(str(pictures), str(output), tmp_path_factory.mktemp("cache"))) == 0
    return Store(output).query(ROWS)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


DATA = "s3://bench/data/pictures"


def words(root: str, output: str, cache: Path, *more: str) -> list[str]:
    return [
        "dataset=folder", f"dataset.root={root}", f"output={output}", f"cache={cache}", "input_size=40", "limit=9",
        f"models=[{{name: {TINY}, weights: random}}]", "training.epochs=1", "training.batch_size=8", "batch_size=2",
        "degradations=[{name: gaussian_rgb, levels: [4, 64]},flip_lr]", "trials=2", "tracking=off", "defenses=[none]",
        *more,
    ]  # fmt: skip


def rows(output: str, sql: str = ROWS) -> pd.DataFrame:
    found = storage_path(output)
    with reading(found / "results.duckdb") as store:
        return store.query(sql)


def test_the_same_rows_as_on_a_disk(
    server: Server, whole: pd.DataFrame, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = "s3://bench/runs/whole"
    assert main(words(DATA, output, cache, "figures=[table1]")) == 0
    said = capsys.readouterr().out
    pd.testing.assert_frame_equal(rows(output), whole)
    assert f"results: {output}/results.duckdb" in said
    assert rows(output, "SELECT status FROM runs")["status"].tolist() == ["done"]
    uris = rows(output, "SELECT uri FROM images")["uri"]
    assert uris.str.startswith(f"{DATA}/class_").all()
    names = names_below(storage_path(output))
    assert {name.partition("/")[0] for name in names} == {"results.duckdb", "results.json", "figures"}
    assert not list(cache.glob("outputs/*/work"))


@pytest.mark.slow
def test_over_ray(server: Server, whole: pd.DataFrame, pictures: Path, cache: Path, tmp_path: Path) -> None:
    """Its workers write to the server, the driver reads there; and the same with a folder that all share."""
    output = "s3://bench/runs/ray"
    over = ("cluster.engine=ray", "cluster.workers=1", "cluster.threads=1")
    ray.shutdown()  # a cluster of this environment
    try:
        assert main(words(DATA, output, cache, *over)) == 0
        assert main(words(str(pictures), str(tmp_path / "shared"), cache, *over)) == 0
    finally:
        ray.shutdown()
    pd.testing.assert_frame_equal(rows(output), rows(str(tmp_path / "shared")))
    floats = whole.select_dtypes("float32").columns
    pd.testing.assert_frame_equal(rows(output).drop(columns=floats), whole.drop(columns=floats))
    pd.testing.assert_frame_equal(rows(output)[floats], whole[floats], rtol=1e-3, atol=1e-5)
    assert names_below(storage_path(output)) == ["results.duckdb", "results.json"]


@pytest.mark.slow
def test_a_killed_run_goes_on(server: Server, whole: pd.DataFrame, cache: Path) -> None:
    """Another machine may do so: nothing of what is needed lies on this one."""
    output = "s3://bench/runs/killed"
    command = [sys.executable, "-m", "cnnsens_bench.run", *words(DATA, output, cache)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 100
    parts: list[str] = []
    while len(parts) < 4 and process.poll() is None and time.monotonic() < until:
        parts = [name for name in names_below(storage_path(output)) if "/predictions-" in name]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert parts, "the run was over before it could be killed"
    assert json.loads((storage_path(output) / "run.lock").read_text())["pid"] == process.pid
    assert main(words(DATA, output, cache.with_name("other"))) == 0
    pd.testing.assert_frame_equal(rows(output), whole)
    assert names_below(storage_path(output)) == ["results.duckdb", "results.json"]


def test_a_second_run_is_refused(
    server: Server, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.2)
    output = "s3://bench/runs/two"
    held = lock.lock(storage_path(output))
    assert main(words(DATA, output, cache)) == 2
    held.release()
    said = capsys.readouterr().err
    assert f"error: {output} is being written by a run on" in said
    assert names_below(storage_path(output)) == []


@pytest.mark.slow
def test_a_server_that_goes_away(
    server: Server,
    whole: pd.DataFrame,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    output = "s3://bench/runs/gone"
    share, calls = RunStore.share, [0]

    def shared(self: RunStore, *keep: UPath, **more: bool) -> None:
        share(self, *keep, **more)
        calls[0] += 1
        if calls[0] == 3:
            server.stop()

    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "share", shared)
        assert main(words(DATA, output, cache)) == 1
    server.start()
    said = capsys.readouterr().err
    assert said.startswith(f"error: {output}/parts")
    assert "Could not connect" in said
    assert said.endswith("what was computed is kept, the same command goes on\n")
    assert "Traceback" not in said
    assert [name for name in names_below(storage_path(output)) if "/predictions-" in name]
    assert main(words(DATA, output, cache)) == 0
    assert f"of {len(whole)} evaluations are in the store" in capsys.readouterr().out
    pd.testing.assert_frame_equal(rows(output), whole)


@pytest.mark.slow
def test_the_datas_server_goes_away(
    server: Server,
    whole: pd.DataFrame,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No image is blamed for it."""
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setattr("cnnsens_bench.utils.reading.WAITS", (0.01, 0.01))
    run_local = runner.run_local

    def stopped(*arguments: object) -> object:
        server.stop()
        return run_local(*arguments)  # type: ignore[arg-type]

    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(runner, "run_local", stopped)
        assert main(words(DATA, str(output), cache)) == 1
    server.start()
    said = capsys.readouterr().err
    assert said.startswith(f"error: {DATA}/class_")
    assert "cannot be read now" in said
    assert said.endswith("what was computed is kept, the same command goes on\n")
    assert said.count("\n") == 1
    assert Store(output).query("FROM failures").empty
    assert main(words(DATA, str(output), cache)) == 0
    pd.testing.assert_frame_equal(Store(output).query(ROWS), whole)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        (
            "output=s3://no-such-bucket/x",
            "no-such-bucket/x cannot be written: The specified bucket does not exist",
        ),
        ("output=nosuch://bucket/x", "'nosuch://bucket/x' cannot be used"),
        ("output=simplecache::s3://bench/x", "chains URIs"),
        ("output=s3://bench/a[1]", "'s3://bench/a[1]' is a pattern"),
        ("dataset.root=s3://bench/nothing", "the folder s3://bench/nothing does not exist"),
        ("cache=s3://bench/cache", "cache is 's3://bench/cache': it must be a path on this machine"),
    ],
)
def test_wrong_uris(word: str, sentence: str, server: Server, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(DATA, "s3://bench/runs/wrong", cache, word)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert sentence in said
    assert said.count("\n") == 1
