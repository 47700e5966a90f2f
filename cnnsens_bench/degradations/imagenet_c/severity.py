"""How the fifteen corruptions are registered: with a prefix, and whole severities from 1 to 5 as levels."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from cnnsens_bench.degradations.base import DrawFunction, degradation

PREFIX = "common:"


def common(
    parameters: Sequence[Any], draw: DrawFunction | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as the degradation `common:<its name>`.

    Parameters
    ----------
    parameters
        The function's third argument, in place of a level, for the severities 1 to 5.
    draw
        As in `degradation`.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        name = PREFIX + function.__name__

        @degradation(name, draw=draw, levels=(1, 2, 3, 4, 5), level_name="severity", low=1.0, high=5.0, whole=True)
        @functools.wraps(function)
        def at_severity(pixels: Any, draw: Any, level: float) -> Any:
            return function(pixels, draw, parameters[int(level) - 1])

        return function

    return decorate
