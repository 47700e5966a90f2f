"""One run at a time in one output: a file lock in a folder, a lease with a heartbeat at a URI.

Either is `<output>/run.lock`, a JSON that says who writes. The lock of a file vanishes with its process. A lease is an
object that its holder renews; one that is renewed no more is taken over.
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

from cnnsens_bench.utils.errors import StorageError, UserError
from cnnsens_bench.utils.storage import StoragePath, storing, write_whole

NAME = "run.lock"
BEAT = 10.0
"""Seconds between two renewals of a lease."""
STALE = 60.0
"""Seconds without one after which its holder counts as dead."""
SKEW = 600.0
"""Seconds that clocks of two machines may differ by: a lease older than that is stale at once."""
UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)

_mine: set[str] = set()
"""Tokens of the leases that this process holds."""

Tell = Callable[[str], None]


def lock(output: StoragePath, tell: Tell = lambda _: None) -> "FileLock | Lease":
    """Take the output for this process, until `release`. `tell`: what hears of a wait.

    Raises `UserError` at once where another run holds it (a lease: as soon as it is renewed), or when the output
    cannot be written.
    """
    if isinstance(output, Path):
        try:
            return FileLock(output)
        except OSError as error:
            if error.errno not in UNSUPPORTED:  # some network file systems have no locks: a lease needs none
                raise UserError(
                    f"the output folder {output} cannot be written ({error.strerror}): choose another with output=…"
                ) from None
        return Lease(output, tell)
    try:
        return Lease(output, tell)
    except (StorageError, FileNotFoundError) as error:
        raise UserError(f"the output {output} cannot be written: {error}") from None


class FileLock:
    """Of an output folder. Raises `UserError` where another process holds it, `OSError` where there can be none."""

    def __init__(self, output: Path) -> None:
        self.path = output / NAME
        while True:
            file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+", encoding="utf-8")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(_refusal(output, _read(file))) from None
            except BaseException:
                file.close()
                raise
            if _is(self.path, file):
                break
            file.close()  # its holder removed it between our two calls
        file.truncate(0)
        self._content = json.dumps(_who()).encode()
        self._file: TextIO = file
        self._write()

    def check(self) -> None:
        """Raises `UserError` when the file is no longer the one that is locked, `StorageError` when it cannot be
        written: a network file system takes a lock away from a machine that it has not seen for a while."""
        with storing(self.path):
            if not _is(self.path, self._file):
                raise UserError(_removed(self.path))
            self._write()

    def _write(self) -> None:
        os.pwrite(self._file.fileno(), self._content, 0)
        os.fsync(self._file.fileno())

    def release(self) -> None:
        """Let others in. While the lock is still held, so that nobody locks a file that is gone."""
        if not self._file.closed:
            with contextlib.suppress(OSError):  # of a network file system: what the run has to say comes first
                if _is(self.path, self._file):
                    self.path.unlink(missing_ok=True)
            fcntl.flock(self._file, fcntl.LOCK_UN)  # children that were forked hold the file too
            self._file.close()


class Lease:
    """Of an output at a URI: an object that a thread renews. Raises `UserError`, `StorageError`."""

    def __init__(self, output: StoragePath, tell: Tell = lambda _: None) -> None:
        self.output, self.path = output, output / NAME
        self.me = {**_who(), "token": uuid.uuid4().hex}
        _mine.add(str(self.me["token"]))
        self._stop = threading.Event()
        self.taken_by: dict[str, Any] | None = None
        try:
            self._take(self._await(tell))
            time.sleep(min(1.0, BEAT / 5))  # another that saw the same stale lease has written by now
            self._renew()
            self.check()
        except BaseException:
            _mine.discard(str(self.me["token"]))
            raise
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lease")
        self._thread.start()

    def check(self) -> None:
        """Raises `UserError` when another run took the output over, `StorageError` when nobody can tell.

        Asks the storage each time: this machine may have slept, and no clock of its own tells what others did then.
        """
        self._ours()
        if self.taken_by == {}:
            raise UserError(_removed(self.path))
        if self.taken_by is not None:
            raise UserError(
                f"{_refusal(self.output, self.taken_by)}; it took over when this run could not reach the output"
            )

    def release(self) -> None:
        """Let others in."""
        self._stop.set()
        self._thread.join(timeout=5)
        _mine.discard(str(self.me["token"]))
        with contextlib.suppress(StorageError, FileNotFoundError):
            if (self._read() or {}).get("token") == self.me["token"]:
                with storing(self.path):
                    self.path.unlink()

    def _await(self, tell: Tell) -> bool:
        """Until there is no lease of a run that lives; gives whether there is one of another, or something damaged."""
        seen = self._read()
        since, told = _now(), False
        while seen and not _dead(seen):
            if _now() - since > STALE:
                break
            if not told and _now() - since > BEAT / 5:
                tell(f"{self.path} names a run on {_name(seen)}: waiting up to {STALE:.0f} s for a sign of its life")
                told = True
            time.sleep(BEAT / 10)
            found = self._read()
            if found and (found["token"], found["beat"]) != (seen["token"], seen["beat"]):
                raise UserError(_refusal(self.output, found))
            seen = found
        return seen is not None

    def _take(self, there: bool) -> None:
        """Write the lease: where there is none, only if nobody else does so at the same moment."""
        if not there and not isinstance(self.path, Path):
            try:
                self.path.fs.pipe_file(self.path.path, self._content(), mode="create")
                return
            except Exception:  # another was faster, or the storage knows no such thing: each library tells it its way
                found = self._read()
            if found and found["token"] != self.me["token"]:
                raise UserError(_refusal(self.output, found))
        self._write()

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            # What cannot be reached now is tried again; `check` tells when it matters.
            with contextlib.suppress(StorageError, FileNotFoundError):
                self._renew()

    def _ours(self) -> bool:
        """Whether the lease is still this run's; once it was not, it never is. Absent, it may have been another's who
        has ended since."""
        if self.taken_by is None:
            found = self._read() or {}
            if found.get("token") != self.me["token"]:
                self.taken_by = found
                self._stop.set()
        return self.taken_by is None

    def _renew(self) -> None:
        asked = _now()
        if self._ours() and _now() - asked < STALE / 2:  # else the answer is old, and the next beat asks again
            self._write()

    def _write(self) -> None:
        write_whole(self.path, self._content())

    def _content(self) -> bytes:
        return json.dumps({**self.me, "beat": time.time()}).encode()

    def _read(self) -> dict[str, Any] | None:
        """The lease that is there; empty: it is damaged; None: there is none."""
        with storing(self.path):
            try:
                data = self.path.read_bytes() if isinstance(self.path, Path) else self.path.fs.cat_file(self.path.path)
            except FileNotFoundError:
                return None
        try:
            found = json.loads(data)
            return {"token": "", "beat": 0.0, **found}
        except (ValueError, TypeError):
            return {}


def _now() -> float:
    """Seconds that go on while the machine sleeps, where the system counts them."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _dead(lease: dict[str, Any]) -> bool:
    """Whether its holder cannot be alive: a process of this machine that is gone, or a beat of long ago."""
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


def _who() -> dict[str, Any]:
    return {
        "host": platform.node(),
        "pid": os.getpid(),
        "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "machine": _machine(),
    }


def _machine() -> str:
    """What a process number is unique in: this start of this machine, and the container."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return f"{platform.node()} {uuid.getnode()}"


def _read(file: TextIO) -> dict[str, Any]:
    with file:
        try:
            file.seek(0)
            found = json.loads(file.read())
            return found if isinstance(found, dict) else {}
        except ValueError:  # its holder is just writing it
            return {}


def _is(path: Path, file: TextIO) -> bool:
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
