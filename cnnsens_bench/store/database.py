"""The one writer of `results.duckdb`.

Connections are short, so that readers can ask between two operations. While a run writes, `RunStore` (publication.py)
keeps the tables in a file of its own, and readers need not wait at all.
"""

import contextlib
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from cnnsens_bench.store import ingestion
from cnnsens_bench.store.inbox import Inbox
from cnnsens_bench.store.statements import statement_of
from cnnsens_bench.utils.errors import StorageError, UserError, first_line
from cnnsens_bench.utils.storage import StoragePath, require_writable

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
"""Raised when tables or columns change their meaning; see `Store.open`."""
DISK = (duckdb.IOException, duckdb.FatalException, duckdb.OutOfMemoryException)
"""What DuckDB raises on a full disk, and afterwards."""


class Store:
    """The database of one output. `open` must come first where it is written; it makes folder, tables and views.

    `path`: the file that readers know; `database`: the one that this store opens, which is the same but while a run
    writes, and where `path` is a URI. `settings`: DuckDB's, of each connection.
    """

    def __init__(self, output: StoragePath, database: Path | None = None) -> None:
        self.output = output
        self.path: StoragePath = output / "results.duckdb"
        self.database = database
        self.inbox = Inbox(output)
        self.changed = False
        self.settings: dict[str, Any] = {}
        self._taken: list[tuple[str, list[str]]] = []
        self._ended: set[str] = set()
        self._left: set[str] = set()

    def open(self) -> None:
        """Make the folder and the schema where they are missing.

        Raises `UserError` when the folder cannot be written, another process holds the database, the file is none,
        or was made by another version.
        """
        if "?" in str(self._file()):  # DuckDB takes what follows for options, and its log lands elsewhere
            raise UserError(f"the output folder {self.output} has a '?' in its name: choose another with output=…")
        writable(self.output)
        with self._connect() as connection:
            try:
                found = _version(connection)
                if found is None or found == SCHEMA_VERSION:
                    # One transaction: a run killed here leaves no half of a schema.
                    connection.begin()
                    connection.execute(statement_of("schema"), {"schema_version": SCHEMA_VERSION})
                    connection.execute(statement_of("views"))
                    connection.execute(statement_of("sensitivity"))
                    connection.commit()
            except duckdb.Error as error:
                raise UserError(
                    f"{self.path} cannot be used ({first_line(error)}): choose another output=<folder>"
                ) from None
        if found is not None and found != SCHEMA_VERSION:
            raise UserError(
                f"{self.path} has schema version {found}, this program writes {SCHEMA_VERSION}: "
                "choose another output=<folder>"
            )

    def begin_run(
        self, run_id: str, suite: str, protocol: str, config: dict[str, Any], environment: dict[str, Any]
    ) -> None:
        """A row of `runs` with status running; one that is there already goes on. To come before `ingest`, which leaves
        the parts of unknown runs alone."""
        values = {
            "run_id": run_id,
            "suite": suite,
            "schema_version": SCHEMA_VERSION,
            "protocol": protocol,
            "config": json.dumps(config, default=str),
            "environment": json.dumps(environment),
        }
        with self._connect() as connection:
            connection.execute(statement_of("begin_run"), values)
        self._left.clear()

    def finish_run(self, run_id: str, status: str, patience: float = 10) -> None:
        """`status`: done, incomplete or interrupted."""
        with self._connect(patience) as connection:
            connection.execute("UPDATE runs SET status = ?, finished_at = now() WHERE run_id = ?", [status, run_id])

    def clear_failures(self, run_id: str) -> None:
        """Forget the failures of a run that begins again: what fails still fails anew."""
        with self._connect() as connection:
            connection.execute("DELETE FROM failures WHERE run_id = ?", [run_id])

    def put_models(self, rows: pd.DataFrame) -> None:
        """Insert or replace rows of `models`, columns by name."""
        with self._connect(10) as connection:
            connection.register("rows", rows)
            connection.execute("INSERT OR REPLACE INTO models BY NAME SELECT * FROM rows")

    def put_images(self, rows: pd.DataFrame) -> None:
        """Insert or replace rows of `images`, columns by name."""
        with self._connect(10) as connection:
            connection.register("rows", rows)
            connection.execute("INSERT OR REPLACE INTO images BY NAME SELECT * FROM rows")

    def model_digests(self, model: str, dataset: str) -> dict[str, str]:
        """Defense → SHA-256 of the weights that the store's predictions of this model under it were made with."""
        with self._connect(10) as connection:
            return dict(
                connection.execute(statement_of("model_digests"), {"model": model, "dataset": dataset}).fetchall()
            )

    def has_predictions(self, protocol: str, dataset: str) -> bool:
        """Whether there is anything to resume from."""
        with self._connect(10) as connection:
            question = "SELECT 1 FROM protocol_predictions WHERE protocol = ? AND dataset = ? LIMIT 1"
            return connection.execute(question, [protocol, dataset]).fetchone() is not None

    def missing(self, protocol: str, dataset: str, image_ids: list[str], wanted: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of `image_ids` × `wanted` that the store has no predictions of.

        Parameters
        ----------
        protocol, dataset
            Whose predictions count.
        image_ids
            The images.
        wanted
            Columns model, defense, degradation, level and trial.
        """
        return self._missing("missing", protocol, dataset, image_ids, wanted)

    def missing_scores(self, protocol: str, dataset: str, image_ids: list[str], wanted: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of `image_ids` × `wanted` that the store has no scores of.

        Parameters
        ----------
        protocol, dataset
            Whose scores count.
        image_ids
            The images.
        wanted
            Columns model, defense, predictor, degradation and level. The level-free score has the predictor "", the
            degradation "none" and level 0.
        """
        return self._missing("missing_scores", protocol, dataset, image_ids, wanted)

    def _missing(
        self, statement: str, protocol: str, dataset: str, image_ids: list[str], wanted: pd.DataFrame
    ) -> pd.DataFrame:
        with self._connect(10) as connection:
            # The ids are typed, because an empty list has no type of its own.
            connection.register("wanted_images", pd.DataFrame({"image_id": pd.Series(image_ids, dtype="str")}))
            connection.register("wanted", wanted)
            return connection.execute(statement_of(statement), {"protocol": protocol, "dataset": dataset}).df()

    def query(self, sql: str, parameters: list[Any] | None = None) -> pd.DataFrame:
        """A question, read-only. Raises `UserError` where the database has not a view, macro or column that it asks."""
        with self._connect(10, read_only=True) as connection:
            try:
                return connection.execute(sql, parameters or []).df()
            except (duckdb.CatalogException, duckdb.BinderException) as error:
                raise UserError(
                    f"{self.path} was made by an earlier version ({first_line(error, 120)}): run its command again, "
                    "which brings it up to date"
                ) from None

    def ingest(
        self,
        on_progress: Callable[[int, int], None] | None = None,
        *,
        keep: StoragePath | None = None,
        patience: float = 0,
    ) -> int:
        """Bring every whole part into the tables, exactly once; gives the number of parts.

        The folders of ended attempts are removed with what is left in them; `keep` is the one still written to.
        A part that cannot be read is set aside as `<name>.corrupt`, with a warning. One of a run that the database does
        not know (it was lost, or an older one put in its place) stays where it is until that run begins again: only
        with the run's protocol can it be told what its rows repeat. `on_progress(done, all)` counts parts; `patience`:
        seconds to wait, for each batch, for a process that holds the database. Raises `StorageError`.
        """
        waiting = self.inbox.attempts()
        total, seen, brought = sum(map(len, waiting.values())), 0, 0
        for attempt, names in waiting.items():
            # A transaction never spans attempts: what two of them computed is found in the table, and kept once.
            for batch in ingestion.batches(names):
                brought += self._ingest_parts(attempt, batch, patience)
                seen += len(batch)
                if on_progress:
                    on_progress(seen, total)
            if keep is None or attempt != keep.name:
                self._ended.add(attempt)
                self._settle()
        return brought

    def _ingest_parts(self, attempt: str, names: list[str], patience: float) -> int:
        with self._connect(patience) as connection:
            question = "SELECT name FROM parts WHERE starts_with(name, ?)"
            known = {row[0] for row in connection.execute(question, [f"{attempt}/"]).fetchall()}
            known |= self._left
            fresh = [name for name in names if f"{attempt}/{name}" not in known]
            with self.inbox.at_hand(attempt, fresh) as new:
                try:
                    left = ingestion.insert(connection, new)
                except duckdb.Error:
                    # Looked for only now: the common case need not read every part twice.
                    whole = [file for file in new if not self.inbox.set_aside(attempt, file)]
                    if len(whole) == len(new):
                        raise  # the parts are good, so it is the disk or the memory
                    new = whole
                    left = ingestion.insert(connection, new)
        if left:
            logger.warning(
                "%d parts in %s are of runs that are not in the database: they wait until their command is given again",
                len(left),
                self.inbox.folder / attempt,
            )
        self._left |= left
        self._taken.append((attempt, [name for name in names if f"{attempt}/{name}" not in self._left]))
        self._settle()
        return len(new) - len(left)

    def _settle(self) -> None:
        """Remove the parts that were brought in, and the folders of ended attempts. Only after the commit: a crash
        between the two leaves parts that `parts` knows."""
        while self._taken:
            self.inbox.remove(*self._taken[0])
            del self._taken[0]
        while self._ended:
            self.inbox.close(self._ended.pop())

    def _file(self) -> Path:
        file = self.database or self.path
        assert isinstance(file, Path), "a URI's database is read through `reading`, written through `writing`"
        return file

    @contextlib.contextmanager
    def _connect(self, patience: float = 0, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """`patience`: seconds to wait for a process that holds the database."""
        until = time.monotonic() + patience
        while True:
            try:
                connection = duckdb.connect(str(self._file()), read_only=read_only, config=self.settings)
                break
            except duckdb.Error as error:
                if _is_held(error) and time.monotonic() < until:
                    time.sleep(0.2)
                    continue
                text = _open_error(self.path, error)
                # What a run had opened before is not what was asked for wrongly.
                disk = self.database is not None and isinstance(error, DISK) and "not a valid" not in str(error)
                raise (StorageError if disk else UserError)(text) from None
        self.changed = self.changed or not read_only
        try:
            yield connection
        except DISK as error:
            raise StorageError(f"{self.path} cannot be written now ({first_line(error)})") from error
        except (RuntimeError, duckdb.InterruptException) as error:
            # What DuckDB makes of the `KeyboardInterrupt` that a signal's handler raises during a query.
            if "interrupted" in str(error).lower():
                raise KeyboardInterrupt from error
            raise
        finally:
            connection.close()


def writable(output: StoragePath) -> None:
    """Make the folder. Raises `UserError` when it cannot be written; a URI has no folders, and is tried by its lock."""
    if isinstance(output, Path):
        require_writable(output, "the output folder", "output=…")


def _version(connection: duckdb.DuckDBPyConnection) -> int | None:
    """The schema version of a database; None: it is empty."""
    tables = {row[0] for row in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    row = None
    if "meta" in tables:
        row = connection.execute("SELECT schema_version FROM meta").fetchone()
    elif "runs" in tables:  # the first databases told it only there
        row = connection.execute("SELECT max(schema_version) FROM runs").fetchone()
    return row[0] if row else None


def _is_held(error: duckdb.Error) -> bool:
    return "conflicting lock" in str(error).lower() or "could not set lock" in str(error).lower()


def _open_error(path: StoragePath, error: duckdb.Error) -> str:
    text = str(error)
    if _is_held(error):
        holder = re.search(r"\(PID (\d+)\)", text)
        who = f"process {holder[1]}" if holder else "another process"
        return (
            f"{path} is held by {who}: close it there and run the same command again, or choose another output=<folder>"
        )
    if isinstance(error, duckdb.IOException) and "not a valid" in text:
        return f"{path} is not a DuckDB database: move it away, or choose another output=<folder>"
    return f"{path} cannot be opened ({first_line(error)}): choose another output=<folder>"
