"""What a submission must hold before one row of it enters a database: the files, then their tables, then the card."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from cnnsens_bench.store.database import SCHEMA_VERSION
from cnnsens_bench.store.statements import literal, statement_of
from cnnsens_bench.store.submission.card import CARD, check_files, file_of, read_card, refuse, strict_json
from cnnsens_bench.utils.errors import first_line

NEEDED = ("runs", "images", "models", "predictions")
RULED = (*NEEDED, "speed", "sensitivity", "sensitivity_predictions")
"""Tables that have a question check_<table>.sql about the values of their rows."""
LONGEST = 4000
"""Letters of a text in a table; `LONGEST_JSON` of a config or environment."""
LONGEST_JSON = 1_000_000
MOST_RUNS = 100_000
ROWS_PER_BYTE = 64
UNPACKED_MORE = 2**26
"""Bytes that a column may grow by beyond 1000 times its own when it is unpacked."""
SCRATCH_MEMORY = "2GB"


@dataclass(frozen=True)
class Table:
    """One of the schema: its columns and their types, those that are never empty, and its primary key, if any."""

    name: str
    columns: list[str]
    types: list[str]
    required: list[str]
    key: list[str] | None

    def of_type(self, *names: str) -> list[str]:
        """Its columns of these types."""
        return [column for column, kind in zip(self.columns, self.types, strict=True) if kind in names]

    @property
    def per_image(self) -> bool:
        """Whether a row is about one image of one network."""
        return {"dataset", "image_id", "model", "defense"} <= set(self.columns)


def scratch(folder: Path) -> duckdb.DuckDBPyConnection:
    """A database in memory that spills into `folder`, with the tables of this version; it fetches no extension."""
    connection = duckdb.connect(
        config={
            "temp_directory": str(folder),
            "memory_limit": SCRATCH_MEMORY,
            "preserve_insertion_order": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
    )
    connection.execute(statement_of("schema"), {"schema_version": SCHEMA_VERSION})
    return connection


def sql(name: str) -> str:
    """A statement of submissions."""
    return statement_of(f"exchange/{name}")


def tables_of(connection: duckdb.DuckDBPyConnection) -> dict[str, Table]:
    """What a submission may hold, by the schema in `scratch`."""
    return {row[0]: Table(*row) for row in connection.execute(sql("schema")).fetchall()}


def check(connection: duckdb.DuckDBPyConnection, folder: Path) -> dict[str, Any]:
    """Check all of a submission in `scratch`; gives its card. Raises `UserError` at the first fault.

    Leaves a view `in_<table>` of each of its tables, with `file_row_number`. Nothing of it is executed or unpickled,
    and no table is held in memory whole.
    """
    tables = tables_of(connection)
    card = read_card(folder, SCHEMA_VERSION)
    check_files(folder, card, tables, NEEDED)
    held = [table for name, table in tables.items() if file_of(name) in card["files"]]
    try:
        for table in held:
            _check_file(connection, folder, table, card["files"][file_of(table.name)]["rows"])
        view(connection, folder, held)
        for table in held:
            _check_cells(connection, table)
        _check_json(connection)
        connection.execute(sql("prepare"))
        for table in held:
            _check_links(connection, table)
        _check_whole(connection)
    except duckdb.Error as error:
        raise refuse(str(folder), f"it cannot be read ({first_line(error, 200)})") from None
    for key, value in summary(connection).items():
        if card[key] != value:
            raise refuse(CARD, f"its {key} are not those of the tables: {_difference(card[key], value)}")
    return card


def view(connection: duckdb.DuckDBPyConnection, folder: Path, tables: list[Table]) -> None:
    """`in_<table>` of each, streamed from its file."""
    for table in tables:
        path = literal(str(folder / file_of(table.name)))
        connection.register(f"in_{table.name}", connection.from_parquet(path, file_row_number=True))


def summary(connection: duckdb.DuckDBPyConnection) -> dict[str, list[dict[str, Any]]]:
    """`protocols` and `entrants` of a card, from the tables."""
    made = {}
    for key in ("protocols", "entrants"):
        cursor = connection.execute(sql(key))
        names = [column[0] for column in cursor.description]
        made[key] = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return made


def _check_file(connection: duckdb.DuckDBPyConnection, folder: Path, table: Table, rows: int) -> None:
    name = file_of(table.name)
    path = folder / name
    parameters = {"file": literal(str(path))}
    try:
        described = connection.execute("DESCRIBE FROM read_parquet($file)", parameters).fetchall()
        counted, excess = connection.execute(sql("check_size"), parameters).fetchall()[0]
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


def _check_cells(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Each column for itself, then each row for itself."""
    texts, numbers = table.of_type("VARCHAR"), table.of_type("FLOAT", "DOUBLE")
    for question, columns, sentence, more in (
        ("check_null", table.required, "are empty", {}),
        ("check_long", texts, f"have more than {LONGEST} letters", {"longest": LONGEST}),
        ("check_long", table.of_type("JSON"), f"have more than {LONGEST_JSON} letters", {"longest": LONGEST_JSON}),
        ("check_path", texts, "are absolute paths or URIs, which no submission holds", {}),
        # Of predictions the row is named, below.
        ("check_finite", [] if table.name == "predictions" else numbers, "are not finite, or beyond ±1e30", {}),
    ):
        if not columns:
            continue
        parameters = {"columns": columns, "table": f"in_{table.name}", **more}
        counts = connection.execute(sql(question), parameters).fetchall()[0]
        # The answer has the columns in the table's order.
        for column, count in zip((c for c in table.columns if c in columns), counts, strict=True):
            if count:
                raise refuse(f"{file_of(table.name)}, column {column}", f"{count} cells {sentence}")
    if table.name in RULED:
        parameters = {"schema_version": SCHEMA_VERSION} if table.name == "runs" else {}
        row, wrong = connection.execute(sql(f"check_{table.name}"), parameters).fetchall()[0]
        if wrong:
            column, _, sentence = wrong.partition(": ")
            raise refuse(f"{file_of(table.name)}, row {row}, {column}", sentence)
    if table.key:
        parameters = {"columns": table.key, "table": f"in_{table.name}"}
        if count := connection.execute(sql("check_double"), parameters).fetchall()[0][0]:
            raise refuse(file_of(table.name), f"{count} rows have the {', '.join(table.key)} of another row")


def _check_json(connection: duckdb.DuckDBPyConnection) -> None:
    """Of `runs`: objects, for those who show them."""
    cursor = connection.execute(sql("check_json"), {"most": MOST_RUNS + 1})
    for number, config, environment in cursor.fetchall():
        if number >= MOST_RUNS:
            raise refuse(file_of("runs"), f"it has more than {MOST_RUNS} rows")
        for column, text in (("config", config), ("environment", environment)):
            if text is None:
                continue
            place = f"{file_of('runs')}, row {number + 1}, column {column}"
            content = strict_json(text, place)
            if column == "environment" and not all(v is None or isinstance(v, str) for v in content.values()):
                raise refuse(place, "its values must be texts")


def _check_links(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    """That what a row is about is there: its run, its image, its network."""
    wanted = {
        "run": "run_id" in table.columns and table.name != "runs",
        "image": table.per_image,
        "model": {"dataset", "model", "defense"} <= set(table.columns) and table.name != "models",
    }
    for kind, asked in wanted.items():
        # Predictions were summed up already: a few rows instead of all.
        source = {"image": "seen"}.get(kind, "entered") if table.name == "predictions" else f"in_{table.name}"
        if asked and (found := _one(connection, f"check_{kind}", table=source)) is not None:
            raise refuse(file_of(table.name), f"{file_of(kind + 's')} has not the {kind} of a row: {found}")


def _check_whole(connection: duckdb.DuckDBPyConnection) -> None:
    """What rows say of each other."""
    for question, table, sentence in (
        ("check_idle_runs", "runs", "no prediction is of the run"),
        ("check_idle_models", "models", "no prediction is of the model"),
        ("check_idle_images", "images", "no prediction is of the image"),
        ("check_label", "predictions", "column label: it is not the one that the image has elsewhere"),
        ("check_undegraded", "predictions", "there are degraded rows and no undegraded one of"),
        ("check_twice", "predictions", "there are two rows for"),
    ):
        if (found := _one(connection, question)) is not None:
            raise refuse(file_of(table), f"{sentence}: {found}")


def _one(connection: duckdb.DuckDBPyConnection, question: str, **parameters: Any) -> str | None:
    found = connection.execute(sql(question), parameters or None).fetchall()
    return str(found[0][0]) if found else None


def _difference(said: list[Any], found: list[Any]) -> str:
    for number in range(max(len(said), len(found))):
        pair = [rows[number] if number < len(rows) else None for rows in (said, found)]
        if pair[0] != pair[1]:
            if isinstance(pair[0], dict) and isinstance(pair[1], dict):
                key = next(key for key in pair[1] if pair[0][key] != pair[1][key])
                return f"entry {number + 1}, {key} is {_brief(pair[0][key])}, they have {_brief(pair[1][key])}"
            return f"entry {number + 1} is {_brief(pair[0])}, they have {_brief(pair[1])}"
    raise AssertionError("they are equal")


def _brief(entry: Any) -> str:
    return "not there" if entry is None else re.sub(r"^(.{160}).+", r"\1…", str(entry), flags=re.DOTALL)
