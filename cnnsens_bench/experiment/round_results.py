"""What the rounds of a sweep have told of its entrants: means over conditions, with their variances."""

import dataclasses

import numpy as np
import pandas as pd

from cnnsens_bench.datasets.sample_table import ImageSelection
from cnnsens_bench.engine.budget import CellChoice
from cnnsens_bench.engine.sweep import Sweep
from cnnsens_bench.measures.sequential import Looks, mean_of_cells, planned_shares
from cnnsens_bench.store import Store
from cnnsens_bench.store.outcomes import Outcomes, outcomes


class RoundResults:
    """The means of a board's entrants after each round, with their variances over samples of images.

    Parameters
    ----------
    sweep
        The whole sweep. Its budget is the share of the last round.
    images
        The images.
    store
        The store of the run.
    protocol
        The hash of the protocol.
    paired
        Whether `looks` will be asked for, which needs a number for each image, entrant and round.

    Attributes
    ----------
    shares
        The share of each round from position 1 on. Position 0 has half the share of the first round: the variances of
        these two tell how variances fall.
    names
        The entrants, as sentences name them.
    values, variances
        By the fields of `Outcomes`, shape (shares, entrants): NaN where an entrant took no part.
    """

    def __init__(self, sweep: Sweep, images: ImageSelection, store: Store, protocol: str, paired: bool) -> None:
        self.sweep, self.store, self.protocol, self.paired = sweep, store, protocol, paired
        self.ids = [image_id for frame in images.frames(("image_id",)) for image_id in frame["image_id"]]
        self.cells = sweep.cells()[1:]
        planned = planned_shares(sweep.budget, len(self.cells))
        self.shares = planned[0] / 2, *planned
        self.names = [e.model if e.defense == "none" else f"{e.model} with {e.defense}" for e in sweep.entrants]
        shape = len(self.shares), len(sweep.entrants)
        self.values, self.variances = ({name: np.full(shape, np.nan) for name in Outcomes._fields} for _ in range(2))
        self._reached = np.full(len(sweep.entrants), -1)
        self._influences = np.zeros((*shape, len(self.ids) if paired else 0), np.float32)
        self._first = self._first_rounds()

    @property
    def rounds(self) -> int:
        """The largest number of rounds."""
        return len(self.shares) - 1

    def add(self, number: int, entrants: np.ndarray) -> None:
        """Read the predictions of entrants that took part in a round, and of rounds that they left out before.

        Parameters
        ----------
        number
            The round, counted from 1.
        entrants
            The positions of the entrants in the sweep.
        """
        cells = pd.DataFrame(
            [dataclasses.astuple(cell) for cell in self.cells], columns=["degradation", "level", "trial"]
        )
        pairs = [(self.sweep.entrants[position].model, self.sweep.entrants[position].defense) for position in entrants]
        found = outcomes(self.store, self.protocol, self.sweep.dataset, pairs, self.ids, cells)
        for entrant, own in zip(entrants.tolist(), found, strict=True):
            for position in range(self._reached[entrant] + 1, number + 1):
                self._look(position, entrant, own)
            self._reached[entrant] = number

    def passes(self, number: int, entrants: np.ndarray) -> int:
        """Return about how many passes a round asks entrants for."""
        reached = np.array(self.shares)[self._reached[entrants]]
        return round(len(self.ids) * len(self.cells) * float((self.shares[number] - reached).sum()))

    def evaluated(self) -> str:
        """Say which share of the cells was evaluated."""
        share = np.array(self.shares)[self._reached].mean()
        return f"evaluated: {100 * share:.1f} % of the degraded cells, on average over {len(self.names)} networks"

    def looks(self, number: int) -> Looks:
        """Return what is known of the mean degraded accuracies after a round."""
        influences = (self._influences[position].astype(float) for position in range(number + 1))
        covariances = np.array([own @ own.T for own in influences]) / len(self.ids) ** 2
        values = self.values["hit"][: number + 1]
        return Looks(self.shares[: number + 1], values, covariances, len(self.ids), self.sweep.budget)

    def _look(self, position: int, entrant: int, own: Outcomes) -> None:
        """Compute the means of an entrant over the cells of a share."""
        taken, conditions = self._first <= position, [(cell.degradation, cell.level) for cell in self.cells]
        for name, table in own._asdict().items():
            mean = mean_of_cells(np.where(taken, table, np.nan), conditions)
            self.values[name][position, entrant] = mean.value
            self.variances[name][position, entrant] = np.nan if np.isnan(mean.value) else mean.variance
            if name == "hit" and self.paired:
                self._influences[position, entrant] = np.nan_to_num(mean.influence)

    def _first_rounds(self) -> np.ndarray:
        """Return the position of the first share that takes each cell, (images, cells)."""
        first = np.full((len(self.ids), len(self.cells)), len(self.shares), np.int8)
        for position, share in reversed(list(enumerate(self.shares))):
            if share == 1:
                first[:] = position
            else:
                chosen = CellChoice(dataclasses.replace(self.sweep, budget=share)).of(self.ids)
                first[chosen[:, 1:]] = position
        return first
