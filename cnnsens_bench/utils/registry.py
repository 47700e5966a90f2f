"""Registries, by which users extend the program: tables of names that decorated functions add themselves to."""

import difflib
from collections import UserDict
from collections.abc import Callable, Iterable
from typing import TypeVar

from cnnsens_bench.utils.errors import UserError

T = TypeVar("T")


class Registry(UserDict[str, T]):
    """A mapping from names to what is registered under them, in the order of registration.

    Looking up an unknown name raises a `UserError` that lists the near ones. `add` refuses names that are taken.

    Parameters
    ----------
    kind
        The noun of the error sentences, such as "degradation".

    Examples
    --------
    >>> shapes: Registry[int] = Registry("shape")
    >>> shapes.add("square", 4)
    4
    >>> shapes["sqare"]
    Traceback (most recent call last):
        ...
    cnnsens_bench.utils.errors.UserError: unknown shape 'sqare': did you mean 'square'?
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def add(self, name: str, value: T) -> T:
        """Register a value and return it.

        Raises
        ------
        UserError
            If another definition has that name. The same definition may come again, as when a module is reloaded.
        """
        if name in self and _origin(self[name]) != _origin(value):
            raise UserError(f"the {self.kind} '{name}' is registered twice: give one of them another name")
        self[name] = value
        return value

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers what it decorates under `name`."""
        return lambda value: self.add(name, value)

    def __missing__(self, name: str) -> T:
        raise UserError(f"unknown {self.kind} '{name}'{near(name, self)}")


def near(name: str, known: Iterable[str], listing: str = "known are", limit: int = 8) -> str:
    """Return the end of a sentence about an unknown name: the close matches, or else the first `limit` known names.

    Examples
    --------
    >>> near("peper", ["pepper", "rotation"])
    ": did you mean 'pepper'?"
    >>> near("fog", ["pepper", "rotation"])
    ': known are pepper, rotation'
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f": did you mean {' or '.join(repr(c) for c in close)}?"
    shown = ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
    return f": {listing} {shown}" if shown else ""


def _origin(value: object) -> tuple[str, str]:
    """Return the module and the name of the definition behind a registered value."""
    function = getattr(value, "function", value)
    return getattr(function, "__module__", ""), getattr(function, "__qualname__", repr(value))
