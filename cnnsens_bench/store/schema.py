"""The tables of a results database as `sql/schema.sql` makes them, and the columns of part files, which follow them."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from cnnsens_bench.utils.sql import statements

SCHEMA_VERSION = 1
"""Raised when columns or tables change their meaning, not when a table gains a column; see `sql/schema.sql`."""
SQL = statements("cnnsens_bench.store")
"""All statements of the store, by name."""

VIEWS = ("views", "image_views", "sensitivity_views", "failure_point_views", "selection_views")
"""The statements that create views, in the order in which they use each other."""

PART_KINDS = ("predictions", "images", "failures", "sensitivity", "sensitivity_predictions", "speed")
"""The kinds of part files, in the order in which they are ingested. Each has the columns of the table of its name."""
REPETITIVE_KINDS = ("predictions", "sensitivity", "sensitivity_predictions")
"""Kinds whose texts repeat from row to row: in memory each text is held once."""
ARROW_TYPES = {"VARCHAR": "string", "DOUBLE": "double", "FLOAT": "float", "INTEGER": "int32", "BIGINT": "int64"}


@dataclass(frozen=True)
class TableSchema:
    """The columns of a table and their SQL types, the columns that cannot be NULL, and the primary key, if any."""

    name: str
    columns: list[str]
    types: list[str]
    required: list[str]
    key: list[str] | None

    def of_type(self, *types: str) -> list[str]:
        """Return the columns that have one of these types."""
        return [column for column, kind in zip(self.columns, self.types, strict=True) if kind in types]

    @property
    def per_image(self) -> bool:
        """Whether a row is about one image of one network."""
        return {"dataset", "image_id", "model", "defense"} <= set(self.columns)


def create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the tables that the database lacks."""
    connection.execute(SQL["schema"], {"schema_version": SCHEMA_VERSION})


def create_views(connection: duckdb.DuckDBPyConnection) -> None:
    """Create or replace all views and table macros."""
    for views in VIEWS:
        connection.execute(SQL[views])


def table_schemas(connection: duckdb.DuckDBPyConnection) -> dict[str, TableSchema]:
    """Return the tables that the connection's own database has, by name."""
    return {row[0]: TableSchema(*row) for row in connection.execute(SQL["table_schemas"]).fetchall()}


def add_missing_columns(connection: duckdb.DuckDBPyConnection) -> None:
    """Add the columns that the tables of a database made by an earlier version lack; NULL stands in their rows."""
    found = table_schemas(connection)
    for table in schema_of_this_version().values():
        for column, kind in zip(table.columns, table.types, strict=True):
            if column not in table.required and column not in found[table.name].columns:
                connection.execute(with_names("add_column", table=[table.name], column=[column], type=[kind]))


@functools.cache
def schema_of_this_version() -> dict[str, TableSchema]:
    """Return the tables of this version's schema, by name."""
    with duckdb.connect(config={"threads": 1}) as connection:
        create_tables(connection)
        return table_schemas(connection)


@functools.cache
def part_schema(kind: str) -> pa.Schema:
    """Return the Arrow schema of part files of one kind.

    Parameters
    ----------
    kind
        One of `PART_KINDS`.

    Examples
    --------
    >>> part_schema("failures").names
    ['run_id', 'dataset', 'image_id', 'stage', 'error']
    """
    table = schema_of_this_version()[kind]
    types = ARROW_TYPES | ({"VARCHAR": pa.dictionary(pa.int32(), pa.string())} if kind in REPETITIVE_KINDS else {})
    return pa.schema(
        [
            pa.field(column, types[sql_type], nullable=column not in table.required)
            for column, sql_type in zip(table.columns, table.types, strict=True)
        ]
    )


def with_names(statement: str, **names: Sequence[str]) -> str:
    """Return a statement whose marks `<mark>` are replaced by names of tables and columns, which cannot be parameters.

    Parameters
    ----------
    statement
        The name of the statement.
    names
        Names of our schema, by mark. They are quoted, and several are separated by commas.
    """
    text = SQL[statement]
    for mark, every in names.items():
        quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in every)
        text = text.replace(f"in_<{mark}>", f'"in_{every[0]}"').replace(f"<{mark}>", quoted)
    return text
