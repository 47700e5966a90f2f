"""How parts come into the tables: which together, what is compared with what is there, and what is left alone."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import duckdb
import pandas as pd

from cnnsens_bench.store.parts import SCHEMAS, is_retry, kind_of
from cnnsens_bench.store.statements import literal, statement_of

FILES_AT_ONCE = 1024
"""Part files that one transaction brings in, and the rest of the last one's chunk."""


def insert(connection: duckdb.DuckDBPyConnection, files: list[Path]) -> set[str]:
    """The rows of the parts and their names, all or nothing; gives the names of those that are of unknown runs, whose
    rows are not inserted."""
    left: set[str] = set()
    if not files:
        return left
    connection.begin()
    try:
        counted = []
        # Retried parts come after those whose rows they may repeat.
        for kind, retried in itertools.product(SCHEMAS, (False, True)):
            chosen = {str(file): file for file in files if kind_of(file) == kind and is_retry(file.name) == retried}
            if chosen and "run_id" in SCHEMAS[kind].names:
                found = connection.execute(statement_of("parts_of_unknown_runs"), _files(chosen)).fetchall()
                left |= {_part_name(chosen.pop(name)) for (name,) in found}
            if chosen:
                parameters = _files(chosen)
                compared = kind == "predictions" and (retried or _overlaps(connection, parameters))
                connection.execute(statement_of(f"ingest_{kind}{'_again' if compared else ''}"), parameters)
                rows = connection.execute(statement_of("part_rows"), parameters).fetchall()
                counted += [(_part_name(chosen[name]), count) for name, count in rows]
        connection.register("counted", pd.DataFrame(counted, columns=["name", "rows"]))
        connection.execute("INSERT INTO parts BY NAME SELECT name, rows, now() AS ingested_at FROM counted")
        connection.unregister("counted")
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    return left


def batches(names: list[str]) -> Iterator[list[str]]:
    """The parts of a chunk stay together: images that are new to a transaction are not compared row by row."""
    chunks = [list(parts) for _, parts in itertools.groupby(names, lambda name: Path(name).stem.split("-")[:2])]
    batch: list[str] = []
    for parts in chunks:
        batch += parts
        if len(batch) >= FILES_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _overlaps(connection: duckdb.DuckDBPyConnection, parameters: dict[str, list[str]]) -> bool:
    """Whether new predictions could be there already; cheap where the table is empty or the images are new."""
    if connection.execute("SELECT 1 FROM predictions LIMIT 1").fetchone() is None:
        return False
    found = connection.execute(statement_of("overlap"), parameters).fetchone()
    return bool(found and found[0])


def _files(paths: Iterable[str]) -> dict[str, list[str]]:
    return {"files": [literal(path) for path in paths]}


def _part_name(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"
