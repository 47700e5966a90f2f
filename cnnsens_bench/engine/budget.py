"""Which degraded cells of each image a budget pays for. `plan.py` plans these and no others.

Nothing here depends on networks, on other images or on what is stored, so that every process chooses the same cells.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cnnsens_bench.degradations.streams import Streams
from cnnsens_bench.engine.sweep import Sweep
from cnnsens_bench.utils.compiled_loops import keep_code
from cnnsens_bench.utils.cpu_libraries import numba

NO_TRIAL = -1
"""Takes the place of the trial in the streams of the choice, so that they are none of a degradation's draws."""


@dataclass(frozen=True)
class CellChoice:
    """The cells that a sweep's budget pays for, image by image.

    Each image has one order of its degraded cells. Its degradations take turns, in the order of their hashes, and each
    gives its next cell, in the order of the cells' hashes, until it has no more. The image takes the first
    ⌊budget · cells + u⌋ of them, so that a larger budget adds cells and drops none. The hashes are of (seed, dataset,
    image id) and of the cell; u in [0, 1) is hashed too, so that the number of cells is exact on average. The
    undegraded cell is always taken.

    Parameters
    ----------
    sweep
        The sweep, whose budget is below 1.

    Examples
    --------
    >>> from cnnsens_bench.engine.sweep import Condition
    >>> conditions = Condition("pepper", (0.1, 0.2), 3), Condition("hue_local", (8.0, 16.0), 3)
    >>> chosen = CellChoice(Sweep("run", "birds", (), conditions, budget=0.5)).of(["a", "b"])
    >>> chosen.shape, chosen.sum(axis=1).tolist(), chosen[:, 0].tolist()
    ((2, 13), [7, 7], [True, True])
    """

    sweep: Sweep

    def of(self, image_ids: Sequence[str]) -> np.ndarray:
        """Return which cells each image takes: (images, cells) bool, in the order of `Sweep.cells`."""
        degraded = self.sweep.cells()[1:]
        by_condition = self.sweep.cells_by_condition()
        ends = np.array([0, *(positions.stop - 1 for _, positions in by_condition)], np.int64)
        degradations = _codes([[condition.degradation] for condition, _ in by_condition])
        cells = _codes([[cell.degradation, cell.level, cell.trial] for cell in degraded])
        keys = self._keys(image_ids)
        chosen = np.zeros((len(keys), 1 + len(degraded)), bool)
        chosen[:, 0] = True
        _choose(np.ascontiguousarray(keys[:, 1]), self._counts(keys), degradations, ends, cells, chosen)
        return chosen

    def counts(self, image_ids: Sequence[str]) -> np.ndarray:
        """Return how many cells each image takes, the undegraded one among them: (images,) int64."""
        return 1 + self._counts(self._keys(image_ids))

    def _keys(self, image_ids: Sequence[str]) -> np.ndarray:
        """Return the random bits of each image: (images, 2) uint64."""
        return Streams(self.sweep.seed, self.sweep.dataset, image_ids, NO_TRIAL, degradation="budget").keys

    def _counts(self, keys: np.ndarray) -> np.ndarray:
        """Return ⌊budget · cells + u⌋ of each image, with u the upper 53 bits of its first key."""
        cells = len(self.sweep.cells()) - 1
        uniform = (keys[:, 0] >> np.uint64(11)).astype(float) * 2.0**-53
        return np.minimum(np.floor(self.sweep.budget * cells + uniform).astype(np.int64), cells)


def _codes(names: Sequence[list]) -> np.ndarray:
    """Return a hash of each name: (names,) uint64."""
    digests = [hashlib.blake2b(json.dumps(name).encode(), digest_size=8).digest() for name in names]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


@numba.njit(inline="always")
def _mixed(bits):  # type: ignore[no-untyped-def]
    """Return SplitMix64's output for a state (Steele, Lea & Flood 2014), by which a key and a code become one hash."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@keep_code
@numba.njit(nogil=True)
def _choose(keys, counts, degradations, ends, cells, chosen):  # type: ignore[no-untyped-def]
    """Mark each image's cells in `chosen`. Those of degradation d are from `ends[d]` to before `ends[d + 1]`."""
    kinds = degradations.shape[0]
    first = np.empty(kinds, np.uint64)
    hashes = np.empty(cells.shape[0], np.uint64)
    shares = np.empty(kinds, np.int64)
    for image in range(keys.shape[0]):
        key = keys[image]
        for kind in range(kinds):
            first[kind] = _mixed(key ^ degradations[kind])
        turns = np.argsort(first)
        shares[:] = 0
        left = counts[image]
        while left > 0:
            for turn in turns:
                if left > 0 and shares[turn] < ends[turn + 1] - ends[turn]:
                    shares[turn] += 1
                    left -= 1
        for kind in range(kinds):
            if shares[kind] > 0:
                start = ends[kind]
                for cell in range(start, ends[kind + 1]):
                    hashes[cell] = _mixed(key ^ cells[cell])
                order = np.argsort(hashes[start : ends[kind + 1]])
                for position in range(shares[kind]):
                    chosen[image, 1 + start + order[position]] = True
