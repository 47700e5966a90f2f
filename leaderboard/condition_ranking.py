"""Ranks entrants by what they do under one condition, such as at the levels of one's own camera, and prints tables."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.text import Text

from cnnsens_bench.camera.report import read_mix
from cnnsens_bench.figures.summary import table_of
from cnnsens_bench.measures import clustered_interval, measures
from cnnsens_bench.measures.spec import Interval
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import plain
from leaderboard.aggregate import boards
from leaderboard.compare import WIDTH
from leaderboard.conditions import chosen_conditions, condition_text, is_named, require_known
from leaderboard.pairing import COLUMNS, KEY, NOUNS, entrant_names
from leaderboard.ranking import enough
from leaderboard.read import LoadedResults, read
from leaderboard.significance import ALPHA, holm, sign_p

MEAN = "mean_degraded_accuracy"
"""The measure by which entrants are ranked where no condition is named."""


@dataclass(frozen=True)
class RankedEntrant:
    """An entrant in a ranking.

    Parameters
    ----------
    name
        The entrant, as `model` or `model:defense`.
    n_images
        The number of its images.
    value, low, high
        What it is ranked by, as a share with its 95 % interval.
    first, last
        The first and the last rank that are possible, counted from 1: entrants that cannot be told apart are tied. Both
        are None for an entrant with fewer images than others, which is not ranked.
    """

    name: str
    n_images: int
    value: float
    low: float
    high: float
    first: int | None
    last: int | None

    @property
    def rank(self) -> str:
        """The possible ranks as people read them."""
        if self.first is None or self.last is None:
            return "–"
        return str(self.first) if self.first == self.last else f"{self.first}–{self.last}"


@dataclass(frozen=True)
class ConditionRanking:
    """The entrants of a board, best first, those that are not ranked last.

    Parameters
    ----------
    protocol, dataset
        The board.
    condition
        The condition as people read it, or a sentence for the mean over conditions.
    entrants
        The entrants.
    """

    protocol: str
    dataset: str
    condition: str
    entrants: list[RankedEntrant]


def print_rankings(
    paths: Sequence[Path],
    conditions: Sequence[str] = (),
    measure: str = "accuracy",
    out: Path | None = None,
    console: Console | None = None,
    camera: Path | None = None,
) -> None:
    """Print a ranking for each board and condition that is named, or of the mean over conditions where none is.

    Parameters
    ----------
    paths
        Results databases of runs.
    conditions
        Conditions as `is_named` takes them.
    measure
        `accuracy` or `label_change`: what entrants are ranked by under the conditions.
    out
        A file that gets the numbers as JSON.
    console
        Where the tables are printed; the default is the standard output.
    camera
        A file of the command `camera`, whose mix of degradations is a condition too.

    Raises
    ------
    UserError
        Where a condition is unknown, `label_change` has no condition, no entrant can be ranked, or a file cannot be
        read or written.
    """
    mix = read_mix(camera) if camera else ""
    conditions = [*conditions, *([mix] if mix else [])]
    if measure != "accuracy" and not conditions:
        raise UserError(f"--measure {measure} ranks under single conditions: add --condition, such as --condition '*'")
    results = read(paths)
    if mix and not any(is_named(mix, *condition) for condition in _known(results)):
        raise UserError(f"the mix of {camera} ({plain(mix)}) is not measured: run with degradations=camera:{camera}")
    rankings = rankings_under(results, conditions, measure) if conditions else mean_rankings(results)
    if not rankings:
        raise UserError(f"no entrant has a {NOUNS[measure]} under these conditions: add another --condition")
    if out:
        try:
            text = json.dumps([dataclasses.asdict(one) for one in rankings], indent=1, allow_nan=False)
            out.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{out} cannot be written ({error.strerror}): choose another --json") from None
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    how = f"tests as of compare, p below {ALPHA} after Holm for all pairs" if conditions else "as on the page"
    for ranking in rankings:
        table = table_of(
            Text(f"{plain(ranking.dataset)}, protocol {plain(ranking.protocol)}: {ranking.condition}"),
            f"{NOUNS[measure]} in %, with its 95 % interval; entrants share ranks where they cannot be told apart "
            f"({how}); –: fewer images or conditions than others, not ranked",
        )
        table.add_column("rank", justify="right", no_wrap=True)
        table.add_column("entrant", overflow="fold")
        table.add_column(NOUNS[measure], justify="right", no_wrap=True)
        table.add_column("images", justify="right", no_wrap=True)
        for one in ranking.entrants:
            share = f"{100 * one.value:.1f} [{100 * one.low:.1f}–{100 * one.high:.1f}]"
            table.add_row(one.rank, Text(plain(one.name)), share, str(one.n_images))
        console.print()
        console.print(table)


def rankings_under(results: LoadedResults, wanted: Sequence[str], measure: str = "accuracy") -> list[ConditionRanking]:
    """Rank the entrants of each board under each condition that is named.

    Two entrants are told apart by the exact sign test of `leaderboard compare`, on the images that both have with the
    same number of trials, with Holm's correction for all pairs of ranked entrants of the board.

    Parameters
    ----------
    results
        What the databases hold.
    wanted
        Conditions as `is_named` takes them.
    measure
        A key of `COLUMNS`.

    Returns
    -------
    list of ConditionRanking
        Those of boards and conditions under which an entrant has the measure.

    Raises
    ------
    UserError
        Where a name means no condition of any board.
    """
    require_known(wanted, _known(results))
    found: list[ConditionRanking] = []
    for board in results.boards.itertuples():
        conditions = results.query("conditions", board=board.board)
        chosen = conditions[chosen_conditions(conditions, wanted)]
        members = results.entrants[results.entrants["board"] == board.board] if len(chosen) else results.entrants[:0]
        shares = {number: results.query("shares", entrant=int(number)) for number in members["entrant"]}
        for condition, (degradation, level) in chosen[KEY].iterrows():
            own = {number: rows[rows["condition"] == condition] for number, rows in shares.items()}
            ranked = ranked_entrants(own, entrant_names(members), measure)
            if ranked:
                text = condition_text(degradation, level)
                found.append(ConditionRanking(board.protocol, board.dataset, text, ranked))
    return found


def _known(results: LoadedResults) -> set[tuple[str, float]]:
    """Return the conditions of all boards."""
    tables = [results.query("conditions", board=board.board) for board in results.boards.itertuples()]
    return set(pd.concat(tables)[KEY].itertuples(index=False, name=None))


def ranked_entrants(shares: dict[int, pd.DataFrame], names: dict[int, str], measure: str) -> list[RankedEntrant]:
    """Rank entrants by their shares under one condition.

    Parameters
    ----------
    shares
        By entrant: its rows of the statement `shares` under the condition.
    names
        By entrant: what it is called in the ranking.
    measure
        A key of `COLUMNS`.

    Returns
    -------
    list of RankedEntrant
        The entrants that have the measure, best first, those that are not ranked last.
    """
    column, sign = COLUMNS[measure][0], 1 if measure == "accuracy" else -1
    known = {number: rows.dropna(subset=[column]).set_index("image") for number, rows in shares.items()}
    known = {number: rows for number, rows in known.items() if len(rows)}
    if not known:
        return []
    estimates = {
        number: clustered_interval(rows[column].to_numpy(), int(rows["trials"].max())) for number, rows in known.items()
    }
    of_enough = enough(pd.Series({number: len(rows) for number, rows in known.items()}))
    ranked = sorted(of_enough)
    images = sorted(set().union(*(known[number].index for number in ranked)))
    trials = np.stack([known[number]["trials"].reindex(images, fill_value=0).to_numpy(int) for number in ranked])
    values = np.stack([known[number][column].reindex(images, fill_value=0).to_numpy() for number in ranked])
    better = _surely_better(sign * np.rint(values * trials).astype(int), trials)
    ranks = {
        number: (int(above) + 1, len(ranked) - int(below))
        for number, above, below in zip(ranked, better.sum(0), better.sum(1), strict=True)
    }
    entrants = [
        RankedEntrant(
            names[number], estimate.n_images, estimate.value, estimate.low, estimate.high,
            *ranks.get(number, (None, None)),
        )
        for number, estimate in estimates.items()
    ]  # fmt: skip
    return sorted(entrants, key=lambda one: (one.first is None, -sign * one.value, one.name))


def _surely_better(counts: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """Return which entrants are surely better than which others: (entrants, entrants) bool.

    `counts` has the shape (entrants, images): the trials that speak for an entrant, of so many `trials`.
    """
    size = len(counts)
    better = np.zeros((size, size), bool)
    if size < 2:
        return better
    firsts, seconds = np.triu_indices(size, 1)
    wins, losses = np.zeros(len(firsts), int), np.zeros(len(firsts), int)
    for pair, (first, second) in enumerate(zip(firsts, seconds, strict=True)):
        difference = np.where(trials[first] == trials[second], counts[first] - counts[second], 0)
        wins[pair], losses[pair] = (difference > 0).sum(), (difference < 0).sum()
    sure = np.array(holm(sign_p(wins, losses).tolist()), float) < ALPHA
    better[firsts, seconds], better[seconds, firsts] = sure & (wins > losses), sure & (losses > wins)
    return better


def mean_rankings(results: LoadedResults) -> list[ConditionRanking]:
    """Rank the entrants of each board by their mean degraded accuracy, as the page does.

    Parameters
    ----------
    results
        What the databases hold.

    Returns
    -------
    list of ConditionRanking
        One for each board with degraded images.
    """
    found = []
    for board, row in zip(boards(results, ""), results.boards.itertuples(), strict=True):
        names = entrant_names(results.entrants)
        entrants = []
        for one in board.entrants:
            value: Interval = one.stats.get(MEAN, (np.nan,) * 3)
            if not np.isnan(value).any():
                ranks = one.ranks.get(MEAN, (None, None))
                entrants.append(RankedEntrant(names[one.entrant], one.n_images, *value, *ranks))
        if entrants:
            entrants.sort(key=lambda one: (one.first is None, -one.value, one.name))
            conditions = f"mean over {len(board.ranked)} degraded conditions ({measures[MEAN].heading})"
            found.append(ConditionRanking(row.protocol, row.dataset, conditions, entrants))
    if not found:
        raise UserError(
            "no board has degraded images: --condition undegraded ranks by the accuracy without degradation"
        )
    return found
