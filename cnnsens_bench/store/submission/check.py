"""What is checked before one row of a submission enters a database: its files, then their tables, then its card."""

import itertools
import re
from pathlib import Path
from typing import Any

import duckdb

from cnnsens_bench.store.connection import file_name
from cnnsens_bench.store.ingestion import literal
from cnnsens_bench.store.schema import SCHEMA_VERSION, SQL, TableSchema, create_tables, table_schemas
from cnnsens_bench.store.submission.card import CARD, Card, check_files, file_of, read_card, refuse, strict_json
from cnnsens_bench.utils.errors import first_line

NEEDED = ("runs", "images", "models", "predictions")
"""Tables that every submission holds."""
WITH_RULES = (*NEEDED, "speed", "sensitivity", "sensitivity_predictions")
"""Tables for which a statement `wrong_row_of_<table>` checks the values of rows."""
LONGEST = 4000
"""Most letters of a text in a table; `LONGEST_JSON` holds for a config or an environment."""
LONGEST_JSON = 1_000_000
LARGEST_DOUBLE = 1e30
LARGEST_FLOAT = 3.5e38
MOST_RUNS = 100_000
ROWS_PER_BYTE = 64
UNPACKED_MORE = 2**26
"""Most bytes by which a column may exceed 1000 times its own size when it is unpacked."""
SCRATCH_MEMORY = "2GB"
ABSOLUTE = "are absolute paths or URIs, which no submission holds"


def scratch(folder: Path) -> duckdb.DuckDBPyConnection:
    """Return a database in memory that spills into `folder`. It has this version's tables, and fetches no extension."""
    connection = duckdb.connect(
        config={
            "temp_directory": str(folder),
            "memory_limit": SCRATCH_MEMORY,
            "preserve_insertion_order": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
    )
    create_tables(connection)
    return connection


def submittable_tables(connection: duckdb.DuckDBPyConnection) -> dict[str, TableSchema]:
    """Return the tables that a submission may hold: those that belong to a run, and those that their rows refer to."""
    tables = table_schemas(connection)
    return {n: table for n, table in tables.items() if "run_id" in table.columns or n in ("images", "models")}


def check(connection: duckdb.DuckDBPyConnection, folder: Path) -> Card:
    """Check all of a submission.

    Nothing of it is executed or unpickled, and no table is in memory whole. Afterwards there is a view `in_<table>` of
    each of its tables, with the additional column `file_row_number`.

    Parameters
    ----------
    connection
        A `scratch` database.
    folder
        The submission.

    Returns
    -------
    Card
        The submission's card.

    Raises
    ------
    UserError
        At the first fault.
    """
    tables = submittable_tables(connection)
    card = read_card(folder, SCHEMA_VERSION)
    check_files(folder, card, tables, NEEDED)
    held = [table for name, table in tables.items() if file_of(name) in card.files]
    try:
        for table in held:
            _check_file(connection, folder, table, card.files[file_of(table.name)].rows)
        view(connection, folder, held)
        for table in held:
            _check_cells(connection, table)
        _check_json(connection)
        connection.execute(SQL["summarize_predictions"])
        for table in held:
            _check_links(connection, table)
        _check_whole(connection)
    except duckdb.Error as error:
        raise refuse(str(folder), f"it cannot be read ({first_line(error, 200)})") from None
    claimed = card.model_dump()
    for key, value in summary(connection).items():
        if claimed[key] != value:
            raise refuse(CARD, f"its {key} are not those of the tables: {_difference(claimed[key], value)}")
    return card


def view(connection: duckdb.DuckDBPyConnection, folder: Path, tables: list[TableSchema]) -> None:
    """Make a view `in_<table>` of each table, whose rows are streamed from its file."""
    for table in tables:
        path = literal(file_name(folder / file_of(table.name)))
        rows = connection.read_parquet(path, file_row_number=True, hive_partitioning=False)
        connection.register(f"in_{table.name}", rows)


def summary(connection: duckdb.DuckDBPyConnection) -> dict[str, list[dict[str, Any]]]:
    """Return what a card must have under `protocols` and `entrants`, from the tables."""
    return {key: connection.sql(SQL[key]).to_arrow_table().to_pylist() for key in ("protocols", "entrants")}


def _check_file(connection: duckdb.DuckDBPyConnection, folder: Path, table: TableSchema, rows: int) -> None:
    name = file_of(table.name)
    path = folder / name
    parameters = {"file": literal(file_name(path))}
    try:
        described = connection.execute(SQL["file_columns"], parameters).fetchall()
        counted, excess = connection.execute(SQL["file_size"], parameters).fetchall()[0]
    except duckdb.Error as error:
        raise refuse(name, f"it is not Parquet that can be read ({first_line(error, 200)})") from None
    found = {row[0]: row[1] for row in described}
    for column, kind in zip(table.columns, table.types, strict=True):
        if column not in found:
            raise refuse(f"{name}, column {column}", "it is missing")
        if found[column] != kind:
            raise refuse(f"{name}, column {column}", f"its type is {found[column]}, not {kind}")
    for column in found:
        if column not in table.columns:
            raise refuse(f"{name}, column {column}", f"the table '{table.name}' has no such column")
    if counted != rows:
        raise refuse(name, f"it has {counted} rows, {CARD} says {rows}")
    if rows > ROWS_PER_BYTE * path.stat().st_size or (excess or 0) > UNPACKED_MORE:
        raise refuse(name, "it unpacks to far more than its size: it is refused unread")


def _check_cells(connection: duckdb.DuckDBPyConnection, table: TableSchema) -> None:
    """Check texts, then the rules for rows, then the numbers that no rule has refused, then the key."""
    _count_cells(connection, table, "count_nulls", table.required, "are empty")
    for columns, longest in ((table.of_type("VARCHAR"), LONGEST), (table.of_type("JSON"), LONGEST_JSON)):
        sentence = f"have more than {longest} letters"
        _count_cells(connection, table, "count_long_texts", columns, sentence, longest=longest)
    _count_cells(connection, table, "count_paths", table.of_type("VARCHAR"), ABSOLUTE)
    if table.name in WITH_RULES:
        parameters = {"schema_version": SCHEMA_VERSION} if table.name == "runs" else {}
        row, wrong = connection.execute(SQL[f"wrong_row_of_{table.name}"], parameters).fetchall()[0]
        if wrong:
            column, _, sentence = wrong.partition(": ")
            raise refuse(f"{file_of(table.name)}, row {row}, {column}", sentence)
    infinite = "are not finite, or beyond ±1e30"
    _count_cells(connection, table, "count_not_finite", table.of_type("DOUBLE"), infinite, limit=LARGEST_DOUBLE)
    _count_cells(connection, table, "count_not_finite", table.of_type("FLOAT"), "are not finite", limit=LARGEST_FLOAT)
    if table.key:
        key = {"columns": table.key, "table": f"in_{table.name}"}
        if count := connection.execute(SQL["count_repeated_keys"], key).fetchall()[0][0]:
            raise refuse(file_of(table.name), f"{count} rows have the {', '.join(table.key)} of another row")


def _count_cells(
    connection: duckdb.DuckDBPyConnection,
    table: TableSchema,
    statement: str,
    columns: list[str],
    sentence: str,
    **parameters: float,
) -> None:
    """Refuse the first of the columns in which a statement counts wrong cells."""
    if columns:
        values: dict[str, Any] = {"columns": columns, "table": f"in_{table.name}", **parameters}
        counts = connection.execute(SQL[statement], values).fetchall()[0]
        # The answer has the columns in the table's order.
        for column, count in zip((c for c in table.columns if c in columns), counts, strict=True):
            if count:
                raise refuse(f"{file_of(table.name)}, column {column}", f"{count} cells {sentence}")


def _check_json(connection: duckdb.DuckDBPyConnection) -> None:
    """Check that the configs and environments of `runs` are objects, which readers show."""
    cursor = connection.execute(SQL["json_of_runs"], {"most": MOST_RUNS + 1})
    for number, config, environment in cursor.fetchall():
        if number >= MOST_RUNS:
            raise refuse(file_of("runs"), f"it has more than {MOST_RUNS} rows")
        for column, text in (("config", config), ("environment", environment)):
            if text is None:
                continue
            location = f"{file_of('runs')}, row {number + 1}, column {column}"
            content = strict_json(text, location)
            if column == "environment" and not all(v is None or isinstance(v, str) for v in content.values()):
                raise refuse(location, "its values must be texts")


def _check_links(connection: duckdb.DuckDBPyConnection, table: TableSchema) -> None:
    """Check that the run, the image and the network of each row are there."""
    linked = {
        "run": "run_id" in table.columns and table.name != "runs",
        "image": table.per_image,
        "model": {"dataset", "model", "defense"} <= set(table.columns) and table.name != "models",
    }
    for kind, is_linked in linked.items():
        # The summaries of the predictions have few rows.
        summary = "image_labels" if kind == "image" else "entrant_rows"
        rows = summary if table.name == "predictions" else f"in_{table.name}"
        if is_linked and (found := _first(connection, f"row_without_{kind}", table=rows)) is not None:
            raise refuse(file_of(table.name), f"{file_of(kind + 's')} has not the {kind} of a row: {found}")


def _check_whole(connection: duckdb.DuckDBPyConnection) -> None:
    """Check that the rows of all tables go together."""
    for statement, table, sentence in (
        ("run_without_predictions", "runs", "no prediction is of the run"),
        ("model_without_predictions", "models", "no prediction is of the model"),
        ("image_without_predictions", "images", "no prediction is of the image"),
        ("image_with_other_label", "predictions", "column label: it is not the one that the image has elsewhere"),
        ("entrant_without_undegraded", "predictions", "there are degraded rows and no undegraded one of"),
        ("repeated_prediction", "predictions", "there are two rows for"),
    ):
        if (found := _first(connection, statement)) is not None:
            raise refuse(file_of(table), f"{sentence}: {found}")


def _first(connection: duckdb.DuckDBPyConnection, statement: str, **parameters: Any) -> str | None:
    found = connection.execute(SQL[statement], parameters or None).fetchall()
    return str(found[0][0]) if found else None


def _difference(claimed: list[dict[str, Any]], found: list[dict[str, Any]]) -> str:
    """Return the first entry in which the card differs from the tables, and both its values."""
    pairs = enumerate(itertools.zip_longest(claimed, found), 1)
    number, (ours, theirs) = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
    if ours is None or theirs is None:
        return f"entry {number} is {_brief(ours)}, they have {_brief(theirs)}"
    key = next(key for key in theirs if ours[key] != theirs[key])
    return f"entry {number}, {key} is {_brief(ours[key])}, they have {_brief(theirs[key])}"


def _brief(entry: Any) -> str:
    return "not there" if entry is None else re.sub(r"^(.{160}).+", r"\1…", str(entry), flags=re.DOTALL)
