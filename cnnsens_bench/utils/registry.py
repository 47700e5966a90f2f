"""The one kind of extension point: a table of names that a decorated function adds itself to."""

import ast
import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from cnnsens_bench.utils.errors import UserError

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """Names → registered things; an unknown name is a `UserError` that lists the near ones.

    `kind` is the noun of its error messages ("degradation", "dataset", …).
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def add(self, name: str, item: T) -> T:
        """Register `item`; the same name twice is a `UserError` unless it is the same definition again."""
        known = self._items.get(name)
        if known is not None and _origin(known) != _origin(item):
            raise UserError(f"the {self.kind} '{name}' is registered twice: give one of them another name")
        self._items[name] = item
        return item

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator form of `add`."""
        return lambda item: self.add(name, item)

    def __getitem__(self, name: str) -> T:
        try:
            return self._items[name]
        except KeyError:
            raise UserError(f"unknown {self.kind} '{name}'{near(name, self._items)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


def near(name: str, known: Mapping[str, object] | list[str], limit: int = 8) -> str:
    """The end of an unknown-name sentence: the close matches, or what there is."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f": did you mean {' or '.join(repr(c) for c in close)}?"
    shown = ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
    return f": known are {shown}" if shown else ""


def call(factories: Registry[Callable[..., T]], text: str, term: ast.expr, form: str) -> tuple[str, T]:
    """The canonical name of `term`, `name` or `name(argument=value, …)`, and what that factory gives.

    Arguments left out take their defaults; the name has them all. `text`: all that was written, `form`: an example of
    how, for the `UserError` of an unknown name or argument, or an impossible value (a factory's `ValueError`).
    """
    kind = factories.kind
    if isinstance(term, ast.Call) and term.args:
        raise UserError(f"{kind} '{text}': its arguments need their names: write it as {form}")
    name = ast.unparse(term.func if isinstance(term, ast.Call) else term)
    try:
        given = {str(k.arg): ast.literal_eval(k.value) for k in term.keywords} if isinstance(term, ast.Call) else {}
    except ValueError:
        raise UserError(f"{kind} '{text}' cannot be read: write it as {form}") from None
    factory = factories[name]
    known = inspect.signature(factory).parameters
    for key in given:
        if key not in known:
            has = ", ".join(known) or "none"
            raise UserError(f"{kind} '{name}' has no argument '{key}': it has {has}")
    arguments = {key: _alike(given.get(key, parameter.default), parameter.default) for key, parameter in known.items()}
    try:
        made = factory(**arguments)
    except (ValueError, TypeError) as error:
        raise UserError(f"{kind} '{text}': {error}") from None
    inner = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    return f"{name}({inner})" if inner else name, made


def _alike(value: Any, default: Any) -> Any:
    """A number as its default is written, so that `sigma=1` and `sigma=1.0` are one thing."""
    if isinstance(default, float) and type(value) is int:
        return float(value)
    return int(value) if type(default) is int and isinstance(value, float) and value.is_integer() else value


def _origin(item: object) -> tuple[str, str]:
    function = getattr(item, "function", item)
    return getattr(function, "__module__", ""), getattr(function, "__qualname__", repr(item))
