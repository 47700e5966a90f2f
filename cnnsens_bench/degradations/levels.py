"""From what a person writes to the degradations and levels that are meant."""

import fnmatch
from collections.abc import Sequence

from cnnsens_bench.degradations import Degradation, degradations, parse_degradation
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import near


def named(text: str) -> list[Degradation]:
    """The degradation that `text` writes, or all whose names match it where it has a `*`. Raises `UserError`."""
    names = fnmatch.filter(degradations, text) if "*" in text else [text]
    if not names:
        raise UserError(f"degradations: no name matches '{text}'{near(text, degradations)}")
    return [parse_degradation(name) for name in names]


def levels_of(degradation: Degradation, levels: Sequence[float] | None = None) -> tuple[float, ...]:
    """`levels` checked, each once; None: its own, or the one level 0 of what has none. Raises `UserError`."""
    if levels is None and degradation.needs_levels:
        raise UserError(f"degradation '{degradation.name}' is swept over levels of your choice: name them in levels")
    if levels is not None and not degradation.has_levels:
        raise UserError(f"degradation '{degradation.name}' has no levels: leave levels out")
    return tuple(dict.fromkeys(degradation.check_level(level) for level in levels or degradation.levels or (0.0,)))
