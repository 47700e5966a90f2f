"""How curves look, the same in every figure and on the leaderboard's page: an architecture keeps its colour."""

from collections.abc import Iterable
from dataclasses import dataclass

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999")
"""Okabe & Ito's, told apart by the colour-blind; markers and dashes tell them apart in gray."""
MARKERS = "os^DvPXh"
DASHES: tuple[tuple[float, tuple[float, ...]], ...] = ((0, ()), (0, (6, 3)), (0, (2, 3)), (0, (8, 3, 2, 3)))
PAPERS = ("alexnet", "vgg19", "googlenet")
"""Architectures whose places are fixed, whatever else a database holds."""


@dataclass(frozen=True)
class Style:
    """`place`: 0, 1, …; the first eight differ in colour and marker, the next eight are dashed, and so on."""

    place: int

    @property
    def colour(self) -> str:
        """A hexadecimal code."""
        return COLOURS[self.place % len(COLOURS)]

    @property
    def marker(self) -> str:
        """Of matplotlib."""
        return MARKERS[self.place % len(MARKERS)]

    @property
    def dash(self) -> tuple[float, tuple[float, ...]]:
        """A line style of matplotlib."""
        return DASHES[self.place // len(COLOURS) % len(DASHES)]


def styles(names: Iterable[str]) -> dict[str, Style]:
    """Each name's style, in the order of the names."""
    return {name: Style(place) for place, name in enumerate(dict.fromkeys(names))}


def architecture_styles(architectures: Iterable[str]) -> dict[str, Style]:
    """Each architecture's style: the paper's three have their own, the others follow by name. Give all that a database
    holds, so that figures of a part of them agree with the others."""
    others = sorted(set(architectures) - set(PAPERS))
    return styles([*PAPERS, *others])
