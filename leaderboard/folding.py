"""Makes the page's data shorter where many shares with their intervals are equal, as those of few images are."""

from collections.abc import Iterable
from typing import Any

SERIES = ("accuracy", "change")
"""The lists of an entrant that have a share with its interval, or None, for each condition."""


def fold(content: dict[str, Any]) -> dict[str, Any]:
    """Return the page's data with positions in place of equal shares; `state.js` puts the shares back.

    A board whose shares are mostly different stays as it is. The others get `shares`, a list of the different ones, and
    the series of their entrants hold positions in that list.

    Parameters
    ----------
    content
        What `leaderboard.page.data` returns. It is not changed.

    Examples
    --------
    >>> equal = {"accuracy": [[0.5, 0.4, 0.6], None, [0.5, 0.4, 0.6]], "change": [None, None, [0.5, 0.4, 0.6]]}
    >>> [board] = fold({"boards": [{"entrants": [equal]}]})["boards"]
    >>> board["shares"], board["entrants"]
    ([[0.5, 0.4, 0.6]], [{'accuracy': [0, None, 0], 'change': [None, None, 0]}])
    """
    return content | {"boards": [_folded(board) for board in content["boards"]]}


def _folded(board: dict[str, Any]) -> dict[str, Any]:
    entrants = board["entrants"]
    every = [tuple(share) for one in entrants for name in SERIES for share in one[name] if share is not None]
    positions = {share: position for position, share in enumerate(dict.fromkeys(every))}
    if 2 * len(positions) > len(every):
        return board

    def folded(series: Iterable[list[float] | None]) -> list[int | None]:
        return [None if share is None else positions[tuple(share)] for share in series]

    folded_entrants = [one | {name: folded(one[name]) for name in SERIES} for one in entrants]
    return board | {"shares": [list(share) for share in positions], "entrants": folded_entrants}
