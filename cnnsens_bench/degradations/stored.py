"""`stored:<corruption>`: pictures of a pre-made set such as ImageNet-C, which take the place of the image's view.

The level is the severity. Nothing is computed here: an engine asks `picture` which picture a cell shows, and whoever
runs the engine reads it. `images/stored.py` finds and reads the files.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cnnsens_bench.degradations.base import Degradation, StoredPicture
from cnnsens_bench.utils.errors import UserError

PREFIX = "stored:"
SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Stored(Degradation):
    """A corruption of a pre-made set; its pixels come from files."""

    corruption: str = ""

    @property
    def as_stored(self) -> bool:
        return True

    def apply(self, pixels: Tensor, draw: Any, level: float) -> Tensor:
        return pixels

    def picture(self, level: float) -> StoredPicture:
        return StoredPicture(self.corruption, int(level))


def stored_degradation(name: str, severities: Iterable[int] = SEVERITIES) -> Stored:
    """Return a corruption of a pre-made set as a degradation.

    Parameters
    ----------
    name
        `stored:<corruption>`.
    severities
        The severities that the set has.

    Raises
    ------
    UserError
        If no config could write the name.

    Examples
    --------
    >>> fog = stored_degradation("stored:fog")
    >>> fog.levels, fog.random, fog.picture(3.0)
    ((1.0, 2.0, 3.0, 4.0, 5.0), False, StoredPicture(corruption='fog', severity=3))
    """
    corruption = name.removeprefix(PREFIX)
    if not corruption.isidentifier():
        raise UserError(f"degradation '{name}' names no corruption: write {PREFIX}<corruption>, such as {PREFIX}fog")
    levels = tuple(float(severity) for severity in severities)
    shape = {"levels": levels, "level_name": "severity", "low": 1.0, "high": 5.0, "whole": True}
    return Stored(name, _no_function, None, corruption=corruption, **shape)  # type: ignore[arg-type]


def _no_function(*_: Any) -> Any:
    raise TypeError("the pixels of a stored picture come from its file")
