"""Submissions: a folder that takes results from one database to another, by way of people who do not know each other.

A submission is `card.json` and a Parquet file of each table that its rows need. It is checked whole before a row of it
enters a database, by `export` too: what is written can be read.
"""

import contextlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from cnnsens_bench import __version__
from cnnsens_bench.store.database import SCHEMA_VERSION, Store
from cnnsens_bench.store.publish import holding
from cnnsens_bench.store.read import attach, results, stored_at
from cnnsens_bench.store.statements import literal, statement_of
from cnnsens_bench.store.submission.card import CARD, FORMAT, FORMAT_VERSION, digest, file_of, refuse
from cnnsens_bench.store.submission.check import NEEDED, Table, check, scratch, sql, summary, tables_of, view
from cnnsens_bench.store.submission.redact import public_error, public_json
from cnnsens_bench.utils.errors import UserError, first_line
from cnnsens_bench.utils.registry import near

CHOSEN = ("run_id", "dataset", "model", "defense")
PATIENCE = 10


@dataclass(frozen=True)
class Wanted:
    """What is exported: of each kind the names, or all where there are none."""

    datasets: Sequence[str] = ()
    models: Sequence[str] = ()
    protocols: Sequence[str] = ()


@dataclass(frozen=True)
class Moved:
    """Rows of `predictions` that a submission holds, how many of them were new, and its entrants."""

    predictions: int
    new: int
    entrants: int


def export(path: Path, out: Path, wanted: Wanted, by: str = "", note: str = "", commit: str | None = None) -> Moved:
    """Write what `wanted` says of a database as the folder `out`, whole or not at all.

    Absolute paths of images, configs and errors are shortened to `<folder>/name`. `commit`: of this program. Raises
    `UserError` for a database that cannot be read, for names that it has not, an `out` that is there, and rows that
    `bring_in` would refuse.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists: choose another --out, or remove it")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as place:
            folder = Path(place) / "submission"
            folder.mkdir()
            moved = _write(path, folder, wanted, {"by": by, "note": note, "commit": commit or ""}, Path(place))
            folder.rename(out)  # over an empty folder too
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror or error}): choose another --out") from None
    return moved


def bring_in(folder: Path, path: Path) -> Moved:
    """Bring a submission into the database `path`, which may be new: all of it or nothing, and every row once.

    Raises `UserError` for a submission that is not as `export` writes it, for a `path` that is no results database, and
    where the two do not go together: other weights, labels or protocols under the same name.
    """
    if path.suffix != ".duckdb" or "?" in str(path):
        raise UserError(f"--db {path}: a database's name ends in .duckdb and has no '?'")
    with tempfile.TemporaryDirectory() as place, scratch(Path(place)) as connection:
        card = check(connection, folder)
        tables = [table for name, table in tables_of(connection).items() if file_of(name) in card["files"]]
    known = path.exists()
    store = results(path) if known else stored_at(path)
    try:
        # A run that writes there would publish its own copy over what is brought in.
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
    return Moved(card["files"][file_of("predictions")]["rows"], new, len(card["entrants"]))


def _write(path: Path, folder: Path, wanted: Wanted, told: dict[str, str], place: Path) -> Moved:
    with scratch(place) as connection:
        attach(connection, path)
        for function in (public_json, public_error):
            connection.create_function(function.__name__, function, ["VARCHAR"], "VARCHAR")
        try:
            _choose(connection, path, wanted)
            held = [table for table in tables_of(connection).values() if _copy(connection, folder, table)]
        except duckdb.Error as error:
            raise UserError(f"{path} cannot be exported ({first_line(error, 300)})") from None
        view(connection, folder, held)
        connection.execute(sql("prepare"))
        found = summary(connection)
        rows = {table.name: _rows(connection, f"in_{table.name}") for table in held}
    files = {
        file_of(name): {
            "rows": count,
            "bytes": (folder / file_of(name)).stat().st_size,
            "sha256": digest(folder / file_of(name)),
        }
        for name, count in rows.items()
    }
    card = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "schema_version": SCHEMA_VERSION,
        "program": {"version": __version__, "commit": told["commit"]},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "by": told["by"],
        "note": told["note"],
        **found,
        "files": files,
    }
    (folder / CARD).write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    try:
        with scratch(place) as connection:
            check(connection, folder)
    except UserError as error:
        raise UserError(f"{path} has rows that an import would refuse: {error}") from None
    return Moved(rows["predictions"], rows["predictions"], len(found["entrants"]))


def _choose(connection: duckdb.DuckDBPyConnection, path: Path, wanted: Wanted) -> None:
    """The temporary table `chosen`. Raises `UserError` for a name that the database has not, or no rows."""
    named = connection.execute(sql("names")).fetchall()[0]
    for kind, asked, known in zip(
        ("dataset", "model", "protocol"), (wanted.datasets, wanted.models, wanted.protocols), named, strict=True
    ):
        for name in asked:
            if name not in (known or ()):
                raise UserError(f"{path} has no predictions of {kind} '{name}'{near(name, sorted(known or ()))}")
    parameters = {"datasets": wanted.datasets, "models": wanted.models, "protocols": wanted.protocols}
    connection.execute(sql("chosen"), {key: list(names) for key, names in parameters.items()})
    if not _rows(connection, "chosen"):
        what = "of these together" if any(parameters.values()) else "yet: a run brings them, cnnsens_bench.run"
        raise UserError(f"{path} has no predictions {what}")


def _copy(connection: duckdb.DuckDBPyConnection, folder: Path, table: Table) -> bool:
    """Write the chosen rows of a table, streamed; whether there are any, or must be."""
    stored = {row[0] for row in connection.execute(statement_of("source_columns"), {"table": table.name}).fetchall()}
    if not stored:
        return False
    special = f"rows_{table.name}"
    statement = _with_names(
        special if table.name in ("runs", "images", "failures") else "rows",
        table=[table.name],
        columns=table.columns,
        stored=[column for column in table.columns if column in stored],
        key=[column for column in CHOSEN if column in table.columns],
    )
    file = folder / file_of(table.name)
    count = connection.execute(statement, {"file": str(file)}).fetchall()[0][0]
    if not count and table.name not in NEEDED:
        file.unlink(missing_ok=True)
        return False
    return True


def _insert(store: Store, folder: Path, tables: list[Table]) -> int:
    """In one transaction; gives the number of new predictions."""
    first = [table for name in ("runs", "images", "models") for table in tables if table.name == name]
    with store._connect(PATIENCE) as connection:
        connection.execute("SET preserve_insertion_order = false")
        view(connection, folder, tables)
        connection.begin()
        try:
            for name, sentence in (
                ("runs", "the run"),
                ("models", "the destination holds other weights under the name of"),
                ("images", "the destination holds another label of"),
            ):
                if found := connection.execute(sql(f"clash_{name}")).fetchall():
                    raise refuse(
                        file_of(name),
                        f"{sentence} {found[0][0]}: import it into a --db of its own, leaderboard build takes several",
                    )
            for table in first:
                connection.execute(_with_names(f"insert_{table.name}", columns=table.columns))
            new = _insert_predictions(connection, folder)
            for table in tables:
                if table not in first and table.name != "predictions":
                    _insert_rows(connection, table)
            connection.commit()
        except BaseException:
            connection.rollback()
            raise
    return new


def _insert_predictions(connection: duckdb.DuckDBPyConnection, folder: Path) -> int:
    """As parts of a run are brought in."""
    parameters = {"files": [literal(str(folder / file_of("predictions")))]}
    overlap = connection.execute(statement_of("overlap"), parameters).fetchall()[0][0]
    statement = statement_of("ingest_predictions_again" if overlap else "ingest_predictions")
    return int(connection.execute(statement, parameters).fetchall()[0][0])


def _insert_rows(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Of a row its key is what is never empty; of what is asked per image, the protocol in place of the run."""
    key = [column for column in table.required if column != "run_id"]
    key = ["protocol", *key] if table.per_image else ["run_id", *key]
    connection.execute(_with_names("insert", table=[table.name], columns=table.columns, stored=key, key=key))


def _with_names(statement: str, **names: list[str]) -> str:
    """A statement whose tables and columns are filled in, which cannot be parameters: names of our schema, quoted."""
    text = sql(statement)
    for mark, every in names.items():
        quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in every)
        text = text.replace(f"in_<{mark}>", f'"in_{every[0]}"').replace(f"<{mark}>", quoted)
    return text


def _rows(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    return int(connection.execute("SELECT count(*) FROM query_table(?)", [table]).fetchall()[0][0])
