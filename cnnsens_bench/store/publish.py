"""The database while a run writes: a working copy for the writer, and the last published one for everybody else.

DuckDB locks the file that a process writes to. So a run writes to `<output>/work/results.duckdb` (of a URI: in a folder
of this machine), and from time to time puts a copy in the place of `<output>/results.duckdb`, at once and whole. At its
end the working copy itself is moved there. Parts are removed only when what is published has them: the working copy may
be lost at any time, and the next run goes on from what is published and the parts.
"""

import contextlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cnnsens_bench.store.database import Store, writable
from cnnsens_bench.store.inbox import Inbox
from cnnsens_bench.store.lock import FileLock, Lease, lock
from cnnsens_bench.utils.errors import StorageError, UserError, cause_of
from cnnsens_bench.utils.memory import STORE_SHARE, total_memory
from cnnsens_bench.utils.storage import StoragePath, download, local_folder, storing, upload

EVERY = 60.0
"""Seconds between two publications, at least. Asked for each time, so that whoever tests kills can lower it."""
SHARE = 0.05
"""Of a run's time that they may take: large databases are published less often."""

Tell = Callable[[str], None]


@contextlib.contextmanager
def writing(output: StoragePath, cache: str | Path | None = None, tell: Tell = lambda _: None) -> Iterator["RunStore"]:
    """The opened store of an output that this process alone writes; what it holds at the end is published.

    `cache`: where the working copy of a URI's database lies (default: the user's cache folder); `tell`: hears one
    sentence of what went wrong and is tried again, or of a wait. Raises `UserError` when another run writes there, or
    as `Store.open`, and `StorageError` when what the run made cannot be published: the parts keep it.
    """
    writable(output)
    held = lock(output, tell)
    try:
        store = RunStore(output, local_folder(output, cache) / "work", held, tell)
        try:
            store.begin()
        except BaseException:
            shutil.rmtree(store.folder, ignore_errors=True)
            raise
        try:
            yield store
        except BaseException:
            try:
                store.end()
            except (StorageError, UserError) as error:  # the first error is the one to tell
                tell(f"warning: {error}: what is not published yet is kept in the parts")
            raise
        store.end()
    finally:
        held.release()


@contextlib.contextmanager
def holding(output: StoragePath, tell: Tell = lambda _: None) -> Iterator[None]:
    """Keep other runs out of an output, whose database is not written. Raises `UserError`."""
    writable(output)
    held = lock(output, tell)
    try:
        yield
    finally:
        held.release()


@contextlib.contextmanager
def reading(database: StoragePath) -> Iterator[Store]:
    """A store to ask. A URI's database is fetched into a temporary file. Raises `UserError` where there is none."""
    with local_copy(database) as file:
        store = Store(database.parent, file)
        store.path = database
        yield store


@contextlib.contextmanager
def local_copy(database: StoragePath) -> Iterator[Path]:
    """A file of this machine with a database's content: itself, or a temporary one. Raises `UserError`."""
    absent = f"there is no database {database}: a run prints the path of its own"
    if isinstance(database, Path):
        if not database.is_file():
            raise UserError(absent)
        yield database
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "results.duckdb")
        try:
            download(database, file)
        except FileNotFoundError:
            raise UserError(absent) from None
        except StorageError as error:
            raise UserError(f"the database {error}") from None
        yield file


class RunStore(Store):
    """The store of a run, between `begin` and `end`. `path` is what readers see, `database` the working copy."""

    def __init__(self, output: StoragePath, folder: Path, held: FileLock | Lease, tell: Tell = lambda _: None) -> None:
        super().__init__(output, folder / "results.duckdb")
        self.folder, self.held, self.tell = folder, held, tell
        self.inbox = Inbox(output, folder)
        # What does not fit goes beside the working copy, where the disk must have room anyway.
        self.settings = {
            "memory_limit": f"{total_memory() * STORE_SHARE / 2**20:.0f}MiB",
            "temp_directory": str(folder.absolute() / "spilled"),
        }
        self._shared, self._cost, self._complaint = time.monotonic(), 0.0, ""
        self._unknown = False  # whether a run has begun that the published database does not know

    def begin(self) -> None:
        """The published database into the working copy; its schema. Raises `UserError`, `StorageError`."""
        assert self.database is not None
        began = time.monotonic()
        with storing(self.output):
            shutil.rmtree(self.folder, ignore_errors=True)
            # What a network file system still holds for somebody stays, but nothing that would be opened.
            self.folder.mkdir(parents=True, exist_ok=True)
            for file in (self.database, _journal(self.database)):
                file.unlink(missing_ok=True)
            if isinstance(self.output, Path):
                for left in self.output.glob(".results.*.partial"):
                    left.unlink()
        there = self._fetch()
        self.open()
        self.changed = not there
        # What there is not yet is published as soon as there is something to say.
        self._shared = time.monotonic() if there else float("-inf")
        self._cost = time.monotonic() - began

    def begin_run(
        self, run_id: str, suite: str, protocol: str, config: dict[str, Any], environment: dict[str, Any]
    ) -> None:
        """As of every store. `share` publishes it before the run's workers write: their parts may outlive us."""
        self._unknown |= self.query("SELECT 1 FROM runs WHERE run_id = ?", [run_id]).empty
        super().begin_run(run_id, suite, protocol, config, environment)

    def share(self, keep: StoragePath | None = None, begins: bool = False) -> None:
        """Bring in what workers have written and publish it, if it is time to; `keep` as of `ingest`. `begins`: it is
        time where the published database has not all runs that have begun.

        What goes wrong with the storage is told, and tried again the next time. Raises `UserError` when another run
        took the output over.
        """
        began = time.monotonic()
        due = begins and self._unknown
        if not due and began - self._shared < max(EVERY, self._cost / SHARE):
            return
        try:
            self.ingest(keep=keep)
            if self.changed:
                self.publish()
            self._complaint = ""
        except StorageError as error:
            if str(error) != self._complaint:
                self.tell(f"warning: {error}: the run goes on, and tries again to publish its results")
                self._complaint = str(error)
        self._shared = time.monotonic()
        self._cost = self._shared - began

    def publish(self) -> None:
        """Put a copy of the working copy where readers look, whole. Raises `StorageError`; `UserError` as `share`."""
        assert self.database is not None
        self._whole()
        if isinstance(self.path, Path):
            partial = self.path.with_name(f".results.{uuid.uuid4().hex[:12]}.partial")
            try:
                with storing(self.path):
                    shutil.copyfile(self.database, partial)
                    _to_disk(partial)
                    self._replace(partial)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        else:
            upload(self.database, self.path)
        self._published()

    def end(self) -> None:
        """Publish what is new, and remove the working copy. Raises as `publish`."""
        assert self.database is not None
        if self.changed:
            if isinstance(self.path, Path):  # the working copy lies beside it
                self._whole()
                with storing(self.path):
                    self._replace(self.database)
                self.database = None
                self._published()
            else:
                self.publish()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _whole(self) -> None:
        """All that was committed into the one file."""
        self.held.check()
        with self._connect() as connection:
            connection.execute("CHECKPOINT")

    def _replace(self, file: Path) -> None:
        assert isinstance(self.path, Path)
        self.held.check()  # a large copy takes a while
        # The journal of a writer before us, which `_fetch` copied: it does not belong to the new file.
        _journal(self.path).unlink(missing_ok=True)
        os.replace(file, self.path)
        _to_disk(self.path.parent)

    def _published(self) -> None:
        self.held.check()  # before parts go: whoever took over while we copied has not all of their rows
        self.changed = False
        self._unknown = False
        super()._settle()

    def _settle(self) -> None:
        """Not yet: only once they are published."""

    def _fetch(self) -> bool:
        """The published database, with what a killed writer of an earlier version left beside it; False: none."""
        assert self.database is not None
        partial = self.database.with_suffix(".partial")
        try:
            if isinstance(self.path, Path):
                with storing(self.path):
                    shutil.copyfile(self.path, partial)
                    if _journal(self.path).exists():
                        shutil.copyfile(_journal(self.path), _journal(self.database))
            else:
                download(self.path, partial)
        except FileNotFoundError:
            partial.unlink(missing_ok=True)
            return False
        os.replace(partial, self.database)
        return True


def _journal(database: Path) -> Path:
    return database.with_name(f"{database.name}.wal")


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def storage_errors(output: StoragePath) -> Iterator[None]:
    """An error of the body that comes from the output's storage, however wrapped by what carried it here, becomes the
    `StorageError` itself."""
    try:
        yield
    except Exception as error:
        found = cause_of(error, StorageError)
        if found is None and isinstance(output, Path) and not output.is_dir():
            found = StorageError(f"the output folder {output} has vanished")
        if found is None or found is error:
            raise
        raise StorageError(str(found)) from error
