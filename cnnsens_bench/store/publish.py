"""The database while a run writes: a working copy for the writer, and the last published one for everybody else.

DuckDB locks the file that a process writes to. So a run writes to `<output>/work/results.duckdb` (for a URI: to a file
of this machine), and from time to time replaces `<output>/results.duckdb` by a whole copy. When the run ends, the
working copy itself is moved there. Parts are removed only when the published database has their rows: the working copy
may be lost at any time, and the next run goes on from the published database and the parts.
"""

import contextlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cnnsens_bench.store.connection import require_openable
from cnnsens_bench.store.database import IngestedParts, Store, require_output
from cnnsens_bench.store.lock import FileLock, Lease, Report, lock
from cnnsens_bench.store.parts import PartFiles
from cnnsens_bench.utils import storage
from cnnsens_bench.utils.errors import StorageError, UserError, cause_of
from cnnsens_bench.utils.memory import STORE_SHARE, total_memory
from cnnsens_bench.utils.storage import StoragePath, is_local

EVERY = 60.0
"""Least seconds between two publications. It is read each time, so that tests of kills can lower it."""
SHARE = 0.05
"""Largest share of a run's time that publications may take: large databases are published less often."""


@contextlib.contextmanager
def writing(
    output: StoragePath, cache: str | Path | None = None, report: Report = lambda _: None
) -> Iterator["RunStore"]:
    """Give the open store of an output that this process alone writes, and publish it at the end.

    Parameters
    ----------
    output
        The output of a run: a folder or a URI.
    cache
        The folder for the working copy of a URI's database. The default is the user's cache folder.
    report
        Gets a sentence about each wait, and about each error after which the run goes on.

    Raises
    ------
    UserError
        Where another run writes to the output, or as `Store.open`.
    StorageError
        Where the results cannot be published; the parts keep them.
    """
    with holding(output, report) as held:
        store = RunStore(output, storage.local_folder(output, cache) / "work", held, report)
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
            except (StorageError, UserError) as error:  # the error of the body is the one to raise
                report(f"warning: {error}: what is not published yet is kept in the parts")
            raise
        store.end()


@contextlib.contextmanager
def holding(output: StoragePath, report: Report = lambda _: None) -> Iterator[FileLock | Lease]:
    """Keep other runs out of an output, and give its lock. Raise `UserError` as `writing`."""
    require_output(output)
    held = lock(output, report)
    try:
        yield held
    finally:
        held.release()


@contextlib.contextmanager
def reading(database: StoragePath) -> Iterator[Store]:
    """Give a store to ask a database, of which a URI's is fetched into a temporary file. Raise `UserError`."""
    with local_copy(database) as file:
        yield Store(database.parent, file, database)


def database_file(path: StoragePath) -> StoragePath:
    """Return the database that a path means: itself where it ends with `.duckdb`, else that of the output folder."""
    return path if path.suffix == ".duckdb" else path / "results.duckdb"


@contextlib.contextmanager
def local_copy(database: StoragePath) -> Iterator[Path]:
    """Give a file of this machine with the content of a database: the database itself, or a URI's temporary copy.

    Raises
    ------
    UserError
        Where there is no such database, or it cannot be fetched or opened.
    """
    absent = f"there is no database {database}: a run prints the path of its own"
    if is_local(database):
        if not database.is_file():
            raise UserError(absent)
        require_openable(database)
        yield database
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "results.duckdb")
        try:
            storage.download(database, file)
        except FileNotFoundError:
            raise UserError(absent) from None
        except StorageError as error:
            raise UserError(f"the database {error}") from None
        yield file


class RunStore(Store):
    """The store of a run, between `begin` and `end`. Readers see the file `path`; `database` is the working copy.

    Parameters
    ----------
    output
        The output of the run.
    folder
        The folder of this machine for the working copy.
    held
        The lock of the output.
    report
        As for `writing`.
    """

    def __init__(self, output: StoragePath, folder: Path, held: FileLock | Lease, report: Report) -> None:
        self.working_copy = folder / "results.duckdb"
        super().__init__(output, self.working_copy)
        self.folder, self.held, self.report = folder, held, report
        self.parts = PartFiles(output, folder)
        # What does not fit into memory goes beside the working copy, whose disk must have room anyway.
        self.settings = {
            "memory_limit": f"{total_memory() * STORE_SHARE / 2**20:.0f}MiB",
            "temp_directory": str(folder.absolute() / "spilled"),
        }
        self._published_at, self._cost, self._last_warning = time.monotonic(), 0.0, ""
        self._has_unpublished_run = False
        # Parts are removed when the published database has their rows.
        self._removable: list[IngestedParts] = []
        self._discard = self._removable.append

    def begin(self) -> None:
        """Copy the published database to the working copy, and make its schema. Raise `UserError` or `StorageError`."""
        began = time.monotonic()
        with storage.storing(self.output):
            shutil.rmtree(self.folder, ignore_errors=True)
            # A network file system may keep files that somebody has open, but no file that would be opened here.
            self.folder.mkdir(parents=True, exist_ok=True)
            storage.remove_files(self.folder, [self.working_copy.name, _journal(self.working_copy.name)])
            storage.remove_partial_files(self.output, ".results.*.partial")
        exists = self._fetch()
        self.open()
        self.changed = not exists
        # Where nothing is published yet, the first results are published at once.
        self._published_at = time.monotonic() if exists else float("-inf")
        self._cost = time.monotonic() - began

    def begin_run(
        self, run_id: str, suite: str, protocol: str, config: dict[str, Any], environment: dict[str, Any]
    ) -> None:
        """Insert a run as `Store.begin_run` does.

        `share` publishes it before the run's workers write parts: these may outlive this process.
        """
        self._has_unpublished_run |= self.query("SELECT 1 FROM runs WHERE run_id = ?", [run_id]).empty
        super().begin_run(run_id, suite, protocol, config, environment)

    def share(self, keep: StoragePath | None = None, begins: bool = False) -> None:
        """Ingest parts and publish the database, if it is time to.

        An error of the storage is reported, and the next call tries again.

        Parameters
        ----------
        keep
            As for `ingest`.
        begins
            Whether to do it at once where a run has begun that the published database does not know.

        Raises
        ------
        UserError
            Where another run has taken the output over.
        """
        began = time.monotonic()
        due = begins and self._has_unpublished_run
        if not due and began - self._published_at < max(EVERY, self._cost / SHARE):
            return
        try:
            self.ingest(keep=keep)
            if self.changed:
                self.publish()
            self._last_warning = ""
        except StorageError as error:
            if str(error) != self._last_warning:
                self.report(f"warning: {error}: the run goes on, and tries again to publish its results")
                self._last_warning = str(error)
        self._published_at = time.monotonic()
        self._cost = self._published_at - began

    def publish(self) -> None:
        """Replace the published database by a copy of the working copy, and remove the parts whose rows it has.

        Raises
        ------
        StorageError
            Where the output cannot be written.
        UserError
            Where another run has taken the output over.
        """
        self._replace_published(move=False)

    def end(self) -> None:
        """Publish what has changed, and remove the working copy. Raise as `publish`."""
        if self.changed:
            self._replace_published(move=True)
            self.database = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def _replace_published(self, move: bool) -> None:
        self.held.check()
        with self.connect() as connection:
            connection.execute("CHECKPOINT")  # all that was committed is now in the one file
        partial = f".results.{uuid.uuid4().hex[:12]}.partial"
        storage.replace_file(self.working_copy, self.path, move=move, partial=partial, before=self._before_replacing)
        self.held.check()  # a run that took over while we copied does not have the rows of all parts
        self.changed = False
        self._has_unpublished_run = False
        while self._removable:
            self._remove(self._removable[0])
            del self._removable[0]

    def _before_replacing(self) -> None:
        self.held.check()  # copying a large database takes a while
        # A killed writer of an earlier version may have left a journal, which `_fetch` has copied. It does not belong
        # to the file that comes.
        storage.remove_files(self.path.parent, [_journal(self.path.name)])

    def _fetch(self) -> bool:
        """Copy the published database and its journal, if there is one, and return whether there is a database."""
        partial = self.working_copy.with_suffix(".partial")
        journal = _journal(self.path.name)
        try:
            storage.download(self.path, partial)
        except FileNotFoundError:
            partial.unlink(missing_ok=True)
            return False
        with contextlib.suppress(FileNotFoundError):
            storage.download(self.path.with_name(journal), self.folder / journal)
        os.replace(partial, self.working_copy)
        return True


def _journal(database: str) -> str:
    return f"{database}.wal"


@contextlib.contextmanager
def storage_errors(output: StoragePath) -> Iterator[None]:
    """Raise a `StorageError` of the body as itself, however it was wrapped by what carried it here.

    Where the output's folder has vanished, every error of the body becomes the `StorageError` that says so.
    """
    try:
        yield
    except Exception as error:
        found = cause_of(error, StorageError)
        if found is None and is_local(output) and not output.is_dir():
            found = StorageError(f"the output folder {output} has vanished")
        if found is None or found is error:
            raise
        raise StorageError(str(found)) from error
