"""Opening DuckDB databases: which names DuckDB can open, and one sentence for each way in which opening fails."""

import re
from pathlib import Path

import duckdb

from cnnsens_bench.utils.errors import UserError, first_line
from cnnsens_bench.utils.storage import StoragePath

DISK_ERRORS = (duckdb.IOException, duckdb.FatalException, duckdb.OutOfMemoryException)
"""What DuckDB raises on a full disk, and afterwards."""


TO_WRITE = {
    "held": "is held by {holder}: close it there and run the same command again, or choose another output=<folder>",
    "foreign": "is not a DuckDB database: move it away, or choose another output=<folder>",
    "other": "cannot be opened ({reason}): choose another output=<folder>",
}
"""How the sentence about a database that cannot be opened ends, for each reason."""
TO_READ = {
    "held": "is held by another process: wait until its run has ended",
    "foreign": "is not a DuckDB database: --db takes the results.duckdb of a run",
    "other": "cannot be opened ({reason})",
}


def file_name(file: Path) -> str:
    """Return the absolute name of a file for DuckDB, which would take `md:x` for an extension and `~` for a home."""
    return str(file.absolute())


def unopenable(file: Path) -> str | None:
    """Return the character in the name of a database because of which DuckDB cannot open it, or None.

    DuckDB takes what follows a question mark for options, and a backslash for a slash.
    """
    return next((character for character in "?\\" if character in file_name(file)), None)


def require_openable(path: Path) -> None:
    """Raise `UserError` where DuckDB cannot open a database of this name."""
    if character := unopenable(path):
        raise UserError(f"{path} has a '{character}' in its name, which DuckDB cannot open: rename its folder")


def is_held(error: duckdb.Error) -> bool:
    """Return whether a database could not be opened because another process has it open."""
    return "conflicting lock" in str(error).lower() or "could not set lock" in str(error).lower()


def is_foreign(error: duckdb.Error) -> bool:
    """Return whether a file could not be opened because it is not a DuckDB database."""
    return "not a valid" in str(error)


def opening_error(path: StoragePath, error: duckdb.Error, sentences: dict[str, str] = TO_WRITE) -> str:
    """Return the sentence that says why a database cannot be opened, and what to do."""
    reason = "held" if is_held(error) else "foreign" if is_foreign(error) else "other"
    process = re.search(r"\(PID (\d+)\)", str(error))
    holder = f"process {process[1]}" if process else "another process"
    return f"{path} {sentences[reason].format(holder=holder, reason=first_line(error))}"
