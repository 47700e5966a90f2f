"""Databases that a user names: attaching or opening one after checking that it is a results database of this version.

The leaderboard attaches databases with `attach` and sums them up in leaderboard/read.py.
"""

from pathlib import Path

import duckdb

from cnnsens_bench.store.connection import TO_READ, file_name, opening_error, require_openable
from cnnsens_bench.store.database import Store
from cnnsens_bench.store.schema import SCHEMA_VERSION, SQL
from cnnsens_bench.utils.errors import UserError, first_line

NEEDED_TABLES = {"runs", "models", "predictions", "images", "failures", "meta"}


def attach(connection: duckdb.DuckDBPyConnection, path: Path) -> set[str]:
    """Attach a results database as `source`, to read only.

    Parameters
    ----------
    connection
        A connection that has nothing attached as `source`.
    path
        The database.

    Returns
    -------
    set of str
        The names of its tables.

    Raises
    ------
    UserError
        Where there is no such file, another process has it open, or it is not a results database of this version.
    """
    if not path.is_file():
        raise UserError(f"there is no database {path}: a run prints the path of its own")
    require_openable(path)
    try:
        connection.execute("ATTACH $path AS source (READ_ONLY)", {"path": file_name(path)})
    except duckdb.Error as error:
        raise UserError(opening_error(path, error, TO_READ)) from None
    tables: set[str] = set()
    try:
        tables = {row[0] for row in connection.execute(SQL["source_tables"]).fetchall()}
        wrong = _fault(connection, path, tables)
    except duckdb.Error as error:
        wrong = f"{path} cannot be read ({first_line(error)}): --db takes the results.duckdb of a run"
    if wrong:
        connection.execute("DETACH source")
        raise UserError(wrong)
    return tables


def results(path: Path) -> Store:
    """Return the store of a results database, to ask it. Raise `UserError` as `attach` does."""
    with duckdb.connect() as connection:
        attach(connection, path)
    return Store(path.parent, path=path)


def _fault(connection: duckdb.DuckDBPyConnection, path: Path, tables: set[str]) -> str | None:
    """Return the sentence that says why the attached database is not a results database of this version."""
    if "meta" not in tables and "runs" in tables:
        return f"{path} was made by a version before {SCHEMA_VERSION} of the schema: run its suite again"
    if missing := sorted(NEEDED_TABLES - tables):
        return f"{path} has no table '{missing[0]}': --db takes the results.duckdb of a run"
    version = connection.execute(SQL["source_version"]).fetchall()[0][0]
    if version != SCHEMA_VERSION:
        return f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}: run its suite again"
    return None
