"""What runs in rounds find out, and for how many passes, by replaying a table of networks whose order is known.

    python benchmarks/ranked_rounds.py [--json FILE] [--replays 500]

The table is made up: 300 images × 15 degradations × 5 levels × 8 networks, whose hits depend on how hard the image, the
condition and both together are, for all networks and for each. Two networks have equal accuracies under every
condition; the others differ by 2 to 6 points from the next. A replay draws images of the table with replacement, under
new ids, so that the table is the population and its means are the truth. It decides as a run does.

`until=ranked`: `separated` is the share of pairs of networks that the rounds report as separated, of those that the
whole table of the replay separates at 95 %; `separated_neighbours` has the same for neighbours in the order. `false` is
the share of reported separations whose order is not that of the population, and `equal_separated` the share of replays
in which the two equal networks are separated, whose limit is 0.05. `passes` is the share of the passes of the whole
table. `coverage` is the share of 95 % intervals, each of the last round of its network, that hold the truth.
`until=<points>` with a tenth more than the half-width that the whole table gives: `points.passes`, `points.coverage`.
"""

import argparse
from pathlib import Path

import numpy as np
from reporting import show

from cnnsens_bench.engine.budget import CellChoice
from cnnsens_bench.engine.sweep import Condition, Sweep
from cnnsens_bench.measures.intervals import Z
from cnnsens_bench.measures.sequential import SEPARATED, UNDECIDED, Looks, mean_of_cells, planned_shares

IMAGES = 300
SKILLS = (0.0, 0.0, 0.15, 0.3, 0.45, 0.65, 0.9, 1.3)
CONDITIONS = tuple(Condition(f"common:{number}", (1.0, 2.0, 3.0, 4.0, 5.0), 1) for number in range(15))
CELLS = [(condition.degradation, level) for condition in CONDITIONS for level in condition.levels]
PLANNED = planned_shares(1.0, len(CELLS))
SHARES = PLANNED[0] / 2, *PLANNED
FIRST, SECOND = np.triu_indices(len(SKILLS), 1)


def made_table(seed: int = 0) -> np.ndarray:
    """Return hits, (networks, images, cells) float32; the first two networks have equal means under every condition."""
    rng = np.random.default_rng(seed)
    networks, cells = len(SKILLS), len(CELLS)
    severity = np.tile(np.linspace(1.5, -2, 5), 15) + np.repeat(rng.normal(0, 0.7, 15), 5)
    shared = rng.normal(0, 1.5, (IMAGES, 1)) + rng.normal(0, 0.7, (IMAGES, cells))
    own = rng.normal(0, 0.8, (networks, IMAGES, 1)) + rng.normal(0, 0.75, (networks, IMAGES, cells))
    own += np.repeat(rng.normal(0, 0.6, (networks, IMAGES, 15)), 5, axis=2)
    hits = severity + shared + own + np.array(SKILLS)[:, None, None] > 0
    for cell in range(cells):
        lacking = int(hits[0, :, cell].sum()) - int(hits[1, :, cell].sum())
        candidates = np.flatnonzero(hits[1, :, cell] != (lacking > 0))
        hits[1, rng.permutation(candidates)[: abs(lacking)], cell] = lacking > 0
    return hits.astype(np.float32)


class Replay:
    """One run in rounds over images that are drawn from a table.

    Parameters
    ----------
    table
        Hits, (networks, images, cells).
    seed
        The seed of the images and of the choice of cells.
    """

    def __init__(self, table: np.ndarray, seed: int) -> None:
        images = np.random.default_rng(seed).integers(0, table.shape[1], size=(table.shape[1],))
        ids = [str(number) for number in range(len(images))]
        sweeps = [Sweep("run", "made", (), CONDITIONS, seed=seed, budget=share) for share in SHARES[:-1]]
        taken = [CellChoice(sweep).of(ids)[:, 1:] for sweep in sweeps]
        taken.append(np.ones_like(taken[0]))
        drawn = table[:, images]
        means = [[mean_of_cells(np.where(some, hits, np.nan), CELLS) for hits in drawn] for some in taken]
        self.values = np.array([[mean.value for mean in look] for look in means])
        influences = np.array([[mean.influence for mean in look] for look in means])
        self.covariances = influences @ influences.swapaxes(1, 2) / len(images) ** 2
        self.half_widths = Z * np.sqrt(np.diagonal(self.covariances, axis1=1, axis2=2))
        self.images = len(images)

    def ranked(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the last round of each network, the states of all pairs, and the order."""
        reached, chosen = np.zeros(len(SKILLS), int), np.arange(len(SKILLS))
        for number in range(1, len(SHARES)):
            reached[chosen] = number
            known = np.where(np.arange(number + 1)[:, None] <= reached, self.values[: number + 1], np.nan)
            looks = Looks(SHARES[: number + 1], known, self.covariances[: number + 1], self.images, 1.0)
            order, states = looks.order(), looks.pair_states()
            undecided = np.flatnonzero(states[order[:-1], order[1:]] == UNDECIDED)
            chosen = np.unique(np.concatenate([order[undecided], order[undecided + 1]]))
            if not len(chosen):
                break
        return reached, states, order

    def narrow(self, wanted: float) -> np.ndarray:
        """Return the round in which each network's interval is narrow enough, or the last one."""
        narrow = self.half_widths[1:] <= wanted
        return np.where(narrow.any(axis=0), narrow.argmax(axis=0), len(PLANNED) - 1) + 1

    def separated_by_all_cells(self) -> np.ndarray:
        """Return which pairs the whole table separates, (networks, networks) bool."""
        own, values = np.diagonal(self.covariances[-1]), self.values[-1]
        variances = own[:, None] + own - 2 * self.covariances[-1]
        return np.abs(values[:, None] - values) > Z * np.sqrt(np.maximum(variances, 0))

    def covers(self, reached: np.ndarray, truth: np.ndarray) -> float:
        """Return the share of the networks' intervals that hold the truth."""
        networks = np.arange(len(reached))
        return float((np.abs(self.values[reached, networks] - truth) <= self.half_widths[reached, networks]).mean())


def replay_rounds(replays: int) -> dict[str, float]:
    """Return the figures of many replays."""
    table = made_table()
    truth = table.mean(axis=(1, 2), dtype=float)
    true_order = np.where(np.isclose(truth[FIRST], truth[SECOND]), 0, np.sign(truth[FIRST] - truth[SECOND]))
    found, counts = [], np.zeros(6)
    for seed in range(replays):
        one = Replay(table, seed)
        reached, states, order = one.ranked()
        by_all, reported = one.separated_by_all_cells()[FIRST, SECOND], (states == SEPARATED)[FIRST, SECOND]
        place = np.argsort(order)
        next_to = np.abs(place[FIRST] - place[SECOND]) == 1
        estimated_order = np.sign(place[SECOND] - place[FIRST])
        counts += [
            (by_all & reported).sum(), by_all.sum(), (by_all & reported & next_to).sum(), (by_all & next_to).sum(),
            (reported & (estimated_order != true_order)).sum(), reported.sum(),
        ]  # fmt: skip
        narrow = one.narrow(1.1 * float(one.half_widths[-1].max()))
        passes = [(1 + np.array(SHARES)[last] * len(CELLS)).mean() / (1 + len(CELLS)) for last in (reached, narrow)]
        found.append((states[0, 1] == SEPARATED, *passes, one.covers(reached, truth), one.covers(narrow, truth)))
    equal, passes, points_passes, coverage, points_coverage = np.mean(found, axis=0).tolist()
    return {
        "separated": counts[0] / counts[1],
        "separated_neighbours": counts[2] / counts[3],
        "false": counts[4] / counts[5],
        "equal_separated": equal,
        "passes": passes,
        "coverage": coverage,
        "points.passes": points_passes,
        "points.coverage": points_coverage,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--replays", type=int, default=500)
    given = parser.parse_args()
    figures = replay_rounds(given.replays)
    show(f"until=ranked and until=<points>, {given.replays} replays", figures, figures, given.json)


if __name__ == "__main__":
    main()
