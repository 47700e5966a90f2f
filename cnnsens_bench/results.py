"""Results in Python: `open_results` gives the tables and views of a results database as pandas, and its figures."""

import base64
import contextlib
import html
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cnnsens_bench.figures.decision_tables import DecisionTables
from cnnsens_bench.measures.isotonic import recalibrate
from cnnsens_bench.measures.published import published_rates
from cnnsens_bench.store import Store, database_file, local_copy
from cnnsens_bench.store.read import results
from cnnsens_bench.store.schema import SQL
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import level_text
from cnnsens_bench.utils.registry import near
from cnnsens_bench.utils.storage import StoragePath, storage_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REFERENCE = "torchvision/alexnet"
SUMMARY = "FROM leaderboard ORDER BY dataset, mean_degraded_accuracy DESC NULLS LAST, accuracy DESC, model, defense"
SHOWN = {
    "accuracy": "accuracy",
    "mean_degraded_accuracy": "degraded",
    "mean_label_change": "label change",
    "worst_accuracy": "worst accuracy",
}
"""The columns of the leaderboard that the summary has, and what it calls them."""
NAMES = "SELECT table_name FROM duckdb_tables() UNION ALL SELECT view_name FROM duckdb_views() WHERE NOT internal"


def open_results(path: str | StoragePath) -> "Results":
    """Open the database of a run, to read it.

    Parameters
    ----------
    path
        A `results.duckdb`, or the output folder of a run that has one; a path or a URI such as `s3://bench/runs/cub`.
        A URI's database is copied to a temporary file once.

    Returns
    -------
    Results
        The tables, views and figures of the database.

    Raises
    ------
    UserError
        If there is no database, or it is not one of this version.

    Examples
    --------
    After a run of the suite `quick`::

        results = open_results("runs/quick")
        results.accuracy.query("degradation == 'pepper' and level == 0.16")
    """
    return Results(database_file(storage_path(path)))


class Results(DecisionTables, contextlib.AbstractContextManager["Results"]):
    """The results of runs: each table and view of the database is an attribute, read anew each time as a DataFrame.

    Each question opens the database for as long as it takes, so that a run may go on writing meanwhile. A `Results`
    of a URI keeps a temporary file, which `close` or the end of a `with` block removes.
    """

    def __init__(self, database: StoragePath) -> None:
        self._resources = contextlib.ExitStack()
        self._store: Store = results(self._resources.enter_context(local_copy(database)))
        self.database = database

    @property
    def names(self) -> list[str]:
        """The names of all tables and views."""
        return sorted(self._store.query(NAMES)["table_name"])

    def __getattr__(self, name: str) -> pd.DataFrame:
        """Return a table or view of that name."""
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in (known := self.names):
            raise AttributeError(f"{self.database} has no table or view '{name}'{near(name, known)}")
        return self.query("FROM query_table(?)", name)

    def __dir__(self) -> list[str]:
        """List the tables and views beside the methods."""
        return sorted({*super().__dir__(), *self.names})

    def query(self, sql: str, *parameters: Any) -> pd.DataFrame:
        """Return the rows that an SQL query gives.

        Parameters
        ----------
        sql
            A query in DuckDB's SQL, with a `?` for each parameter.
        *parameters
            The values of the parameters, in their order.

        Raises
        ------
        UserError
            If the query names a table, view or column that the database does not have.
        """
        return self._store.query(sql, list(parameters))

    def mce(self, reference: str) -> pd.DataFrame:
        """Return mCE, relative mCE and mean flip rate of every model and defense, relative to a reference model.

        Parameters
        ----------
        reference
            The model that counts as 1, without a defense, such as `torchvision/alexnet`; or `published:alexnet`, whose
            error rates on ImageNet-C are those of Hendrycks & Dietterich (2019). Published rates have no relative mCE
            and no flip rate.

        Raises
        ------
        UserError
            For published rates that there are none of.
        """
        published_rates(reference)
        return self.query("FROM mce(?)", reference)

    def agreement(self, reference: str) -> pd.DataFrame:
        """Return how often every other model and defense predicts the same label as a reference model.

        Parameters
        ----------
        reference
            The model that is agreed with, without a defense, such as the float network of a quantised one.

        Returns
        -------
        pandas.DataFrame
            For each model, defense and condition: `value`, the share of (image, trial) in [0, 1], with `low` and `high`
            of its 95 % interval, `n_images` and `n_trials`.
        """
        return self.query("FROM agreement(?)", reference)

    def recalibrated_label_change(self, folds: int = 5) -> pd.DataFrame:
        """Return what predictors expect of each image, recalibrated on the trials that there are.

        Each predictor of each model and defense has a monotone map for each degradation, which all levels share. It is
        fitted to images with trials by isotonic regression, and cross-fitted, so that no image calibrates itself. On a
        `budget`, images without trials of a condition are mapped too.

        Parameters
        ----------
        folds
            The number of folds of images, at least 2.

        Returns
        -------
        pandas.DataFrame
            The columns of the view `expected_label_change`; `measured` (NaN without trials) and `n_trials`; and
            `recalibrated`, the probability of a label change after the map.
        """
        rows = self.query(SQL["expected_and_measured"])
        rows["recalibrated"] = rows["predicted"]
        for _, own in rows.groupby(["protocol", "dataset", "model", "defense", "predictor", "degradation"]):
            predicted, measured, trials = own[["predicted", "measured", "n_trials"]].to_numpy(float).T
            rows.loc[own.index, "recalibrated"] = recalibrate(predicted, measured, trials, own["image_id"], folds)
        return rows

    def summary(self) -> pd.DataFrame:
        """Return a row for each model and defense, in per cent, best mean degraded accuracy first.

        Returns
        -------
        pandas.DataFrame
            Indexed by dataset, model and defense: the `accuracy` of undegraded images; the means over levels, then over
            degradations, `degraded` (accuracy) and `label change`; the condition of the lowest accuracy, `worst`, and
            its accuracy, `worst accuracy`.
        """
        rows = self.query(SUMMARY)
        conditions = zip(rows["worst_degradation"], rows["worst_level"], strict=True)
        worst = [
            f"{name} {level_text(name, level)}".strip() if isinstance(name, str) else "–" for name, level in conditions
        ]
        shares = ("accuracy", "mean_degraded_accuracy", "mean_label_change", "worst_accuracy")
        columns = {SHOWN[share]: (100 * rows[share]).round(1) for share in shares}
        table = rows[["dataset", "model", "defense"]].assign(**columns, worst=worst)
        order = [*(SHOWN[share] for share in shares[:3]), "worst", SHOWN[shares[3]]]
        return table.set_index(["dataset", "model", "defense"])[order]

    def page(self, folder: str | Path = "site", reference: str = REFERENCE) -> Path:
        """Write the leaderboard's page of this database, one file that opens from disk.

        Parameters
        ----------
        folder
            Its folder, which is made if it does not exist.
        reference
            The model that mCE is relative to.

        Returns
        -------
        Path
            The page, `<folder>/index.html`.

        Raises
        ------
        UserError
            Where the page cannot be written.
        """
        from leaderboard.page import build

        return build([Path(str(self._store.path))], Path(folder).expanduser(), reference)

    def plot(self, name: str = "curves", **options: Any) -> "Figure":
        """Draw a figure.

        Parameters
        ----------
        name
            A figure of `python -m cnnsens_bench.figures`, such as `curves`, `fig2` or `table1`.
        **options
            What the figure takes beside the database: `dataset`, `model`, `defense`, …

        Returns
        -------
        matplotlib.figure.Figure
            The figure, which a notebook shows.

        Raises
        ------
        UserError
            If there is no such figure, or the database has nothing to show in it.
        """
        from cnnsens_bench.figures.catalogue import ALL_FIGURES

        if name not in ALL_FIGURES:
            raise UserError(f"unknown figure '{name}'{near(name, ALL_FIGURES)}")
        with tempfile.TemporaryDirectory() as folder:  # a figure is written as well as returned
            figure = ALL_FIGURES[name](self._store, Path(folder, "figure.png"), **options)
        assert figure is not None, "a table is returned as a figure where it is written as a picture"
        return figure

    def close(self) -> None:
        """Remove the temporary copy of a URI's database."""
        self._resources.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Results({str(self.database)!r}): {', '.join(self.names)}"

    def _repr_html_(self) -> str:
        """Return the summary and the curves as a notebook shows them."""
        heading = f"<p><code>{html.escape(str(self.database))}</code>: {html.escape(', '.join(self.names))}</p>"
        return heading + self.summary().to_html(na_rep="–", float_format="{:.1f}".format) + self._curves()

    def _curves(self) -> str:
        """Return the curves as an element of HTML; nothing where the database has none, or those of several studies."""
        picture = io.BytesIO()
        try:
            self.plot("curves").savefig(picture, format="png", dpi=72)
        except UserError:
            return ""
        encoded = base64.b64encode(picture.getvalue()).decode()
        return f'<img alt="accuracy over levels" src="data:image/png;base64,{encoded}">'
