"""The one loader of SQL: each `.sql` file of a package holds statements, headed by a line `-- name: <statement>`."""

import functools
import re
from importlib import resources

_HEADING = re.compile(r"^-- name: (\w+)[ \t]*\n", re.MULTILINE)


@functools.cache
def statements(package: str) -> dict[str, str]:
    """Return the statements of all `.sql` files in a package's folder `sql`, by name.

    Parameters
    ----------
    package
        The dotted name of the package, such as `cnnsens_bench.store`.

    Returns
    -------
    dict
        The text of each statement, by the name that its heading gives it.

    Raises
    ------
    ValueError
        Where a file has text before its first heading, or two statements of the package have one name.
    """
    found: dict[str, str] = {}
    for file in sorted(resources.files(package).joinpath("sql").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".sql"):
            before, *parts = _HEADING.split(file.read_text(encoding="utf-8"))
            if before.strip():
                raise ValueError(f"{file.name}: a statement has no heading '-- name: …'")
            for name, text in zip(parts[::2], parts[1::2], strict=True):
                if name in found:
                    raise ValueError(f"{file.name}: the statement '{name}' exists twice in {package}")
                found[name] = text.strip()
    return found
