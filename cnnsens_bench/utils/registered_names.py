"""The names of built-in degradations, data sets and defenses, read from the source: a help text lists them at once.

Importing the registries themselves takes seconds, since torch comes with them. A test holds both equal.
"""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
PREFIXES = {"degradation": "", "dataset": "", "defense": "", "common": "common:"}
"""The decorators that register a name, and what they put before it."""


def registered_names(room: str) -> list[str]:
    """Return the names that the decorated functions of a folder of this package register, sorted.

    Parameters
    ----------
    room
        The folder: `degradations`, `datasets` or `defenses`.

    Examples
    --------
    >>> registered_names("datasets")[:4]
    ['cifar10', 'cifar100', 'cifar100_c', 'cifar10_c']
    """
    names = set()
    for file in (PACKAGE / room).rglob("*.py"):
        for function in ast.parse(file.read_text(encoding="utf-8")).body:
            if not isinstance(function, ast.FunctionDef):
                continue
            for decorator in function.decorator_list:
                match decorator:
                    case ast.Call(ast.Name(kind), [ast.Constant(str(name)), *_]) if kind in PREFIXES:
                        names.add(PREFIXES[kind] + name)
                    case ast.Call(ast.Name(kind)) if kind in PREFIXES:  # `common` uses the name of the function
                        names.add(PREFIXES[kind] + function.name)
    return sorted(names)
