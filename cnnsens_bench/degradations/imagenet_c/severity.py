"""How the fifteen corruptions are registered: with a prefix, and whole severities from 1 to 5 as levels."""

from collections.abc import Callable, Sequence
from typing import Any

from cnnsens_bench.degradations.base import DrawFunction, degradation

PREFIX = "common:"
SEVERITIES = (1, 2, 3, 4, 5)


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
        def at_severity(pixels: Any, draw: Any, level: float) -> Any:
            return function(pixels, draw, parameters[int(level) - 1])

        at_severity.__doc__ = function.__doc__
        at_severity.__qualname__, at_severity.__module__ = function.__qualname__, function.__module__
        name = PREFIX + function.__name__
        register = degradation(name, draw=draw, levels=SEVERITIES, level_name="severity", low=1.0, high=5.0, whole=True)
        register(at_severity)
        return function

    return decorate
