"""One run at a time in one output: a file lock in a folder, a lease with a heartbeat at a URI.

Both are `<output>/run.lock`, a JSON file that says which process writes. The lock of a file ends with its process. A
lease is a file that its holder renews; when it has not been renewed for a while, another run takes it over.
"""

import contextlib
import errno
import fcntl
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from cnnsens_bench.utils import storage
from cnnsens_bench.utils.errors import StorageError, UserError
from cnnsens_bench.utils.storage import StoragePath, is_local

NAME = "run.lock"
BEAT = 10.0
"""Seconds between two renewals of a lease."""
STALE = 60.0
"""Seconds without a renewal after which the holder of a lease counts as dead."""
SKEW = 600.0
"""Seconds by which the clocks of two machines may differ: a lease older than that is stale at once."""
UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)

_mine: set[str] = set()
"""Tokens of the leases that this process holds."""

Report = Callable[[str], None]
"""Takes one sentence for the user."""


def lock(output: StoragePath, report: Report = lambda _: None) -> "FileLock | Lease":
    """Reserve an output for this process, until `release`.

    Parameters
    ----------
    output
        The output of a run: a folder that exists, or a URI.
    report
        Gets a sentence when a lease must be waited for.

    Raises
    ------
    UserError
        Where another run writes to the output, or the output cannot be written. A lease is refused as soon as its
        holder renews it.
    """
    if is_local(output):
        try:
            return FileLock(output)
        except OSError as error:
            if error.errno not in UNSUPPORTED:  # a lease needs no locks, which some network file systems lack
                raise UserError(
                    f"the output folder {output} cannot be written ({error.strerror}): choose another with output=…"
                ) from None
        return Lease(output, report)
    try:
        return Lease(output, report)
    except (StorageError, FileNotFoundError) as error:
        raise UserError(f"the output {output} cannot be written: {error}") from None


class FileLock:
    """The lock of an output folder.

    Raises
    ------
    UserError
        Where another process holds it.
    OSError
        Where the file cannot be written, or the file system has no locks.
    """

    def __init__(self, output: Path) -> None:
        self.path = output / NAME
        while True:
            file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+", encoding="utf-8")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                with file:
                    raise UserError(_refusal(output, _parsed(os.pread(file.fileno(), 4096, 0)))) from None
            except BaseException:
                file.close()
                raise
            if _is_at(self.path, file):
                break
            file.close()  # its holder has removed it since we opened it
        file.truncate(0)
        self._content = json.dumps(_this_process()).encode()
        self._file: TextIO = file
        self._write()

    def check(self) -> None:
        """Check that this process still holds the lock.

        Raises
        ------
        UserError
            Where the file is no longer the one that was locked.
        StorageError
            Where it cannot be written: a network file system takes a lock away from a machine that it has not seen for
            a while.
        """
        with storage.storing(self.path):
            if not _is_at(self.path, self._file):
                raise UserError(_removed(self.path))
            self._write()

    def _write(self) -> None:
        os.pwrite(self._file.fileno(), self._content, 0)
        os.fsync(self._file.fileno())

    def release(self) -> None:
        """Remove the file and end the lock, in this order: otherwise another process could lock a file that is gone."""
        if not self._file.closed:
            with contextlib.suppress(OSError):  # of a network file system: it must not hide an error of the run
                if _is_at(self.path, self._file):
                    self.path.unlink(missing_ok=True)
            fcntl.flock(self._file, fcntl.LOCK_UN)  # closing is not enough: forked children have the file open too
            self._file.close()


class Lease:
    """The lock of an output at a URI: a file that a thread renews.

    Parameters
    ----------
    output
        The output of a run.
    report
        Gets a sentence when there is a lease of another run, which must be waited for.

    Raises
    ------
    UserError
        Where another run holds it.
    StorageError
        Where the output cannot be reached.
    """

    def __init__(self, output: StoragePath, report: Report = lambda _: None) -> None:
        self.output, self.path = output, output / NAME
        self.me = {**_this_process(), "token": uuid.uuid4().hex}
        _mine.add(str(self.me["token"]))
        self._stop = threading.Event()
        self.taken_by: dict[str, Any] | None = None
        try:
            self._take(self._await(report))
            time.sleep(min(1.0, BEAT / 5))  # another run that saw the same stale lease has written by now
            self._renew()
            self.check()
        except BaseException:
            _mine.discard(str(self.me["token"]))
            raise
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lease")
        self._thread.start()

    def check(self) -> None:
        """Check that this process still holds the lease.

        The storage is asked each time: this machine may have slept, and its clock does not say what others did then.

        Raises
        ------
        UserError
            Where another run has taken the output over.
        StorageError
            Where the output cannot be reached.
        """
        self._ours()
        if self.taken_by == {}:
            raise UserError(_removed(self.path))
        if self.taken_by is not None:
            raise UserError(
                f"{_refusal(self.output, self.taken_by)}; it took over when this run could not reach the output"
            )

    def release(self) -> None:
        """Remove the lease, if it is still this process's, and stop renewing it."""
        self._stop.set()
        self._thread.join(timeout=5)
        _mine.discard(str(self.me["token"]))
        with contextlib.suppress(StorageError, FileNotFoundError):
            if (self._read() or {}).get("token") == self.me["token"]:
                storage.remove_files(self.output, [NAME])

    def _await(self, report: Report) -> bool:
        """Wait until no lease is renewed any more, and return whether there is a stale or damaged one."""
        seen = self._read()
        since, reported = _now(), False
        while seen and not _dead(seen):
            if _now() - since > STALE:
                break
            if not reported and _now() - since > BEAT / 5:
                report(f"{self.path} names a run on {_name(seen)}: waiting up to {STALE:.0f} s for a sign of its life")
                reported = True
            time.sleep(BEAT / 10)
            found = self._read()
            if found and (found["token"], found["beat"]) != (seen["token"], seen["beat"]):
                raise UserError(_refusal(self.output, found))
            seen = found
        return seen is not None

    def _take(self, replaces: bool) -> None:
        """Write the lease. Where it replaces none, it is refused if another run has written one meanwhile."""
        if not replaces:
            try:
                storage.create_object(self.path, self._content())
                return
            except Exception:  # another run was faster, or the storage cannot do this: each library has its own errors
                found = self._read()
            if found and found["token"] != self.me["token"]:
                raise UserError(_refusal(self.output, found))
        self._write()

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            # Where the storage cannot be reached, the next beat tries again; `check` raises when it matters.
            with contextlib.suppress(StorageError, FileNotFoundError):
                self._renew()

    def _ours(self) -> bool:
        """Whether the lease is still this run's; once it was not, it never is again.

        A missing lease is not this run's: another run may have taken it over, and ended since.
        """
        if self.taken_by is None:
            found = self._read() or {}
            if found.get("token") != self.me["token"]:
                self.taken_by = found
                self._stop.set()
        return self.taken_by is None

    def _renew(self) -> None:
        asked = _now()
        if self._ours() and _now() - asked < STALE / 2:  # otherwise the answer is old, and the next beat asks again
            self._write()

    def _write(self) -> None:
        storage.write_whole(self.path, self._content())

    def _content(self) -> bytes:
        return json.dumps({**self.me, "beat": time.time()}).encode()

    def _read(self) -> dict[str, Any] | None:
        """Return the lease that is written, an empty one where it is damaged, or None where there is none."""
        try:
            found = _parsed(storage.read_file(self.path))
        except FileNotFoundError:
            return None
        return {"token": "", "beat": 0.0, **found} if found else {}


def _now() -> float:
    """Return seconds of a clock that goes on while the machine sleeps, where the system has one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _dead(lease: dict[str, Any]) -> bool:
    """Whether the holder cannot be alive: its process on this machine has ended, or it renewed the lease long ago."""
    if lease.get("machine") == _machine():
        if lease.get("pid") == os.getpid():
            return lease["token"] not in _mine
        try:
            os.kill(int(lease["pid"]), 0)
        except ProcessLookupError:
            return True
        except (OSError, ValueError, KeyError):
            pass
    return time.time() - float(lease["beat"]) > STALE + SKEW


def _this_process() -> dict[str, Any]:
    return {
        "host": platform.node(),
        "pid": os.getpid(),
        "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "machine": _machine(),
    }


def _machine() -> str:
    """Return what a process number is unique in: this boot of this machine, and the container."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return f"{platform.node()} {uuid.getnode()}"


def _parsed(content: bytes) -> dict[str, Any]:
    """Return what a lock says; nothing where it is damaged, or where its holder is writing it at this moment."""
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_at(path: Path, file: TextIO) -> bool:
    """Whether an open file is the one that the path names."""
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def _name(holder: dict[str, Any]) -> str:
    return f"{holder.get('host', 'another machine')} (PID {holder.get('pid', '?')}, since {holder.get('since', '?')})"


def _refusal(output: StoragePath, holder: dict[str, Any]) -> str:
    return (
        f"{output} is being written by a run on {_name(holder)}: wait until that has ended, or choose another "
        "output=<folder>"
    )


def _removed(path: StoragePath) -> str:
    return (
        f"{path} was removed or replaced, so that another run may write there: when none does, give the same command "
        "again, what was computed is kept"
    )
