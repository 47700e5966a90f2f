"""Export of results to a submission, and its import into another database.

A submission is a folder with `card.json` and a Parquet file of each table that its rows need. All of it is checked
before a row enters a database. An export checks it too, so that what is written can be imported.
"""

import contextlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from cnnsens_bench import __version__
from cnnsens_bench.store.connection import file_name, unopenable
from cnnsens_bench.store.database import Store
from cnnsens_bench.store.ingestion import insert_rows
from cnnsens_bench.store.publish import holding
from cnnsens_bench.store.read import attach, results
from cnnsens_bench.store.schema import SCHEMA_VERSION, SQL, TableSchema, with_names
from cnnsens_bench.store.submission.card import CARD, FORMAT, FORMAT_VERSION, Card, digest, file_of, refuse
from cnnsens_bench.store.submission.check import MOST_RUNS, NEEDED, check, scratch, submittable_tables, summary, view
from cnnsens_bench.store.submission.redact import public_error, public_json
from cnnsens_bench.utils.errors import UserError, first_line
from cnnsens_bench.utils.registry import near

ENTRANT = ("run_id", "dataset", "model", "defense")
"""Columns of the table `selected`, which says whose rows are exported."""
OWN_DATABASE = "import it into a --db of its own, leaderboard build takes several"
PATIENCE = 10
"""Seconds to wait while another process has the database open."""


@dataclass(frozen=True)
class Selection:
    """The names of data sets, models and protocols whose results are exported; all of a kind where none is named."""

    datasets: Sequence[str] = ()
    models: Sequence[str] = ()
    protocols: Sequence[str] = ()


@dataclass(frozen=True)
class TransferCounts:
    """The predictions that a submission holds, how many of them were new to the database, and the entrants."""

    predictions: int
    new: int
    entrants: int


def export(
    path: Path, out: Path, selection: Selection, by: str = "", note: str = "", commit: str | None = None
) -> TransferCounts:
    """Write results of a database as a submission, whole or not at all.

    Absolute paths of images, configs and errors are shortened to `<folder>/name`.

    Parameters
    ----------
    path
        The database.
    out
        The folder to write. It must not exist, or be empty.
    selection
        What is exported.
    by, note
        Who submits, and what a reader should know.
    commit
        The commit of this program, where it is known.

    Raises
    ------
    UserError
        For a database that cannot be read, names that it does not have, an `out` that exists, and rows that
        `import_submission` would refuse.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists: choose another --out, or remove it")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
            folder = Path(temporary) / "submission"
            folder.mkdir()
            program = {"version": __version__, "commit": commit or ""}
            about = {
                "program": program,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "by": by,
                "note": note,
            }
            counts = _write(path, folder, selection, about, Path(temporary))
            folder.rename(out)  # over an empty folder too
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror or error}): choose another --out") from None
    return counts


@dataclass(frozen=True)
class CheckedSubmission:
    """A submission that is as `export` writes it: its card, and the configs of its runs in JSON."""

    card: Card
    configs: Sequence[str]


def check_submission(folder: Path) -> CheckedSubmission:
    """Check a submission as `import_submission` does, and that its names can be read; nothing is written.

    Parameters
    ----------
    folder
        The submission.

    Raises
    ------
    UserError
        At the first fault. A name of something that has characters which cannot be seen is one, since it can be taken
        for another name.
    """
    with tempfile.TemporaryDirectory() as temporary, scratch(Path(temporary)) as connection:
        card = check(connection, folder)
        runs = connection.execute(SQL["json_of_runs"], {"most": MOST_RUNS}).fetchall()
    named = {"by": card.by}
    for number, one in enumerate(card.entrants):
        named |= {f"entrants[{number}].{key}": value for key, value in vars(one).items()}
    for key, value in named.items():
        if isinstance(value, str) and not value.isprintable():
            raise refuse(f"{CARD}, {key}", f"'{value[:80]}' has characters that cannot be seen")
    return CheckedSubmission(card, [config or "{}" for _, config, _ in runs])


def import_submission(folder: Path, path: Path) -> TransferCounts:
    """Insert the rows of a submission into a database: all of them or none, and every row once.

    Parameters
    ----------
    folder
        The submission.
    path
        The database, which is made where there is none.

    Raises
    ------
    UserError
        For a submission that is not as `export` writes it, for a file that is not a results database, and where both
        have the same name for other weights, labels or protocols.
    """
    if path.suffix != ".duckdb" or unopenable(path):
        raise UserError(f"--db {path}: a database's name ends in .duckdb and has no '?' and no '\\'")
    with tempfile.TemporaryDirectory() as temporary, scratch(Path(temporary)) as connection:
        card = check(connection, folder)
        tables = [table for name, table in submittable_tables(connection).items() if file_of(name) in card.files]
    known = path.exists()
    store = results(path) if known else Store(path.parent, path=path)
    try:
        # A run that writes there would replace the database by its own copy, without these rows.
        with holding(path.parent) if path.name == "results.duckdb" else contextlib.nullcontext():
            store.open()
            new = _insert(store, folder, tables)
    except BaseException as error:
        if not known:
            for left in (path, path.with_name(f"{path.name}.wal")):
                with contextlib.suppress(OSError):
                    left.unlink()
        if isinstance(error, UserError):
            text = str(error).replace("choose another output=<folder>", "choose another --db")
            raise UserError(text.replace("choose another with output=…", "choose another --db")) from None
        if isinstance(error, duckdb.Error):
            raise UserError(f"{folder} cannot be brought into {path} ({first_line(error, 300)})") from None
        raise
    return TransferCounts(card.files[file_of("predictions")].rows, new, len(card.entrants))


def _write(path: Path, folder: Path, selection: Selection, about: dict[str, Any], temporary: Path) -> TransferCounts:
    """Write the tables and the card, and check them."""
    with scratch(temporary) as connection:
        attach(connection, path)
        for function in (public_json, public_error):
            connection.create_function(function.__name__, function, ["VARCHAR"], "VARCHAR")
        try:
            _select(connection, path, selection)
            held = [table for table in submittable_tables(connection).values() if _copy(connection, folder, table)]
        except duckdb.Error as error:
            raise UserError(f"{path} cannot be exported ({first_line(error, 300)})") from None
        view(connection, folder, held)
        connection.execute(SQL["summarize_predictions"])
        found = summary(connection)
        rows = {table.name: _rows(connection, f"in_{table.name}") for table in held}
    files = {}
    for table, count in rows.items():
        file = folder / file_of(table)
        files[file.name] = {"rows": count, "bytes": file.stat().st_size, "sha256": digest(file)}
    versions = {"format": FORMAT, "format_version": FORMAT_VERSION, "schema_version": SCHEMA_VERSION}
    card = {**versions, **about, **found, "files": files}
    (folder / CARD).write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    try:
        with scratch(temporary) as connection:
            check(connection, folder)
    except UserError as error:
        raise UserError(f"{path} has rows that an import would refuse: {error}") from None
    return TransferCounts(rows["predictions"], rows["predictions"], len(found["entrants"]))


def _select(connection: duckdb.DuckDBPyConnection, path: Path, selection: Selection) -> None:
    """Make the temporary table `selected`. Raise `UserError` where it is empty or a name is unknown."""
    known_names = connection.execute(SQL["names_in_source"]).fetchall()[0]
    named = {kind: list(names) for kind, names in vars(selection).items()}
    for (kind, names), known in zip(named.items(), known_names, strict=True):
        for name in names:
            if name not in (known or ()):
                hint = near(name, sorted(known or ()))
                raise UserError(f"{path} has no predictions of {kind.removesuffix('s')} '{name}'{hint}")
    connection.execute(SQL["select_entrants"], named)
    if not _rows(connection, "selected"):
        what = "of these together" if any(named.values()) else "yet: a run brings them, cnnsens_bench.run"
        raise UserError(f"{path} has no predictions {what}")


def _copy(connection: duckdb.DuckDBPyConnection, folder: Path, table: TableSchema) -> bool:
    """Write the selected rows of a table, as a stream. Return whether a submission holds the table."""
    stored = {row[0] for row in connection.execute(SQL["source_columns"], {"table": table.name}).fetchall()}
    if not stored:
        return False
    statement = with_names(
        f"export_{table.name}" if table.name in ("runs", "images", "failures") else "export_rows",
        table=[table.name],
        columns=table.columns,
        stored=[column for column in table.columns if column in stored],
        key=[column for column in ENTRANT if column in table.columns],
    )
    file = folder / file_of(table.name)
    count = connection.execute(statement, {"file": file_name(file)}).fetchall()[0][0]
    if not count and table.name not in NEEDED:
        file.unlink(missing_ok=True)
        return False
    return True


def _insert(store: Store, folder: Path, tables: list[TableSchema]) -> int:
    """Insert the rows of all tables in one transaction, and return the number of new predictions."""
    first = [table for name in ("runs", "images", "models") for table in tables if table.name == name]
    with store.connect(PATIENCE) as connection:
        connection.execute("SET preserve_insertion_order = false")
        view(connection, folder, tables)
        connection.begin()
        try:
            for kind, sentence in (
                ("run", "the run"),
                ("model", "the destination holds other weights under the name of"),
                ("image", "the destination holds another label of"),
            ):
                if found := connection.execute(SQL[f"conflicting_{kind}"]).fetchall():
                    raise refuse(file_of(f"{kind}s"), f"{sentence} {found[0][0]}: {OWN_DATABASE}")
            for table in first:
                connection.execute(with_names(f"import_{table.name}", columns=table.columns))
            # As parts of a run are ingested.
            new = insert_rows(connection, "predictions", [file_name(folder / file_of("predictions"))])
            for table in tables:
                if table not in first and table.name != "predictions":
                    # The key consists of the columns that are never empty. For rows about one image of one network,
                    # the protocol replaces the run.
                    key = [column for column in table.required if column != "run_id"]
                    key.insert(0, "protocol" if table.per_image else "run_id")
                    connection.execute(with_names("import_rows", table=[table.name], columns=table.columns, key=key))
            connection.commit()
        except BaseException:
            connection.rollback()
            raise
    return new


def _rows(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    return int(connection.execute("SELECT count(*) FROM query_table(?)", [table]).fetchall()[0][0])
