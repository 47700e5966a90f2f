"""Colours, markers and dashes of curves: an architecture has the same in every figure and on the leaderboard's page."""

from collections.abc import Iterable
from dataclasses import dataclass

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999")
"""The colours of Okabe and Ito, which colour-blind people can tell apart; markers and dashes differ in gray too."""
MARKERS = "os^DvPXh"
DASHES: tuple[tuple[float, tuple[float, ...]], ...] = ((0, ()), (0, (6, 3)), (0, (2, 3)), (0, (8, 3, 2, 3)))
PAPER_ARCHITECTURES = ("alexnet", "vgg19", "googlenet")
"""The architectures of the paper, which have the first styles in every figure."""


@dataclass(frozen=True)
class Style:
    """The style of a curve. The first eight differ in colour and marker, the next eight are dashed, and so on.

    Attributes
    ----------
    position : int
        The number of the style, from 0.

    Examples
    --------
    >>> Style(0).colour == Style(8).colour, Style(0).dash == Style(8).dash
    (True, False)
    """

    position: int

    @property
    def colour(self) -> str:
        """The colour as a hexadecimal code."""
        return COLOURS[self.position % len(COLOURS)]

    @property
    def marker(self) -> str:
        """The marker, as matplotlib names it."""
        return MARKERS[self.position % len(MARKERS)]

    @property
    def dash(self) -> tuple[float, tuple[float, ...]]:
        """The line style, as matplotlib takes it."""
        return DASHES[self.position // len(COLOURS) % len(DASHES)]


def styles(names: Iterable[str]) -> dict[str, Style]:
    """Return a style for each name, in the order of the names."""
    return {name: Style(position) for position, name in enumerate(dict.fromkeys(names))}


def architecture_styles(architectures: Iterable[str]) -> dict[str, Style]:
    """Return a style for each architecture: the paper's come first, and the others follow by name.

    Parameters
    ----------
    architectures
        All architectures that a database holds, so that figures of some of them agree with figures of all.

    Examples
    --------
    >>> [(name, style.position) for name, style in architecture_styles(["resnet18", "vgg19"]).items()]
    [('alexnet', 0), ('vgg19', 1), ('googlenet', 2), ('resnet18', 3)]
    """
    others = sorted(set(architectures) - set(PAPER_ARCHITECTURES))
    return styles([*PAPER_ARCHITECTURES, *others])
