"""What figures and tables say of the share of the degraded cells that a budget had evaluated."""

import pandas as pd

from cnnsens_bench.figures.summary import evaluated_text
from cnnsens_bench.store import Store


def evaluated_caption(store: Store, table: pd.DataFrame) -> str:
    """Say which share of the degraded cells was evaluated; "" where no run has a budget below 1.

    Parameters
    ----------
    store
        The results.
    table
        What is shown: rows with the columns `protocol` and `dataset`.
    """
    shown = table[["protocol", "dataset"]].drop_duplicates().itertuples(index=False)
    texts = {row.dataset: text for row in shown if (text := evaluated_text(store, row.protocol, row.dataset))}
    if len(set(texts.values())) > 1:
        return "; ".join(f"{dataset}: {text}" for dataset, text in texts.items())
    return next(iter(texts.values()), "")
