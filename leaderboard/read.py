"""Reads results databases: the leaderboard's only code that knows DuckDB.

Each is attached read-only, summed per image into memory, and detached: single predictions never leave it.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from cnnsens_bench.store.read import attach
from cnnsens_bench.utils.errors import UserError, first_line

AT_ONCE = 4_000_000
"""Predictions that one statement sums up: what bounds the memory."""
KEY = ["protocol", "dataset", "model", "defense", "weights"]


@dataclass
class Results:
    """What the databases hold together. `entrants`: a row each, with `entrant`, `board`, `name` and what `models` says;
    `boards`: a row each, protocol × data set, never mixed; `runs` and `failures` of all."""

    entrants: pd.DataFrame
    boards: pd.DataFrame
    runs: pd.DataFrame
    failures: pd.DataFrame
    run_ids: dict[int, list[str]]
    """entrant → the runs that made its predictions."""
    paths: list[Path]
    connection: duckdb.DuckDBPyConnection = field(repr=False)

    def query(self, name: str, **parameters: Any) -> pd.DataFrame:
        """The answer of `sql/<name>.sql`."""
        return self.connection.execute(_sql(name), parameters or None).df()


def read(paths: Sequence[Path]) -> Results:
    """Sum up the databases. Raises `UserError` for a file that is none, one of another version, or empty ones.

    The same network may come with other weights in another file: those are entrants of their own, whose `name` tells
    the weights. What two databases have of the same image under the same condition and weights counts once.
    """
    paths = list(dict.fromkeys(paths))
    connection = duckdb.connect()
    connection.execute(_sql("tables"))
    found, runs, failures = [], [], []
    for number, path in enumerate(paths):
        attach(connection, path)
        try:
            found.append(connection.execute(_sql("entrants")).df().assign(file=number))
            runs.append(connection.execute(_sql("runs")).df().assign(file=number))
            failures.append(connection.execute(_sql("failures")).df().assign(file=number))
            connection.execute(_sql("names"))
        except duckdb.Error as error:
            raise UserError(f"{path} cannot be read ({first_line(error)}): it has not the tables of a run") from None
        finally:
            connection.execute("DETACH source")
    entrants, mapped = _entrants(pd.concat(found, ignore_index=True))
    if entrants.empty:
        which = ", ".join(str(path) for path in paths)
        raise UserError(f"{which} has no predictions yet: a run brings them, python -m cnnsens_bench.run")
    boards = entrants[["protocol", "dataset", "board"]].drop_duplicates("board").sort_values("board")
    connection.register("entrant_board_rows", entrants[["entrant", "board"]])
    connection.execute("CREATE TABLE entrant_board AS FROM entrant_board_rows")
    _each(connection, paths, mapped, "load")
    connection.execute(_sql("merge"))
    _each(connection, paths, mapped, "calibration")
    _each(connection, paths, mapped, "timings", of="speed")
    run_ids = {int(entrant): list(rows.unique()) for entrant, rows in mapped.groupby("entrant")["run_id"]}
    every = pd.concat(runs, ignore_index=True).drop_duplicates("run_id")
    missed = pd.concat(failures, ignore_index=True).drop_duplicates(["run_id", "dataset", "stage"])
    return Results(entrants, boards, every, missed, run_ids, paths, connection)


def _each(
    connection: duckdb.DuckDBPyConnection, paths: Sequence[Path], mapped: pd.DataFrame, name: str, of: str | None = None
) -> None:
    """Run a statement on every database; `of`: only on those that have this table, which older ones have not."""
    for number, path in enumerate(paths):
        if attach(connection, path) >= ({of} if of else set()):
            try:
                for part in _parts(mapped[mapped["file"] == number]):
                    connection.register("entrant_map", part)
                    connection.execute(_sql(name), None if of else {"file": number})
            except (duckdb.CatalogException, duckdb.BinderException) as error:
                raise UserError(
                    f"{path} cannot be read ({first_line(error)}): it has not the columns of this version's runs"
                ) from None
        connection.execute("DETACH source")


def _parts(mapped: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Whole entrants with about `AT_ONCE` predictions together."""
    sums = mapped.groupby("entrant")["predictions"].sum().cumsum()
    for _, part in mapped.groupby((sums // AT_ONCE).reindex(mapped["entrant"]).to_numpy()):
        yield part


def _entrants(found: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row an entrant, and which entrant the rows of each file, run, data set, model and defense belong to."""
    # Unknown weights are not taken for another file's.
    unknown = "unknown, file " + (found["file"] + 1).astype(str)
    found = found.assign(weights=found["weights_sha256"].astype(object).where(found["weights_sha256"].notna(), unknown))
    entrants = (
        found.drop_duplicates(KEY).drop(columns=["run_id", "file", "predictions"]).sort_values(KEY, ignore_index=True)
    )
    entrants["entrant"] = range(len(entrants))
    entrants["board"] = entrants.groupby(["protocol", "dataset"]).ngroup()
    several = entrants.duplicated(KEY[:-1], keep=False)
    short = entrants["weights"].str.removeprefix("unknown, ").str.slice(0, 8)
    entrants["name"] = entrants["model"].where(~several, entrants["model"] + "@" + short)
    mapped = found.merge(entrants[[*KEY, "entrant"]], on=KEY)
    return entrants, mapped[["file", "run_id", "dataset", "model", "defense", "entrant", "predictions"]]


@functools.cache
def _sql(name: str) -> str:
    return resources.files("leaderboard").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
