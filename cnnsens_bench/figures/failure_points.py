"""The failure points of all entrants of a store, as a table."""

import pandas as pd

from cnnsens_bench.measures.failure_points import COLUMNS, failure_points
from cnnsens_bench.store import Store
from cnnsens_bench.store.schema import SQL
from cnnsens_bench.utils.errors import UserError

ENTRANT = ["protocol", "dataset", "model", "defense"]


def failure_point_table(store: Store, change: float, resamples: int) -> pd.DataFrame:
    """Return the failure points of each entrant of a store, with intervals.

    Parameters
    ----------
    store
        The results.
    change, resamples
        As for `measures.failure_points.failure_points`.

    Returns
    -------
    pandas.DataFrame
        Its rows, after the columns of `ENTRANT` and the number of its classes, `n_classes`.

    Raises
    ------
    UserError
        Where `change` is not between 0 and 1.
    """
    if not 0 < change < 1:
        raise UserError(f"change={change!r} is not between 0 and 1: it is the share of changed labels, such as 0.1")
    tables = []
    for entrant in store.query(SQL["entrants_with_classes"]).to_dict("records"):
        shares = store.query(SQL["shares_of_entrant"], [entrant[name] for name in ENTRANT])
        wide = shares.pivot(index="image_id", columns=["degradation", "level"], values=["hit", "changed"])
        hit, changed = wide["hit"], wide["changed"].reindex(columns=wide["hit"].columns)
        conditions = hit.columns.to_frame(index=False)
        points = failure_points(
            conditions, hit.to_numpy(float), changed.to_numpy(float), entrant["chance"], change, resamples
        )
        keys = [*ENTRANT, "n_classes"]
        tables.append(pd.DataFrame([[entrant[key] for key in keys]] * len(points), columns=keys).join(points))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*ENTRANT, "n_classes", *COLUMNS])
