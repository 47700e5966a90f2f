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

from cnnsens_bench.errors import StorageError, UserError
from cnnsens_bench.places import Place, storing, write_whole

NAME = "run.lock"
BEAT = 10.0
"""Seconds between two renewals of a lease."""
STALE = 60.0
"""Seconds without one after which its holder counts as dead."""
SKEW = 600.0
"""Seconds that clocks of two machines may differ by: a lease older than that is stale at once."""
UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)

Tell = Callable[[str], None]


def lock(output: Place, tell: Tell = lambda _: None) -> "FileLock | Lease":
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
            file = self.path.open("a+", encoding="utf-8")
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
        file.write(json.dumps(_who()))
        file.flush()
        self._file: TextIO = file

    def check(self) -> None:
        """Nobody takes a file lock away."""

    def release(self) -> None:
        """Let others in. While the lock is still held, so that nobody locks a file that is gone."""
        if not self._file.closed:
            self.path.unlink(missing_ok=True)
            fcntl.flock(self._file, fcntl.LOCK_UN)  # children that were forked hold the file too
            self._file.close()


class Lease:
    """Of an output at a URI: an object that a thread renews. Raises `UserError`, `StorageError`."""

    def __init__(self, output: Place, tell: Tell = lambda _: None) -> None:
        self.output, self.path = output, output / NAME
        self.me = {**_who(), "token": uuid.uuid4().hex}
        self._stop = threading.Event()
        self._renewed = 0.0
        self.taken_by: dict[str, Any] | None = None
        self._await(tell)
        self._write()
        time.sleep(min(1.0, BEAT / 5))  # another that saw the same stale lease has written by now
        self._renew()
        self.check()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lease")
        self._thread.start()

    def check(self) -> None:
        """Raises `UserError` when another run took the output over, `StorageError` when nobody can tell."""
        if self.taken_by is None and time.monotonic() - self._renewed > STALE / 2:
            self._renew()
        if self.taken_by is not None:
            raise UserError(
                f"{_refusal(self.output, self.taken_by)}; it took over when this run could not reach the output"
            )

    def release(self) -> None:
        """Let others in."""
        self._stop.set()
        self._thread.join(timeout=5)
        with contextlib.suppress(StorageError, FileNotFoundError):
            if self._read().get("token") == self.me["token"]:
                with storing(self.path):
                    self.path.unlink()

    def _await(self, tell: Tell) -> None:
        """Until there is no lease of a run that lives."""
        seen = self._read()
        since, told = time.monotonic(), False
        while seen and not _dead(seen):
            if time.monotonic() - since > STALE:
                return
            if not told and time.monotonic() - since > BEAT / 5:
                tell(f"{self.path} names a run on {_name(seen)}: waiting up to {STALE:.0f} s for a sign of its life")
                told = True
            time.sleep(BEAT / 10)
            found = self._read()
            if found and (found["token"], found["beat"]) != (seen["token"], seen["beat"]):
                raise UserError(_refusal(self.output, found))
            seen = found

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            # What cannot be reached now is tried again; `check` tells when it matters.
            with contextlib.suppress(StorageError, FileNotFoundError):
                self._renew()

    def _renew(self) -> None:
        found = self._read()
        if found and found.get("token") != self.me["token"]:
            self.taken_by = found
            self._stop.set()
            return
        self._write()

    def _write(self) -> None:
        write_whole(self.path, json.dumps({**self.me, "beat": time.time()}).encode())
        self._renewed = time.monotonic()

    def _read(self) -> dict[str, Any]:
        """The lease that is there; empty: none."""
        with storing(self.path):
            try:
                data = self.path.read_bytes() if isinstance(self.path, Path) else self.path.fs.cat_file(self.path.path)
            except FileNotFoundError:
                return {}
        try:
            found = json.loads(data)
            return {"token": "", "beat": 0.0, **found}
        except (ValueError, TypeError):
            return {}


def _dead(lease: dict[str, Any]) -> bool:
    """Whether its holder cannot be alive: a process of this machine that is gone, or a beat of long ago."""
    if lease.get("machine") == _machine() and lease.get("pid") != os.getpid():
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


def _refusal(output: Place, holder: dict[str, Any]) -> str:
    return (
        f"{output} is being written by a run on {_name(holder)}: wait until that has ended, or choose another "
        "output=<folder>"
    )
