"""The methods of `Results` that answer what to decide: up to which level a network holds, and when it should refuse."""

import pandas as pd

from cnnsens_bench.figures.failure_points import failure_point_table
from cnnsens_bench.figures.selective import curve_table, selective_table
from cnnsens_bench.measures.failure_points import CHANGE
from cnnsens_bench.store import Store


class DecisionTables:
    """Tables of failure points and of selective prediction from a store."""

    _store: Store

    def failure_points(self, change: float = CHANGE, resamples: int = 1000) -> pd.DataFrame:
        """Return the level at which each entrant's accuracy has fallen halfway to chance, and p_Δ passes a share.

        The failure points of single images are the view of this name: `query("FROM failure_points")`.

        Parameters
        ----------
        change
            The share of changed labels that p_Δ passes, in (0, 1).
        resamples
            The largest number of bootstrap resamples of the images.

        Returns
        -------
        pandas.DataFrame
            A row for each entrant (protocol, dataset, model, defense, with `n_classes`), degradation, direction and
            criterion: `threshold`; `level`, with `low` and `high` of its 95 % interval, each of which is ∞ beyond the
            strongest level (−∞ where levels fall); `strongest`; `n_levels`. The page on failure points explains them.

        Raises
        ------
        UserError
            For a share of changed labels that is not between 0 and 1.
        """
        return failure_point_table(self._store, change, resamples)

    def selective_accuracy(
        self,
        accuracy: float = 0.95,
        coverage: float = 0.9,
        resamples: int = 200,
        *,
        protocol: str | None = None,
        dataset: str | None = None,
        model: str | None = None,
        defense: str | None = None,
    ) -> pd.DataFrame:
        """Return what is gained where the least certain predictions are refused, by confidence and by other scores.

        Parameters
        ----------
        accuracy
            The accuracy on undegraded images for which thresholds are chosen, in (0, 1].
        coverage
            The share of the predictions that is kept, in (0, 1].
        resamples
            The largest number of bootstrap resamples of the images; 0 for no intervals, which is faster.
        protocol, dataset, model, defense
            Which entrants; None for all.

        Returns
        -------
        pandas.DataFrame
            A row for each entrant, condition and score: the area under the risk–coverage curve `aurc`, its `gain` over
            that of confidence, and `accuracy` at the coverage, with intervals; the `threshold` that keeps the wanted
            accuracy undegraded, with the shares `kept_undegraded` and `kept`, and `kept_accuracy`. The page on refusing
            predictions explains them.

        Raises
        ------
        UserError
            For shares that are not in (0, 1], and for names that the database does not have.
        """
        wanted = {"protocol": protocol, "dataset": dataset, "model": model, "defense": defense}
        return selective_table(self._store, accuracy, coverage, resamples, **wanted)

    def risk_coverage(
        self,
        *,
        protocol: str | None = None,
        dataset: str | None = None,
        model: str | None = None,
        defense: str | None = None,
    ) -> pd.DataFrame:
        """Return the risk–coverage curves: the error rate among the most certain predictions, for each share kept.

        Parameters
        ----------
        protocol, dataset, model, defense
            Which entrants; None for all.

        Returns
        -------
        pandas.DataFrame
            Rows for each entrant, condition and score: `coverage` from 0.01 to 1, `risk` and `threshold`, the lowest
            score that is kept.

        Raises
        ------
        UserError
            For names that the database does not have.
        """
        return curve_table(self._store, protocol=protocol, dataset=dataset, model=model, defense=defense)
