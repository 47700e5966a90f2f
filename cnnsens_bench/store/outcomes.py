"""Which predictions of a sweep are right, and which labels have changed, as arrays of images and cells."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from cnnsens_bench.store.database import Store
from cnnsens_bench.store.schema import SQL


class Outcomes(NamedTuple):
    """What became of the images under each cell, for one entrant: (images, cells) float32, NaN where nothing is stored.

    Attributes
    ----------
    hit
        1 where the prediction is right, 0 where it is not.
    changed
        1 where the label differs from the one that the entrant predicted for the undegraded image, 0 where it does not.
    """

    hit: np.ndarray
    changed: np.ndarray


def outcomes(
    store: Store,
    protocol: str,
    dataset: str,
    entrants: Iterable[tuple[str, str]],
    image_ids: list[str],
    cells: pd.DataFrame,
) -> Iterator[Outcomes]:
    """Yield the outcomes of entrants, one after the other.

    Parameters
    ----------
    store
        The store of a run.
    protocol, dataset
        Which rows of the store are read.
    entrants
        The model and the defense of each entrant.
    image_ids
        The images, in the order of the arrays' rows.
    cells
        The cells, in the order of the arrays' columns: degradation, level and trial.
    """
    images = pd.DataFrame({"image_id": pd.Series(image_ids, dtype="str"), "image": np.arange(len(image_ids))})
    numbered = cells.assign(cell=np.arange(len(cells)))
    for model, defense in entrants:
        parameters = {"protocol": protocol, "dataset": dataset, "model": model, "defense": defense}
        with store.connect(10, read_only=True) as connection:
            connection.register("wanted_images", images)
            connection.register("wanted_cells", numbered)
            rows = connection.execute(SQL["outcomes"], parameters).df()
        found = Outcomes(*(np.full((len(images), len(cells)), np.nan, np.float32) for _ in Outcomes._fields))
        for name, table in found._asdict().items():
            table[rows["image"], rows["cell"]] = rows[name]
        yield found
