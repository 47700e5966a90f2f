"""The two rules by which a round of a sweep is the last one: narrow intervals, or a known order."""

import numpy as np

from cnnsens_bench.experiment.round_results import RoundResults
from cnnsens_bench.measures.intervals import Z
from cnnsens_bench.measures.sequential import SEPARATED, TIED, UNDECIDED, variance_at

MEASURES = {"hit": "mean degraded accuracy", "changed": "mean p_Δ"}
"""The measures of `RoundResults`, as sentences name them."""
SIGNS = {SEPARATED: ">", TIED: "=", UNDECIDED: "?"}
"""What stands between two neighbours in the order."""
MOST_NAMES = 12
"""The most entrants that a sentence names."""


class PointsRule:
    """The intervals of all means are narrow: an entrant is decided when its own are.

    The rule looks at widths alone and not at values, so that the intervals keep their coverage (Chow & Robbins 1965).

    Parameters
    ----------
    results
        What the rounds have told.
    wanted
        The half-width that 95 % intervals must have at most, in [0, 1].
    """

    def __init__(self, results: RoundResults, wanted: float) -> None:
        self.results, self.wanted = results, wanted

    def undecided(self, number: int) -> np.ndarray:
        """Return the positions of the entrants that a further round needs."""
        return np.flatnonzero(~(self._half_widths(number).max(axis=0) <= self.wanted))

    def sentences(self, number: int) -> list[str]:
        """Say how wide the intervals are after a round, and after the first one whether the budget can do."""
        narrow = len(self.results.names) - len(self.undecided(number))
        said = [
            f"the widest 95 % interval is {self._widest(self._half_widths(number))}; {narrow} of "
            f"{len(self.results.names)} networks are within ±{self._points(self.wanted)}"
        ]
        least = self._least_half_widths(number)
        if number == 1 and self.results.rounds > 1 and np.nanmax(least, initial=0) > self.wanted:
            budget = self.results.sweep.budget
            all_cells = "even all cells" if budget == 1 else f"all cells of budget={budget:g}"
            # Of few images the half of the first round lacks conditions, and what more cells would do is only bounded.
            bounded = any(np.isnan(self.results.variances[name][0]).any() for name in MEASURES)
            about = "at least" if bounded else "about"
            said.append(f"{all_cells} would leave {about} {self._widest(least)}: more images make that narrower")
        return said

    def verdict(self, number: int) -> str:
        """Say after the last round whether the intervals are as narrow as wanted."""
        if not len(self.undecided(number)):
            return f"until={100 * self.wanted:g} is reached after {number} of {self.results.rounds} rounds"
        widest = self._widest(self._half_widths(number))
        return f"until={100 * self.wanted:g} is not reached with the whole budget: the widest interval is {widest}"

    def _half_widths(self, number: int) -> np.ndarray:
        """Return the half-widths of each entrant's last round, (measures, entrants)."""
        variances = np.array([self.results.variances[name][1 : number + 1] for name in MEASURES])
        known = ~np.isnan(variances)
        last = known.shape[1] - 1 - known[:, ::-1].argmax(axis=1)
        return Z * np.sqrt(np.take_along_axis(variances, last[:, None], axis=1)[:, 0])

    def _least_half_widths(self, number: int) -> np.ndarray:
        """Return the half-widths that the whole budget would give, (measures, entrants)."""
        shares = self.results.shares[: number + 1]
        variances = np.array([self.results.variances[name][: number + 1] for name in MEASURES])
        return Z * np.sqrt(variance_at(self.results.sweep.budget, shares, variances.swapaxes(0, 1)))

    def _widest(self, half_widths: np.ndarray) -> str:
        """Return the largest half-width, of which measure and entrant it is."""
        if np.isnan(half_widths).all():
            return "not known"
        measure, entrant = np.unravel_index(np.nanargmax(half_widths), half_widths.shape)
        name = list(MEASURES.values())[measure]
        return f"±{self._points(half_widths[measure, entrant])} ({name} of {self.results.names[entrant]})"

    @staticmethod
    def _points(share: float) -> str:
        return f"{100 * share:.2f} points"


class RankedRule:
    """The order of the entrants is known: neighbours in the order are separated, or tied.

    Parameters
    ----------
    results
        What the rounds have told.
    """

    def __init__(self, results: RoundResults) -> None:
        self.results = results
        self._known: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def undecided(self, number: int) -> np.ndarray:
        """Return the positions of the entrants that are not told from a neighbour, nor tied with it."""
        order, states = self._neighbours(number)
        open_pairs = np.flatnonzero(states == UNDECIDED)
        return np.unique(np.concatenate([order[open_pairs], order[open_pairs + 1]]))

    def sentences(self, number: int) -> list[str]:
        """Say how many pairs of neighbours are decided after a round."""
        _, states = self._neighbours(number)
        separated, tied = int((states == SEPARATED).sum()), int((states == TIED).sum())
        pairs = "1 pair" if len(states) == 1 else f"{len(states)} pairs"
        left = len(states) - separated - tied
        return [f"of {pairs} of neighbours in the order {separated} are separated, {tied} tied, {left} not decided"]

    def verdict(self, number: int) -> str:
        """Say the order after the last round, with ties."""
        order, states = self._neighbours(number)
        names = [self.results.names[position] for position in order]
        signs = [SIGNS[state] for state in states]
        text = names[0] + "".join(f" {sign} {name}" for sign, name in zip(signs, names[1:MOST_NAMES], strict=False))
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        unknown = ", ? is not known" if "?" in signs else ""
        return f"order by mean degraded accuracy, where = is a tie{unknown}: {text}{more}"

    def _neighbours(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the order of the entrants, and what is known of each and the next one."""
        if number not in self._known:
            looks = self.results.looks(number)
            order = looks.order()
            self._known[number] = order, looks.pair_states()[order[:-1], order[1:]]
        return self._known[number]
