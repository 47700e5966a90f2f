"""Every key of the configuration with its default and its documentation, for help texts and for the docs."""

import ast
import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

from cnnsens_bench.config.schema import Config


class ConfigKey(NamedTuple):
    """One key: its dotted name, its default, and its documentation in plain text."""

    name: str
    default: Any
    text: str


def config_keys(section: Any = None, prefix: str = "") -> Iterator[ConfigKey]:
    """Yield the keys of the configuration in their order, those of its sections with dotted names.

    Parameters
    ----------
    section
        An instance of one of the schema's dataclasses, whose values are the defaults. The default is `Config()`.
    prefix
        What precedes the names, such as `cluster.`.

    Examples
    --------
    >>> [key.name for key in config_keys() if key.name.startswith("dataset")]
    ['dataset.name', 'dataset.root', 'dataset.options']
    """
    section = Config() if section is None else section
    texts = _texts(type(section))
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            yield from config_keys(value, f"{prefix}{field.name}.")
        else:
            yield ConfigKey(prefix + field.name, value, texts.get(field.name, ""))


def _texts(kind: type) -> dict[str, str]:
    """Return the string that stands below each field of a class."""
    definition = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, text in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            found[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return found
