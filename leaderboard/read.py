"""Reads results databases. No other file of the leaderboard uses DuckDB.

Each database is attached read-only, summed up per image in memory, and detached: single predictions stay in it.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from cnnsens_bench.store.read import attach
from cnnsens_bench.utils.errors import UserError, first_line
from cnnsens_bench.utils.sql import statements
from leaderboard.budget import boards_in_rounds, budgeted_boards

AT_ONCE = 4_000_000
"""About how many predictions one statement sums up, which bounds the memory."""
MEMORY = "800MB"
"""How much memory the sums per image take before they go to temporary files."""
MOST_SORTED = 5_000_000
"""About how many predictions of a board are sorted by confidence within a few seconds."""
MOST_THREADS = 4
"""Each thread needs some of the memory."""
KEY = ["baseline", "protocol", "dataset", "model", "defense", "weights"]


@dataclass
class LoadedResults:
    """What several databases hold together.

    Parameters
    ----------
    entrants
        A row per entrant: its number `entrant`, that of its board, its `name`, what the table `models` says, and
        whether it is of the `baseline`.
    boards
        A row per board, which is one protocol on one data set: board, protocol, dataset.
    runs, failures
        The runs of all databases, and the numbers of images that failed in each stage.
    run_ids
        By entrant: the runs that made its predictions.
    sources
        Which rows of which database belong to which entrant.
    paths
        The databases.
    budgeted
        The boards on which a run may leave out cells.
    connection
        The database in memory that holds the sums.
    """

    entrants: pd.DataFrame
    boards: pd.DataFrame
    runs: pd.DataFrame
    failures: pd.DataFrame
    run_ids: dict[int, list[str]]
    sources: pd.DataFrame
    paths: list[Path]
    budgeted: set[int]
    connection: duckdb.DuckDBPyConnection = field(repr=False)

    def query(self, name: str, **parameters: Any) -> pd.DataFrame:
        """Return the answer of a named statement of `sql/board.sql`."""
        return self.connection.execute(statements("leaderboard")[name], parameters or None).df()

    def agreement(self, first: int, second: int) -> pd.DataFrame:
        """Return how often two entrants predict the same label.

        Parameters
        ----------
        first, second
            The numbers of the entrants.

        Returns
        -------
        pandas.DataFrame
            A row for each condition and image that both have: degradation, level, image_id, `same`, the share of the
            trials of both in which the labels are equal, and `trials`, their number.
        """
        self.query("create_paired")
        of_both = self.sources[self.sources["entrant"].isin([first, second])]
        _load(self.connection, self.paths, of_both, "pair_predictions", table="predictions")
        return self.query("agreement", first=first, second=second)

    def selection(self, board: int) -> pd.DataFrame | None:
        """Return how well confidence tells right predictions from wrong ones on a board.

        Parameters
        ----------
        board
            The number of the board.

        Returns
        -------
        pandas.DataFrame or None
            A row for each entrant and condition that have confidences, sorted: `aurc`, the area under the
            risk–coverage curve, and `accuracy_at_90`, the accuracy of the 90 % most confident predictions, as in the
            view `confidence_selection`. None for a board of more than `MOST_SORTED` predictions.
        """
        entrants = self.entrants.loc[self.entrants["board"] == board, "entrant"]
        own = self.sources[self.sources["entrant"].isin(entrants)]
        if own["predictions"].sum() > MOST_SORTED:
            return None
        self.connection.execute("DELETE FROM selection")
        _load(self.connection, self.paths, own, "load_selection")
        return self.query("selection", board=board)


def read(paths: Sequence[Path], baseline: Path | None = None) -> LoadedResults:
    """Sum up databases in memory.

    A network of the same name may have other weights in another database. Those are entrants of their own, and their
    `name` tells the weights apart. What several databases have of the same image, condition and weights counts once.

    Parameters
    ----------
    paths
        Results databases of runs.
    baseline
        A further database, whose entrants stay apart from those of the others, even with the same weights.

    Returns
    -------
    LoadedResults
        What they hold together.

    Raises
    ------
    UserError
        Where a file is not a results database or of another version, and where there are no predictions.
    """
    paths = list(dict.fromkeys([*([baseline] if baseline else []), *paths]))
    threads = min(MOST_THREADS, os.cpu_count() or 1)
    bounds = {"memory_limit": MEMORY, "threads": str(threads), "temp_directory": tempfile.gettempdir()}
    connection = duckdb.connect(config=bounds)  # type: ignore[arg-type]  # dict is invariant
    sql = statements("leaderboard")
    connection.execute(sql["create_tables"])
    found, runs, failures = [], [], []
    for number, path in enumerate(paths):
        attach(connection, path)
        try:
            found.append(connection.execute(sql["source_entrants"]).df().assign(file=number, baseline=path == baseline))
            runs.append(connection.execute(sql["source_runs"]).df().assign(file=number))
            failures.append(connection.execute(sql["source_failures"]).df().assign(file=number))
            connection.execute(sql["load_class_names"])
        except duckdb.Error as error:
            raise UserError(f"{path} cannot be read ({first_line(error)}): it has not the tables of a run") from None
        finally:
            connection.execute("DETACH source")
    entrants, sources = _entrants(pd.concat(found, ignore_index=True))
    if entrants.empty:
        which = ", ".join(str(path) for path in paths)
        raise UserError(f"{which} has no predictions yet: a run brings them, python -m cnnsens_bench.run")
    boards = entrants[["protocol", "dataset", "board"]].drop_duplicates("board").sort_values("board")
    connection.register("entrant_board_rows", entrants[["entrant", "board"]])
    connection.execute("CREATE TABLE entrant_board AS FROM entrant_board_rows")
    all_runs = pd.concat(runs, ignore_index=True).drop_duplicates("run_id")
    budgeted = budgeted_boards(all_runs, entrants, sources)
    if budgeted:
        of_these = sources[sources["entrant"].isin(entrants.loc[entrants["board"].isin(budgeted), "entrant"])]
        _load(connection, paths, of_these, "load_evaluated")
        connection.execute(sql["find_unequal"])
        # Rounds give close entrants more cells, which a comparison on the cells of all would leave out again.
        in_rounds = entrants["board"].isin(boards_in_rounds(all_runs, entrants, sources))
        restricted = of_these[~of_these["entrant"].isin(entrants.loc[in_rounds, "entrant"])]
        _load(connection, paths, restricted, "load_cells", table="predictions")
        connection.execute(sql["find_unshared"])
    _load(connection, paths, sources, "load_keys", table="predictions")
    connection.execute(sql["number_keys"])
    _load(connection, paths, sources, "load_shares")
    connection.execute(sql["merge"])
    _load(connection, paths, sources, "load_calibration")
    _load(connection, paths, sources, "load_timings", table="speed")
    run_ids = {int(entrant): list(rows.unique()) for entrant, rows in sources.groupby("entrant")["run_id"]}
    all_failures = pd.concat(failures, ignore_index=True).drop_duplicates(["run_id", "dataset", "stage"])
    return LoadedResults(entrants, boards, all_runs, all_failures, run_ids, sources, paths, budgeted, connection)


def _load(
    connection: duckdb.DuckDBPyConnection, paths: Sequence[Path], sources: pd.DataFrame, statement: str, table: str = ""
) -> None:
    """Run a statement on every database, or only on those that have a table which older ones lack."""
    for number, path in enumerate(paths):
        if attach(connection, path) >= ({table} if table else set()):
            try:
                for group in _groups(sources[sources["file"] == number]):
                    connection.register("entrant_map", group)
                    connection.execute(statements("leaderboard")[statement], None if table else {"file": number})
            except (duckdb.CatalogException, duckdb.BinderException) as error:
                raise UserError(
                    f"{path} cannot be read ({first_line(error)}): it has not the columns of this version's runs"
                ) from None
        connection.execute("DETACH source")


def _groups(sources: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Split the rows into groups of whole entrants with about `AT_ONCE` predictions each."""
    sums = sources.groupby("entrant")["predictions"].sum().cumsum()
    for _, group in sources.groupby((sums // AT_ONCE).reindex(sources["entrant"]).to_numpy()):
        yield group


def _entrants(found: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Number the entrants; return them, and which rows of which file belong to which of them."""
    # Unknown weights are never taken for those of another file.
    unknown = "unknown, file " + (found["file"] + 1).astype(str)
    found = found.assign(weights=found["weights_sha256"].astype(object).where(found["weights_sha256"].notna(), unknown))
    # What `models` says of the outputs may be known from one file and not from another.
    known_first = found.sort_values("outputs", na_position="last", kind="stable")
    entrants = (
        known_first.drop_duplicates(KEY)
        .drop(columns=["run_id", "file", "predictions"])
        .sort_values(KEY, ignore_index=True)
    )
    entrants["entrant"] = range(len(entrants))
    entrants["board"] = entrants.groupby(["protocol", "dataset"]).ngroup()
    several = entrants.duplicated(KEY[:-1], keep=False)
    short = entrants["weights"].str.removeprefix("unknown, ").str.slice(0, 8)
    entrants["name"] = entrants["model"].where(~several, entrants["model"] + "@" + short)
    sources = found.merge(entrants[[*KEY, "entrant"]], on=KEY)
    return entrants, sources[["file", "run_id", "dataset", "model", "defense", "entrant", "predictions"]]
