"""The one writer of `results.duckdb`, and the only code that knows DuckDB.

Connections are short, so that readers can ask between two operations of a run.
"""

import functools
import json
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from cnnsens_bench.errors import UserError

SCHEMA_VERSION = 1
FILES_AT_ONCE = 512
"""Part files that one transaction brings in."""


class Store:
    """The database of one output folder. `open` must come first; it makes folder, tables and views."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = output / "results.duckdb"

    def open(self) -> None:
        """Make the folder and the schema where they are missing.

        Raises `UserError` when the folder cannot be written, another process holds the database, the file is none,
        or was made by another version.
        """
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.output):
                pass
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(
                f"the output folder {self.output} cannot be written ({reason}): choose another with output=…"
            ) from None
        with self._connect() as connection:
            found = connection.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'runs'").fetchone()
            if found and found[0]:
                other = connection.execute(
                    "SELECT schema_version FROM runs WHERE schema_version <> ? LIMIT 1", [SCHEMA_VERSION]
                ).fetchone()
                if other:
                    raise UserError(
                        f"{self.path} has schema version {other[0]}, this program writes {SCHEMA_VERSION}: "
                        "choose another output=<folder>"
                    )
            connection.execute(_sql("schema"))
            connection.execute(_sql("views"))

    def begin_run(
        self, run_id: str, suite: str, protocol: str, config: dict[str, Any], environment: dict[str, Any]
    ) -> None:
        """A row of `runs` with status running; one that is there already goes on."""
        values = {
            "run_id": run_id,
            "suite": suite,
            "schema_version": SCHEMA_VERSION,
            "protocol": protocol,
            "config": json.dumps(config, default=str),
            "environment": json.dumps(environment),
        }
        with self._connect() as connection:
            connection.execute(_sql("begin_run"), values)

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

    def model_digest(self, model: str, dataset: str) -> str | None:
        """SHA-256 of the weights that predictions of this model in the store were made with; None: there are none."""
        with self._connect(10) as connection:
            row = connection.execute(_sql("model_digest"), {"model": model, "dataset": dataset}).fetchone()
        return row[0] if row else None

    def has_predictions(self, protocol: str, dataset: str) -> bool:
        """Whether there is anything to resume from."""
        with self._connect(10) as connection:
            question = "SELECT 1 FROM protocol_predictions WHERE protocol = ? AND dataset = ? LIMIT 1"
            return connection.execute(question, [protocol, dataset]).fetchone() is not None

    def missing(self, protocol: str, dataset: str, image_ids: list[str], wanted: pd.DataFrame) -> pd.DataFrame:
        """The rows of `image_ids` × `wanted` (model, defense, degradation, level, trial) that the store lacks."""
        with self._connect(10) as connection:
            connection.register("wanted_images", pd.DataFrame({"image_id": image_ids}))
            connection.register("wanted", wanted)
            return connection.execute(_sql("missing"), {"protocol": protocol, "dataset": dataset}).df()

    def query(self, sql: str, parameters: list[Any] | None = None) -> pd.DataFrame:
        """A question, read-only."""
        with self._connect(10, read_only=True) as connection:
            return connection.execute(sql, parameters or []).df()

    def ingest(self, keep: Path | None = None, patience: float = 0) -> int:
        """Bring every whole part into the tables, exactly once; gives the number of parts.

        The folders of ended attempts are removed with what is left in them; `keep` is the one still written to.
        A part that cannot be read is set aside as `<name>.corrupt`.
        """
        folders = sorted(path for path in (self.output / "parts").glob("*") if path.is_dir())
        files = [file for folder in folders for file in sorted(folder.glob("*.parquet"))]
        for start in range(0, len(files), FILES_AT_ONCE):
            self._ingest_files(files[start : start + FILES_AT_ONCE], patience)
        for folder in folders:
            if folder != keep:
                for left in folder.glob("*.partial"):
                    left.unlink(missing_ok=True)
                if not any(folder.iterdir()):
                    folder.rmdir()
        return len(files)

    def _ingest_files(self, files: list[Path], patience: float) -> None:
        with self._connect(patience) as connection:
            known = {row[0] for row in connection.execute("SELECT name FROM parts").fetchall()}
            new = [file for file in files if _part_name(file) not in known and self._readable(connection, file)]
            if new:
                connection.begin()
                for kind in ("images", "predictions", "failures"):
                    chosen = [str(file) for file in new if file.name.startswith(f"{kind}-")]
                    if chosen:
                        connection.execute(_sql(f"ingest_{kind}"), {"files": chosen})
                names = pd.DataFrame({"name": [_part_name(file) for file in new]})
                connection.register("names", names)
                connection.execute("INSERT INTO parts SELECT name, now() FROM names")
                connection.commit()
        # Only after the commit: a crash between the two leaves parts that `parts` knows.
        for file in files:
            file.unlink(missing_ok=True)

    def _readable(self, connection: duckdb.DuckDBPyConnection, file: Path) -> bool:
        try:
            connection.execute("SELECT count(*) FROM read_parquet(?)", [[str(file)]]).fetchone()
        except duckdb.Error:
            file.rename(file.with_suffix(".corrupt"))
            return False
        return True

    @contextmanager
    def _connect(self, patience: float = 0, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """`patience`: seconds to wait for a process that holds the database."""
        until = time.monotonic() + patience
        while True:
            try:
                connection = duckdb.connect(str(self.path), read_only=read_only)
                break
            except duckdb.Error as error:
                if "lock" in str(error).lower() and time.monotonic() < until:
                    time.sleep(0.2)
                    continue
                raise UserError(_open_error(self.path, error)) from None
        try:
            yield connection
        finally:
            connection.close()


def _open_error(path: Path, error: duckdb.Error) -> str:
    text = str(error)
    if "lock" in text.lower():
        holder = re.search(r"PID (\d+)", text)
        who = f"process {holder[1]}" if holder else "another process"
        return (
            f"{path} is held by {who}: close it there and run the same command again, or choose another output=<folder>"
        )
    if isinstance(error, duckdb.IOException) and "not a valid" in text:
        return f"{path} is not a DuckDB database: move it away, or choose another output=<folder>"
    return f"{path} cannot be opened ({text.splitlines()[0]}): choose another output=<folder>"


def _part_name(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"


@functools.cache
def _sql(name: str) -> str:
    return resources.files("cnnsens_bench.store").joinpath(f"{name}.sql").read_text()
