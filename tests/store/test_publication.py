"""Working copy and published database: what readers see, and what a kill, a full disk or another run leaves."""

import itertools
import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import duckdb
import pytest
from upath import UPath

from cnnsens_bench.store import RunStore, Store, lock, new_attempt, reading, write_part, writing
from cnnsens_bench.store import publish as publish_module
from cnnsens_bench.store.parts import PartFiles
from cnnsens_bench.utils import storage
from cnnsens_bench.utils.errors import StorageError, UserError
from cnnsens_bench.utils.memory import total_memory
from cnnsens_bench.utils.storage import storage_path
from tests.store.test_ingest import ids, table


def begin_run(store: Store) -> None:
    store.begin_run("r", "test", "p", {}, {})


def published_ids(output: Path) -> list[str]:
    """Return the predictions that a reader finds."""
    with reading(output / "results.duckdb") as store:
        return ids(store)


def files_in(output: Path) -> list[str]:
    return sorted(path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file())


def test_readers_see_what_was_published_last(tmp_path: Path) -> None:
    with writing(tmp_path) as store:
        begin_run(store)
        store.share()  # a new output is published at once
        assert published_ids(tmp_path) == []
        folder = new_attempt(tmp_path)
        part = write_part(folder, "predictions", "a", table(["i"]))
        store.ingest(keep=folder)
        assert (ids(store), published_ids(tmp_path)) == (["r:i"], [])
        assert isinstance(part, Path)
        assert part.exists()  # until readers have it
        store.publish()
        assert published_ids(tmp_path) == ["r:i"]
        assert not part.exists()
        assert isinstance(folder, Path)
        assert folder.exists()  # it is still written to
        write_part(folder, "predictions", "b", table(["j"]))
        store.ingest()
    assert published_ids(tmp_path) == ["r:i", "r:j"]
    assert files_in(tmp_path) == ["results.duckdb"]


def test_it_is_published_after_a_minute_and_never_dearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(publish_module.time, "monotonic", lambda: now[0])
    published: list[float] = []

    def publish(self: RunStore) -> None:
        published.append(now[0])
        now[0] += 6  # what it costs
        self.changed = False

    with writing(tmp_path) as store:
        begin_run(store)
        monkeypatch.setattr(RunStore, "publish", publish)
        for _ in range(400):
            now[0] += 1
            store.changed = True
            store.share()
    # At most a twentieth of the time: 6 of 120 seconds.
    assert published[1] - published[0] >= 120
    assert [round(b - a, -1) for a, b in itertools.pairwise(published)] == [130] * (len(published) - 1)
    assert len(published) >= 3


def test_what_a_reader_opened_stays_whole_while_it_is_replaced(tmp_path: Path) -> None:
    with writing(tmp_path) as store:
        begin_run(store)
        store.publish()
        with duckdb.connect(str(tmp_path / "results.duckdb"), read_only=True) as reader:
            write_part(new_attempt(tmp_path), "predictions", "a", table(["i"]))
            store.ingest()
            store.publish()
            assert reader.execute("SELECT count(*) FROM predictions").fetchone() == (0,)
        assert published_ids(tmp_path) == ["r:i"]


@pytest.mark.parametrize("published", [True, False])
def test_a_killed_run_loses_nothing_and_its_working_copy_counts_for_nothing(tmp_path: Path, published: bool) -> None:
    code = (
        "import os\nfrom pathlib import Path\nfrom cnnsens_bench.store import new_attempt, write_part, writing\n"
        "from tests.store.test_ingest import table\n"
        f"output = Path({str(tmp_path)!r})\n"
        "with writing(output) as store:\n"
        "    store.begin_run('r', 'test', 'p', {}, {})\n"
        "    write_part(new_attempt(output), 'predictions', 'a', table(['i']))\n"
        "    store.ingest()\n"
        f"    {'store.publish()' if published else ''}\n"
        "    write_part(new_attempt(output), 'predictions', 'b', table(['i', 'j']))\n"
        "    store.ingest()\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False)
    assert killed.returncode == -9
    copy = tmp_path / "work" / "results.duckdb"
    copy.write_bytes(copy.read_bytes()[:5000])  # as a full disk may leave it
    with writing(tmp_path) as store:
        begin_run(store)
        store.ingest()
    assert published_ids(tmp_path) == ["r:i", "r:j"]
    assert files_in(tmp_path) == ["results.duckdb"]


def test_an_output_of_an_earlier_version_goes_on_with_its_journal(tmp_path: Path) -> None:
    """A killed writer of an earlier version left rows in the journal beside the database."""
    old = Store(tmp_path / "old")
    old.open()
    begin_run(old)
    connection = duckdb.connect(str(old.path))
    connection.execute("SET checkpoint_threshold = '1TB'")
    connection.execute("INSERT INTO failures VALUES ('r', 'd', 'i', 'decode', 'bad')")
    output = tmp_path / "output"
    output.mkdir()
    for name in ("results.duckdb", "results.duckdb.wal"):
        shutil.copyfile(tmp_path / "old" / name, output / name)
    connection.close()
    with writing(output) as store:
        begin_run(store)
    assert files_in(output) == ["results.duckdb"]
    with reading(output / "results.duckdb") as read:
        assert read.query("SELECT image_id FROM failures")["image_id"].tolist() == ["i"]


def full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_disk_that_fills_while_it_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[str] = []
    monkeypatch.setattr(publish_module, "EVERY", 0.0)
    monkeypatch.setattr(publish_module, "SHARE", 1e9)
    with writing(tmp_path, report=reported.append) as store:
        begin_run(store)
        store.share()
        folder = new_attempt(tmp_path)
        part = write_part(folder, "predictions", "a", table(["i"]))
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "copyfile", full)
            store.share(folder)
            store.share(folder)
        assert len(reported) == 1  # said once
        assert f"{tmp_path / 'results.duckdb'} cannot be used now (No space left on device)" in reported[0]
        assert (published_ids(tmp_path), part.exists()) == ([], True)
        assert files_in(tmp_path)[-2:] == ["run.lock", "work/results.duckdb"]
        store.share(folder)
        assert (published_ids(tmp_path), part.exists()) == (["r:i"], False)


def test_who_loses_the_output_while_it_copies_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It removes no parts either."""
    with pytest.raises(UserError, match="was removed or replaced"), writing(tmp_path) as store:  # noqa: PT012
        begin_run(store)
        store.publish()
        folder = new_attempt(tmp_path)
        write_part(folder, "predictions", "a", table(["i"]))
        store.ingest(keep=folder)
        copy = shutil.copyfile

        def robbed(*paths: Path) -> Path:
            (tmp_path / "run.lock").unlink()
            return copy(*paths)

        monkeypatch.setattr(shutil, "copyfile", robbed)
        store.publish()
    assert published_ids(tmp_path) == []
    assert [name.rpartition("/")[2] for name in files_in(tmp_path)] == [
        "predictions-a.parquet", "results.duckdb", "results.duckdb",
    ]  # fmt: skip


def test_who_loses_the_output_while_it_uploads_removes_no_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 1.0)
    output = storage_path("memory://publication/robbed")
    send = storage.upload

    def robbed(file: Path, target: UPath) -> None:
        send(file, target)
        target.fs.pipe_file((target.parent / "run.lock").path, b'{"token": "another"}')

    with pytest.raises(UserError, match="took over when"), writing(output) as store:  # noqa: PT012
        begin_run(store)
        part = write_part(new_attempt(output), "predictions", "a", table(["i"]))
        store.ingest()
        monkeypatch.setattr(storage, "upload", robbed)
        store.publish()
    assert part.exists()


def test_a_disk_that_is_full_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (  # noqa: PT012
        monkeypatch.context() as patch,
        pytest.raises(StorageError, match="No space left"),
        writing(tmp_path) as store,
    ):
        begin_run(store)
        write_part(new_attempt(tmp_path), "predictions", "a", table(["i"]))
        store.ingest()
        patch.setattr(os, "replace", full)
    assert [name for name in files_in(tmp_path) if name.startswith("parts/")]
    with writing(tmp_path) as store:
        begin_run(store)
        store.ingest()
    assert published_ids(tmp_path) == ["r:i"]


def test_the_first_error_is_the_one_that_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[str] = []
    with (  # noqa: PT012
        monkeypatch.context() as patch,
        pytest.raises(KeyboardInterrupt),
        writing(tmp_path, report=reported.append) as store,
    ):
        begin_run(store)
        patch.setattr(os, "replace", full)
        raise KeyboardInterrupt
    assert "No space left" in reported[0]
    with writing(tmp_path):  # let in again
        pass


def test_an_output_that_vanishes(tmp_path: Path) -> None:
    output = tmp_path / "out"
    reported: list[str] = []
    with (  # noqa: PT012
        pytest.raises(StorageError, match="has vanished"),
        writing(output, report=reported.append) as store,
        publish_module.storage_errors(output),
    ):
        begin_run(store)
        folder = new_attempt(output)
        shutil.rmtree(output)
        write_part(folder, "predictions", "a", table(["i"]))
    assert len(reported) == 1


def test_what_is_no_database_is_no_working_copy(tmp_path: Path) -> None:
    (tmp_path / "results.duckdb").write_text("hello, I am a text file, " * 1000)
    with pytest.raises(UserError, match=r"results\.duckdb is not a DuckDB database"), writing(tmp_path):
        pass
    assert (tmp_path / "results.duckdb").read_text().startswith("hello")


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no database"), reading(tmp_path / "results.duckdb"):
        pass


def test_parts_written_again_under_another_name_are_taken_once(tmp_path: Path) -> None:
    """They repeat rows of their own batch, before and after those, and of each other."""
    with writing(tmp_path) as store:
        begin_run(store)
        folder = new_attempt(tmp_path)
        write_part(folder, "predictions", "z", table(["i", "j"]))
        write_part(folder, "predictions", "a-retry-g", table(["i"]))
        write_part(folder, "predictions", "b-retry", table(["j", "k"]))
        write_part(folder, "predictions", "c-retry", table(["k"]))
        assert store.ingest(keep=folder) == 4
        store.publish()
        write_part(folder, "predictions", "d-retry", table(["k", "l"]))
        store.ingest()
        assert store.query("SELECT sum(rows) AS n FROM parts")["n"][0] == 8
    assert published_ids(tmp_path) == ["r:i", "r:j", "r:k", "r:l"]


def test_the_database_of_a_run_leaves_memory_to_the_rest(tmp_path: Path) -> None:
    """By default DuckDB takes four fifths of the memory. What exceeds the limit goes to the working copy's disk."""
    with writing(tmp_path) as store:
        question = "SELECT current_setting('memory_limit') AS memory, current_setting('temp_directory') AS folder"
        (memory, folder), *_ = store.query(question).to_numpy().tolist()
        assert folder == str(tmp_path / "work" / "spilled")
        number, unit = memory.split()
        size = float(number) * {"MiB": 2**20, "GiB": 2**30, "TiB": 2**40}[unit]
        assert size == pytest.approx(0.2 * total_memory(), rel=0.1)
        store.settings["memory_limit"] = "100MiB"
        store.query("SELECT count(*) FROM (SELECT DISTINCT hash(i) || repeat('x', 40) FROM range(2000000) AS r(i))")
    assert files_in(tmp_path) == ["results.duckdb"]


def test_parts_at_a_uri_are_fetched_without_being_in_memory(tmp_path: Path) -> None:
    output = storage_path("memory://publication/large")
    names = [f"predictions-{i:02}.parquet" for i in range(20)]
    for name in names:
        output.fs.pipe_file((output / "parts" / "attempt" / name).path, name.encode() * 100_000)
    parts = PartFiles(output, tmp_path)
    tracemalloc.start()
    try:
        with parts.local_files("attempt", [*names, "predictions-gone.parquet"]) as files:
            most = tracemalloc.get_traced_memory()[1]
            assert [file.name for file in files] == names
            assert files[3].read_bytes() == names[3].encode() * 100_000
            total = sum(file.stat().st_size for file in files)
    finally:
        tracemalloc.stop()
    assert most < total / 4


def test_a_working_folder_that_cannot_be_removed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system keeps a deleted file that somebody has open. An old working copy must not be used."""
    with writing(tmp_path / "old") as store:
        store.begin_run("old", "test", "p", {}, {})
    work = tmp_path / "work"
    work.mkdir()
    (work / ".nfs0001").touch()
    shutil.copyfile(tmp_path / "old" / "results.duckdb", work / "results.duckdb")
    (work / "results.duckdb.wal").write_bytes(b"of another")
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    with writing(tmp_path) as store:
        begin_run(store)
    with reading(tmp_path / "results.duckdb") as read:
        assert read.query("SELECT run_id FROM runs")["run_id"].tolist() == ["r"]
    with writing(tmp_path):
        pass


def test_a_relative_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with writing(Path("out")) as store:
        begin_run(store)
        assert str(store.path) == "out/results.duckdb"
    assert files_in(tmp_path) == ["out/results.duckdb"]
