"""Opening a database that somebody names: one sentence for every way in which it may be none of ours."""

from pathlib import Path

import duckdb

from cnnsens_bench.store.database import SCHEMA_VERSION, Store
from cnnsens_bench.store.statements import statement_of
from cnnsens_bench.utils.errors import UserError, first_line

NEEDED = {"runs", "models", "predictions", "images", "failures", "meta"}


def attach(connection: duckdb.DuckDBPyConnection, path: Path) -> set[str]:
    """Attach the database read-only as `source`; gives the names of its tables.

    Raises `UserError` where there is none, another process holds it, or it is not a results database of this version.
    """
    if not path.is_file():
        raise UserError(f"there is no database {path}: a run prints the path of its own")
    try:
        connection.execute("ATTACH $path AS source (READ_ONLY)", {"path": str(path)})
    except duckdb.Error as error:
        text = str(error)
        if "lock" in text.lower():
            raise UserError(f"{path} is held by another process: wait until its run has ended") from None
        if "not a valid" in text:
            raise UserError(f"{path} is not a DuckDB database: --db takes the results.duckdb of a run") from None
        raise UserError(f"{path} cannot be opened ({first_line(error)})") from None
    tables: set[str] = set()
    try:
        tables = {row[0] for row in connection.execute(statement_of("source_tables")).fetchall()}
        wrong = _fault(connection, path, tables)
    except duckdb.Error as error:
        wrong = f"{path} cannot be read ({first_line(error)}): --db takes the results.duckdb of a run"
    if wrong:
        connection.execute("DETACH source")
        raise UserError(wrong)
    return tables


def results(path: Path) -> Store:
    """The store of a database, to ask. Raises `UserError` as `attach` does."""
    with duckdb.connect() as connection:
        attach(connection, path)
    return stored_at(path)


def stored_at(path: Path) -> Store:
    """A store whose database has a name of its own."""
    store = Store(path.parent)
    store.path = path
    return store


def _fault(connection: duckdb.DuckDBPyConnection, path: Path, tables: set[str]) -> str | None:
    if "meta" not in tables and "runs" in tables:
        return f"{path} was made by a version before {SCHEMA_VERSION} of the schema: run its suite again"
    if missing := sorted(NEEDED - tables):
        return f"{path} has no table '{missing[0]}': --db takes the results.duckdb of a run"
    version = connection.execute(statement_of("source_version")).fetchall()[0][0]
    if version != SCHEMA_VERSION:
        return f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}: run its suite again"
    return None
