"""One run at a time: locks of folders, leases of URIs."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from cnnsens_bench.store import lock as lock_module
from cnnsens_bench.store.lock import FileLock, Lease, lock
from cnnsens_bench.utils.errors import StorageError, UserError
from cnnsens_bench.utils.storage import StoragePath, storage_path
from tests.s3 import served

ROOT = Path(__file__).parents[2]


def test_a_folder_is_one_process_s(tmp_path: Path) -> None:
    held = lock(tmp_path)
    who = json.loads((tmp_path / "run.lock").read_text())
    assert who["pid"] == os.getpid()
    with pytest.raises(UserError) as caught:
        lock(tmp_path)
    assert f"{tmp_path} is being written by a run on {who['host']} (PID {os.getpid()}, since " in str(caught.value)
    held.release()
    assert not (tmp_path / "run.lock").exists()
    lock(tmp_path).release()


def test_a_lock_goes_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom cnnsens_bench.store.lock import lock\n"
        f"held = lock(Path({str(tmp_path)!r})); print('held', flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert holder.stdout
    holder.stdout.readline()
    with pytest.raises(UserError, match=rf"\(PID {holder.pid}, since"):
        lock(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    lock(tmp_path).release()


def test_a_lock_whose_file_is_another_s_is_lost(tmp_path: Path) -> None:
    held = lock(tmp_path)
    held.check()
    (tmp_path / "run.lock").unlink()
    other = lock(tmp_path)
    with pytest.raises(UserError, match=r"run\.lock was removed or replaced.*give the same command again"):
        held.check()
    held.release()
    other.check()
    assert json.loads((tmp_path / "run.lock").read_text())["pid"] == os.getpid()  # another's is left alone
    other.release()


def test_a_lock_that_the_file_system_took_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(*_: object) -> None:
        raise OSError(116, "Stale file handle")

    held = lock(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", stale)
        with pytest.raises(StorageError, match="Stale file handle"):
            held.check()
    held.release()


def test_many_at_once_and_one_gets_it(tmp_path: Path) -> None:
    """Threads lock and release the output as fast as they can; never do two hold it at a time."""
    inside, most, wins = [0], [0], [0]
    guard = threading.Lock()

    def contend() -> None:
        tries, own = 0, 0
        while tries < 150 or own < 2:  # on a busy machine all 150 may fall while another thread sleeps with the lock
            tries += 1
            try:
                held = FileLock(tmp_path)
            except UserError:
                continue
            own += 1
            with guard:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                wins[0] += 1
            with guard:
                inside[0] -= 1
            held.release()

    threads = [threading.Thread(target=contend) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert wins[0] > 6


@pytest.fixture
def somewhere(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> UPath:
    monkeypatch.setattr(lock_module, "BEAT", 0.1)
    monkeypatch.setattr(lock_module, "STALE", 1.0)
    name = "".join(c if c.isalnum() else "_" for c in request.node.name)  # brackets would be a pattern
    found = storage_path(f"memory://leases/{name}")
    assert isinstance(found, UPath)
    return found


def stored_plan(output: StoragePath) -> dict[str, Any]:
    return json.loads((output / "run.lock").read_text())


def put(output: UPath, **values: object) -> None:
    lease = {"token": "t", "host": "far", "pid": 7, "since": "noon", "machine": "m", "beat": time.time(), **values}
    output.fs.pipe_file((output / "run.lock").path, json.dumps(lease).encode())


def test_a_lease_is_renewed_and_given_back(somewhere: UPath) -> None:
    held = lock(somewhere)
    first = stored_plan(somewhere)
    time.sleep(0.4)
    held.check()
    assert stored_plan(somewhere)["beat"] > first["beat"]
    with pytest.raises(UserError, match=r"is being written by a run on .* \(PID"):
        lock(somewhere)
    held.release()
    assert not (somewhere / "run.lock").exists()
    time.sleep(0.2)
    assert not (somewhere / "run.lock").exists()
    lock(somewhere).release()


def test_a_lease_that_nobody_renews_is_taken_over_after_a_wait(somewhere: UPath) -> None:
    put(somewhere)  # of another machine
    reported: list[str] = []
    began = time.monotonic()
    held = lock(somewhere, reported.append)
    assert time.monotonic() - began >= 1
    assert len(reported) == 1
    assert "names a run on far (PID 7, since noon): waiting" in reported[0]
    assert stored_plan(somewhere)["pid"] == os.getpid()
    held.release()


@pytest.mark.parametrize("why", ["dead", "old"])
def test_a_lease_that_cannot_be_alive_is_taken_over_at_once(
    why: str, somewhere: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "STALE", 60.0)
    gone = subprocess.Popen(["true"])
    gone.wait()
    dead = {"machine": lock_module._machine(), "pid": gone.pid}
    put(somewhere, **(dead if why == "dead" else {"beat": time.time() - 700}))
    began = time.monotonic()
    lock(somewhere).release()
    assert time.monotonic() - began < 30


def test_a_run_whose_lease_was_taken_over_ends(somewhere: UPath) -> None:
    held = lock(somewhere)
    put(somewhere)
    time.sleep(0.4)
    with pytest.raises(UserError, match=r"by a run on far \(PID 7.*took over when this run could not reach"):
        held.check()
    held.release()
    assert stored_plan(somewhere)["pid"] == 7  # another's is left alone


@pytest.mark.parametrize("exists", [True, False])
def test_a_lease_is_asked_for_however_short_ago_it_was_renewed(
    exists: bool, somewhere: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that slept does not know what others did meanwhile: a run that took over may have ended since."""
    monkeypatch.setattr(lock_module, "BEAT", 2.0)
    monkeypatch.setattr(lock_module, "STALE", 60.0)
    held = lock(somewhere)
    put(somewhere)
    if not exists:
        (somewhere / "run.lock").unlink()
    with pytest.raises(UserError, match="took over when" if exists else "run.lock was removed or replaced"):
        held.check()
    held.release()
    assert (somewhere / "run.lock").exists() == exists


@pytest.mark.parametrize("able", [True, False])
def test_of_two_that_find_no_lease_one_takes_it(able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once where the storage can make a file that must be new; else who wrote last has it."""
    monkeypatch.setattr(lock_module, "BEAT", 60.0)  # the first does not renew its lease while the second writes its own
    with served():
        output = storage_path("s3://bench/runs/two")
        assert isinstance(output, UPath)
        pipe = type(output.fs).pipe_file

        def unable(self: Any, path: str, data: bytes, mode: str = "overwrite") -> None:
            if mode == "create":
                raise NotImplementedError
            pipe(self, path, data)

        if not able:
            monkeypatch.setattr(type(output.fs), "pipe_file", unable)
        monkeypatch.setattr(Lease, "_await", lambda *_: False)  # both looked before either wrote
        first = lock(output)
        if able:
            with pytest.raises(UserError, match=rf"written by a run on .*\(PID {os.getpid()}"):
                lock(output)
            first.check()
        else:
            second = Lease.__new__(Lease)
            second.output, second.path, second.me = output, output / lock_module.NAME, {"token": "other"}
            monkeypatch.setattr(second, "_read", lambda: None)  # it sees none: the first has not written yet either
            second._take(False)
            monkeypatch.undo()
            with pytest.raises(UserError, match="took over when"):
                first.check()
        first.release()


def test_of_two_that_take_a_stale_lease_together_one_remains(somewhere: UPath) -> None:
    put(somewhere, beat=0)
    results: list[object] = []

    def take() -> None:
        try:
            results.append(lock(somewhere))
        except UserError as error:
            results.append(error)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = [result for result in results if isinstance(result, Lease)]
    assert len(held) == 1
    held[0].check()
    held[0].release()


def test_an_output_that_cannot_be_reached(somewhere: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise ConnectionError("nobody listens")

    held = lock(somewhere)
    with monkeypatch.context() as patch:
        patch.setattr(type(somewhere.fs), "cat_file", gone)
        with pytest.raises(UserError, match=r"the output memory://.* cannot be written: .*nobody listens"):
            lock(somewhere)
        time.sleep(0.7)
        with pytest.raises(StorageError, match="nobody listens"):
            held.check()
    held.check()  # reached again, and still its own
    held.release()


def test_a_damaged_lease_counts_for_nothing(somewhere: UPath) -> None:
    somewhere.fs.pipe_file((somewhere / "run.lock").path, b"{half")
    lock(somewhere).release()
