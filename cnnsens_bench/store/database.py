"""The one writer of `results.duckdb`, and questions to it.

Connections are short, so that readers can ask between two operations. While a run writes, `RunStore` (publish.py) keeps
the tables in a file of its own, and readers need not wait at all.
"""

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from cnnsens_bench.store import ingestion
from cnnsens_bench.store.connection import DISK_ERRORS, file_name, is_foreign, is_held, opening_error, unopenable
from cnnsens_bench.store.parts import PartFiles
from cnnsens_bench.store.schema import SCHEMA_VERSION, SQL, add_missing_columns, create_tables, with_names
from cnnsens_bench.utils.errors import StorageError, UserError, first_line
from cnnsens_bench.utils.storage import StoragePath, is_local, require_writable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class IngestedParts:
    """Parts of an attempt that the database has and that can be removed; whether the attempt's folder can go too."""

    attempt: str
    names: list[str]
    new: int = 0
    """How many of them the database did not have before."""
    ended: bool = False


class Store:
    """The database of one output.

    Before it is written, `open` must make its folder, tables and views.

    Parameters
    ----------
    output
        The output of a run: a folder or a URI.
    database
        The file that this store opens. The default is `path`. It is another file while a run writes, and where the
        output is a URI.
    path
        The file that readers know. The default is `<output>/results.duckdb`.

    Attributes
    ----------
    settings
        DuckDB's settings, for each connection.
    changed
        Whether a connection has been open for writing.
    """

    def __init__(self, output: StoragePath, database: Path | None = None, path: StoragePath | None = None) -> None:
        self.output = output
        self.path = path or output / "results.duckdb"
        self.database = database
        self.parts = PartFiles(output)
        self.changed = False
        self.settings: dict[str, Any] = {}
        self._of_unknown_runs: set[str] = set()
        self._discard: Callable[[IngestedParts], None] = self._remove

    def open(self) -> None:
        """Make the folder and the schema where they are missing, and add columns that an older database lacks.

        Raises
        ------
        UserError
            Where the folder cannot be written, another process has the database open, the file is not a database, or
            its schema has another version.
        """
        if character := unopenable(self._file()):
            raise UserError(
                f"the output folder {self.output} has a '{character}' in its name: choose another with output=…"
            )
        require_output(self.output)
        with self.connect() as connection:
            try:
                found = _version(connection)
                if found is None or found == SCHEMA_VERSION:
                    # One transaction: a run that is killed here leaves no half of a schema.
                    connection.begin()
                    create_tables(connection)
                    add_missing_columns(connection)
                    for views in ("views", "image_views", "sensitivity_views"):
                        connection.execute(SQL[views])
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
        """Insert a run with the status `running`, or mark one that is there as running again.

        This comes before `ingest`, which leaves the parts of unknown runs alone.
        """
        values = {"run_id": run_id, "suite": suite, "schema_version": SCHEMA_VERSION, "protocol": protocol}
        values |= {"config": json.dumps(config, default=str), "environment": json.dumps(environment)}
        with self.connect() as connection:
            connection.execute(SQL["begin_run"], values)
        self._of_unknown_runs.clear()

    def check_protocol(self, run_id: str, protocol: str) -> None:
        """Raise `UserError` if a run of that id is there under another protocol, with which its rows would mix.

        A run's id does not depend on where its data set lies, so that data can move; the protocol knows the images.
        """
        with self.connect(10) as connection:
            found = connection.execute(SQL["run_protocol"], {"run_id": run_id}).fetchone()
        if found and found[0] != protocol:
            raise UserError(
                f"{self.path} has the run {run_id} with other images or classes: give this run an output=<folder> of "
                "its own"
            )

    def finish_run(self, run_id: str, status: str, patience: float = 10) -> None:
        """Set the status of a run (done, incomplete or interrupted) and the time when it ended."""
        with self.connect(patience) as connection:
            connection.execute(SQL["finish_run"], {"status": status, "run_id": run_id})

    def clear_failures(self, run_id: str) -> None:
        """Remove the failures of a run that begins again: what still fails will be recorded again."""
        with self.connect() as connection:
            connection.execute(SQL["clear_failures"], {"run_id": run_id})

    def put(self, table: str, rows: pd.DataFrame) -> None:
        """Insert or replace rows of `models` or `images`, columns by name."""
        with self.connect(10) as connection:
            connection.register("rows", rows)
            connection.execute(with_names("put_rows", table=[table]))

    def model_digests(self, model: str, dataset: str) -> dict[str, str]:
        """Return the SHA-256 of the weights with which a model made its stored predictions, by defense."""
        with self.connect(10) as connection:
            return dict(connection.execute(SQL["model_digests"], {"model": model, "dataset": dataset}).fetchall())

    def has_predictions(self, protocol: str, dataset: str) -> bool:
        """Return whether there is anything to resume from."""
        with self.connect(10) as connection:
            found = connection.execute(SQL["has_predictions"], {"protocol": protocol, "dataset": dataset}).fetchone()
            return bool(found and found[0])

    def rows_of(self, protocol: str, dataset: str) -> "ProtocolRows":
        """Return what answers a plan's questions about the rows under a protocol."""
        return ProtocolRows(self, protocol, dataset)

    def begun(self, protocol: str, dataset: str, image_ids: list[str]) -> set[str]:
        """Return those of the images of a data set that the store has any row of under a protocol."""
        with self.connect(10) as connection:
            connection.register("wanted_images", pd.DataFrame({"image_id": pd.Series(image_ids, dtype="str")}))
            found = connection.execute(SQL["begun"], {"protocol": protocol, "dataset": dataset}).fetchall()
            return {row[0] for row in found}

    def missing(self, protocol: str, dataset: str, image_ids: list[str], wanted: pd.DataFrame) -> pd.DataFrame:
        """Return those rows of `image_ids` × `wanted` that the store lacks under a protocol.

        Parameters
        ----------
        protocol, dataset
            The hash of the protocol, and the data set of the images.
        image_ids
            The images.
        wanted
            Rows of (model, defense, degradation, level, trial) ask for predictions, and rows of (model, defense,
            predictor, degradation, level) for scores. The level-free score has the predictor "", the degradation "none"
            and level 0.
        """
        statement = "missing_scores" if "predictor" in wanted else "missing"
        with self.connect(10) as connection:
            # The ids are typed, because an empty list has no type of its own.
            connection.register("wanted_images", pd.DataFrame({"image_id": pd.Series(image_ids, dtype="str")}))
            connection.register("wanted", wanted)
            return connection.execute(SQL[statement], {"protocol": protocol, "dataset": dataset}).df()

    def query(self, sql: str, parameters: list[Any] | None = None) -> pd.DataFrame:
        """Return the answer to a question in SQL; the database is opened to read only.

        Raises
        ------
        UserError
            Where the database lacks a view, macro or column that the question names.
        """
        with self.connect(10, read_only=True) as connection:
            try:
                return connection.execute(sql, parameters or []).df()
            except (duckdb.CatalogException, duckdb.BinderException) as error:
                raise UserError(
                    f"{self.path} was made by an earlier version ({first_line(error, 120)}): run its command again, "
                    "which brings it up to date"
                ) from None

    def ingest(self, keep: StoragePath | None = None, patience: float = 0) -> int:
        """Insert the rows of all whole parts into the tables, exactly once, and remove the parts.

        The folders of ended attempts are removed too. A part that cannot be read is set aside as `<name>.corrupt`, with
        a warning. A part of a run that the database does not know (the database was lost, or an older one was put in
        its place) stays until that run begins again: only the run's protocol says which stored rows it repeats.

        Parameters
        ----------
        keep
            The folder of the attempt that workers are still writing to.
        patience
            Seconds to wait, for each batch, while another process has the database open.

        Returns
        -------
        int
            The number of parts that the database did not have before.

        Raises
        ------
        StorageError
            Where the database cannot be written, or parts cannot be read or removed.
        """
        new = 0
        for attempt, names in self.parts.attempts().items():
            # A transaction never spans attempts: rows that two of them hold are found in the table, and kept once.
            for batch in ingestion.batches(names):
                ingested = self._insert_batch(attempt, batch, patience)
                self._discard(ingested)
                new += ingested.new
            if keep is None or attempt != keep.name:
                self._discard(IngestedParts(attempt, [], ended=True))
        return new

    def _insert_batch(self, attempt: str, names: list[str], patience: float) -> IngestedParts:
        with self.connect(patience) as connection:
            found = connection.execute(SQL["parts_of_attempt"], {"attempt": attempt}).fetchall()
            known = {row[0] for row in found} | self._of_unknown_runs
            fresh = [name for name in names if f"{attempt}/{name}" not in known]
            with self.parts.local_files(attempt, fresh) as new:
                try:
                    left = ingestion.insert(connection, new)
                except duckdb.Error:
                    # Damage is looked for only where inserting fails: usually every part is read once.
                    whole = [file for file in new if not self.parts.set_aside(attempt, file)]
                    if len(whole) == len(new):
                        raise  # the parts are good, so it is the disk or the memory
                    new = whole
                    left = ingestion.insert(connection, new)
        if left:
            logger.warning(
                "%d parts in %s are of runs that are not in the database: they wait until their command is given again",
                len(left),
                self.parts.folder / attempt,
            )
        self._of_unknown_runs |= left
        stored = [name for name in names if f"{attempt}/{name}" not in self._of_unknown_runs]
        return IngestedParts(attempt, stored, new=len(new) - len(left))

    def _remove(self, ingested: IngestedParts) -> None:
        self.parts.remove(ingested.attempt, ingested.names)
        if ingested.ended:
            self.parts.close(ingested.attempt)

    def _file(self) -> Path:
        file = self.database or self.path
        assert is_local(file), "a URI's database is read through `reading`, written through `writing`"
        return file

    @contextlib.contextmanager
    def connect(self, patience: float = 0, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the database for the body, and close it afterwards.

        Parameters
        ----------
        patience
            Seconds to wait while another process has the database open.
        read_only
            Whether the body only asks.

        Raises
        ------
        UserError
            Where the database cannot be opened.
        StorageError
            On a full disk.
        """
        until = time.monotonic() + patience
        while True:
            try:
                connection = duckdb.connect(file_name(self._file()), read_only=read_only, config=self.settings)
                break
            except duckdb.Error as error:
                if is_held(error) and time.monotonic() < until:
                    time.sleep(0.2)
                    continue
                # A run has opened its working copy before: then the user has asked for nothing wrong.
                disk = self.database is not None and isinstance(error, DISK_ERRORS) and not is_foreign(error)
                raise (StorageError if disk else UserError)(opening_error(self.path, error)) from None
        self.changed = self.changed or not read_only
        try:
            yield connection
        except DISK_ERRORS as error:
            raise StorageError(f"{self.path} cannot be written now ({first_line(error)})") from error
        except (RuntimeError, duckdb.InterruptException) as error:
            # DuckDB turns the `KeyboardInterrupt` that a signal's handler raises during a query into one of these.
            if "interrupted" in str(error).lower():
                raise KeyboardInterrupt from error
            raise
        finally:
            connection.close()


@dataclass(frozen=True)
class ProtocolRows:
    """The rows of a store under a protocol, of a data set's images; the methods are those of `Store`."""

    store: Store
    protocol: str
    dataset: str

    def missing(self, image_ids: list[str], wanted: pd.DataFrame) -> pd.DataFrame:
        return self.store.missing(self.protocol, self.dataset, image_ids, wanted)

    def begun(self, image_ids: list[str]) -> set[str]:
        return self.store.begun(self.protocol, self.dataset, image_ids)


def require_output(output: StoragePath) -> None:
    """Make the folder of an output. Raise `UserError` where it cannot be written; a URI is tried by its lock."""
    require_writable(output, "the output folder", "output=…")


def _version(connection: duckdb.DuckDBPyConnection) -> int | None:
    """Return the schema version of a database, or None where it is empty."""
    tables = {row[0] for row in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    for table in ("meta", "runs"):  # the first databases have the version in `runs` only
        if table in tables:
            return connection.execute("SELECT max(schema_version) FROM query_table(?)", [table]).fetchall()[0][0]
    return None
