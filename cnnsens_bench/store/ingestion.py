"""The transactions that bring part files into the tables: which parts go together, and which rows are compared."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pandas as pd

from cnnsens_bench.store.connection import file_name
from cnnsens_bench.store.parts import is_retry, kind_of
from cnnsens_bench.store.schema import PART_KINDS, SQL, part_schema

FILES_AT_ONCE = 1024
"""Part files that one transaction ingests; the other parts of the last task come with them."""


def insert(connection: duckdb.DuckDBPyConnection, files: list[Path]) -> set[str]:
    """Insert the rows of parts, and record the parts as ingested, in one transaction.

    Parameters
    ----------
    connection
        A connection that writes the database.
    files
        The files, in folders that have the names of their attempts.

    Returns
    -------
    set of str
        The parts, as `<attempt>/<name>`, that were left out because the database does not know their runs.
    """
    left: set[str] = set()
    if not files:
        return left
    connection.begin()
    try:
        counted = []
        # Retried parts come after those whose rows they may repeat.
        for kind, retried in itertools.product(PART_KINDS, (False, True)):
            names = {
                file_name(file): f"{file.parent.name}/{file.name}"
                for file in files
                if kind_of(file.name) == kind and is_retry(file.name) == retried
            }
            if names and "run_id" in part_schema(kind).names:
                found = connection.execute(SQL["parts_of_unknown_runs"], _files(names)).fetchall()
                left |= {names.pop(name) for (name,) in found}
            if names:
                insert_rows(connection, kind, list(names), compare=retried)
                rows = connection.execute(SQL["rows_of_parts"], _files(names)).fetchall()
                counted += [(names[name], count) for name, count in rows]
        connection.register("counted", pd.DataFrame(counted, columns=["name", "rows"]))
        connection.execute("INSERT INTO parts BY NAME SELECT name, rows, now() AS ingested_at FROM counted")
        connection.unregister("counted")
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    return left


def insert_rows(connection: duckdb.DuckDBPyConnection, kind: str, files: list[str], compare: bool = False) -> int:
    """Insert the rows of Parquet files into the table of their kind; return how many were new.

    Parameters
    ----------
    connection
        A connection that writes the database.
    kind
        One of `schema.PART_KINDS`.
    files
        Names of files.
    compare
        Whether rows are compared with those of the table in any case. Otherwise that is done only where the table has
        images of the files. Files that may hold the same row twice need it.
    """
    rows = connection.read_parquet([literal(file) for file in files], union_by_name=True, hive_partitioning=False)
    connection.register("new_rows", rows)
    compare = kind == "predictions" and (compare or _overlaps(connection))
    found = connection.execute(SQL["ingest_new_predictions" if compare else f"ingest_{kind}"]).fetchall()
    connection.unregister("new_rows")
    return int(found[0][0])


def batches(names: list[str]) -> Iterator[list[str]]:
    """Divide part files into those that one transaction ingests each.

    The parts of a task stay together. Otherwise an image could be new in one transaction and known in the next, which
    would have to compare its rows.
    """
    tasks = [list(parts) for _, parts in itertools.groupby(names, lambda name: Path(name).stem.split("-")[:2])]
    batch: list[str] = []
    for parts in tasks:
        batch += parts
        if len(batch) >= FILES_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def literal(path: str) -> str:
    """Return a path in which DuckDB finds no pattern: `runs/a*b` must not match its neighbours.

    Examples
    --------
    >>> literal("runs/a*b")
    'runs/a[*]b'
    """
    return re.sub(r"([*?\[])", r"[\1]", path)


def _overlaps(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether new predictions may be stored already. This is cheap where the table is empty or the images are new."""
    if connection.execute("SELECT 1 FROM predictions LIMIT 1").fetchone() is None:
        return False
    found = connection.execute(SQL["predictions_overlap"]).fetchone()
    return bool(found and found[0])


def _files(names: dict[str, str]) -> dict[str, list[str]]:
    return {"files": [literal(name) for name in names]}
