"""The SQL of this room, which lies in .sql files."""

import functools
import re
from importlib import resources


@functools.cache
def statement_of(name: str) -> str:
    """The text of `<name>.sql`."""
    return resources.files("cnnsens_bench.store").joinpath(f"{name}.sql").read_text(encoding="utf-8")


def literal(path: str) -> str:
    """A path in which DuckDB finds no pattern: `runs/a*b` must not match its neighbours."""
    return re.sub(r"([*?\[])", r"[\1]", path)
