"""Part files, `<output>/parts/<attempt>/<kind>-<name>.parquet`: workers write them, and the store ingests them.

A part is whole or absent. An attempt is one invocation of a run; it has a folder of its own. The output may be a folder
or a URI.
"""

import contextlib
import io
import logging
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from cnnsens_bench.store.schema import PART_KINDS, part_schema
from cnnsens_bench.utils import storage
from cnnsens_bench.utils.errors import first_line
from cnnsens_bench.utils.storage import StoragePath, is_local

logger = logging.getLogger(__name__)

RETRY = "-retry"
"""In the name of a part whose rows another part of the same attempt may hold; see `is_retry`."""


def new_attempt(output: StoragePath) -> StoragePath:
    """Make a folder for the part files of one invocation.

    The next invocation removes the folder when it has ingested the parts. A worker that outlived its driver can then
    write there no more. At a URI there are no folders, and such a worker can still write; its parts are ingested later,
    without the rows that the database has by then.

    Returns
    -------
    StoragePath
        `<output>/parts/<attempt>`, absolute, because workers have another working directory.
    """
    folder = output.absolute() / "parts" / uuid.uuid4().hex[:12]
    storage.make_folder(folder)
    return folder


def write_part(folder: StoragePath, kind: str, name: str, table: pa.Table) -> StoragePath:
    """Write a table as `<folder>/<kind>-<name>.parquet`, whole or not at all; a part of that name is replaced.

    Parameters
    ----------
    folder
        The attempt's folder, as `new_attempt` returns it.
    kind
        One of `schema.PART_KINDS`.
    table
        The rows. They have the columns of the database's table of that kind, in any order.

    Raises
    ------
    KeyError
        Where a column is missing.
    ValueError
        Where a column has another type, or NULL where the database has none.
    FileNotFoundError
        Where the folder is gone: the run that the caller belongs to has ended.
    StorageError
        On a full disk, or where a server does not answer.
    """
    schema = part_schema(kind)
    rows = table.select(schema.names).cast(schema)
    path = folder / f"{kind}-{name}.parquet"
    content = io.BytesIO()
    with storage.storing(path):
        pq.write_table(rows, content, compression="zstd")
    try:
        storage.write_whole(path, content.getvalue())
    except FileNotFoundError:
        if not is_local(folder):
            raise
        raise FileNotFoundError(f"{folder} is closed: the run that this worker belongs to has ended") from None
    return path


def is_retry(name: str) -> bool:
    """Return whether a part may hold rows that another part of its attempt holds too.

    That is so where a worker repeated a task and wrote its parts under other names than before. All rows of such a part
    are compared with those of its attempt, which other parts need not be.

    Examples
    --------
    >>> is_retry("predictions-000012-blur-retry.parquet"), is_retry("predictions-000012-blur.parquet")
    (True, False)
    """
    return RETRY in name.removesuffix(".parquet")


def kind_of(name: str) -> str:
    """Return the kind of part that a file name says.

    Examples
    --------
    >>> kind_of("sensitivity_predictions-000012.parquet")
    'sensitivity_predictions'
    """
    return name.partition("-")[0]


def damage(path: Path) -> str | None:
    """Return why a part cannot be ingested, or None where it can. All of the file is read.

    A part of an earlier version may lack columns that can be NULL.
    """
    schema = part_schema(kind_of(path.name))
    required = {field.name for field in schema if not field.nullable}
    try:
        table = pq.ParquetFile(path).read()
        if not required <= set(table.column_names) <= set(schema.names):
            return "its columns are not those of its table"
        fields = [field for field in schema if field.name in table.column_names]
        table.select([field.name for field in fields]).cast(pa.schema(fields))
    except (OSError, ValueError) as error:
        return first_line(error)
    return None


class PartFiles:
    """The part files of one output that have not been ingested yet.

    Parameters
    ----------
    output
        The output of a run.
    scratch
        The folder of this machine that parts at a URI are fetched to. The default is the system's temporary folder.
    """

    def __init__(self, output: StoragePath, scratch: Path | None = None) -> None:
        self.folder = output / "parts"
        self.scratch = scratch

    def attempts(self) -> dict[str, list[str]]:
        """Return the names of the whole parts by attempt, with retries (see `is_retry`) last. Raise `StorageError`."""
        found: dict[str, list[str]] = {}
        if is_local(self.folder):
            for folder in sorted(path for path in self.folder.glob("*") if path.is_dir()):
                found[folder.name] = [file.name for file in folder.glob("*.parquet")]
        else:
            for attempt, _, name in (path.rpartition("/") for path in storage.names_below(self.folder)):
                if attempt and "/" not in attempt:
                    found.setdefault(attempt, []).append(name)
        for attempt, names in found.items():
            parts = [name for name in names if name.endswith(".parquet") and kind_of(name) in PART_KINDS]
            found[attempt] = sorted(parts, key=lambda name: (is_retry(name), name))
        return found

    @contextlib.contextmanager
    def local_files(self, attempt: str, names: Sequence[str]) -> Iterator[list[Path]]:
        """Give files of this machine with the contents of parts, in order. Raise `StorageError`.

        Parts at a URI are fetched into temporary files, without being held in memory. A part that has gone meanwhile is
        left out.
        """
        folder = self.folder / attempt
        if is_local(folder):
            yield [folder / name for name in names]
            return
        with tempfile.TemporaryDirectory(dir=self.scratch, prefix="parts-") as temporary:
            local = Path(temporary, attempt)
            local.mkdir()
            try:
                _download(folder, names, local)
            except FileNotFoundError:
                found = set(storage.names_below(folder))
                names = [name for name in names if name in found]
                _download(folder, names, local)
            yield [local / name for name in names]

    def remove(self, attempt: str, names: Sequence[str]) -> None:
        """Remove parts that the database has. Raise `StorageError`."""
        storage.remove_files(self.folder / attempt, names)

    def set_aside(self, attempt: str, file: Path) -> bool:
        """Rename a part to `<name>.corrupt` if it cannot be read, and return whether it was so.

        Parameters
        ----------
        attempt
            The attempt of the part.
        file
            The part's file on this machine, as `local_files` gives it.
        """
        reason = damage(file)
        if reason is None:
            return False
        part = self.folder / attempt / file.name
        corrupt = part.with_suffix(".corrupt")
        storage.rename(part, corrupt)
        logger.warning("a part cannot be read, its rows will be computed again: %s (%s)", corrupt, reason)
        return True

    def close(self, attempt: str) -> None:
        """Remove the folder of an ended attempt and its unfinished files, unless a part was set aside in it.

        Where a worker that outlived its run is just writing, the folder stays until the next time.
        """
        folder = self.folder / attempt
        storage.remove_partial_files(folder)
        storage.remove_empty_folder(folder)


def _download(folder: UPath, names: Sequence[str], target: Path) -> None:
    """Copy parts onto the disk, not through memory: all parts of a transaction are too large for that."""
    with storage.storing(folder):
        folder.fs.get([(folder / name).path for name in names], [str(target / name) for name in names])
