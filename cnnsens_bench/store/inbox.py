"""Part files that wait to be brought into the database: `<output>/parts/<attempt>/<kind>-<name>.parquet`.

The output may be a folder or a URI; DuckDB reads files of this machine, so a URI's parts are fetched in batches.
"""

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from upath import UPath

from cnnsens_bench.store.parts import SCHEMAS, damage, is_retry, kind_of
from cnnsens_bench.utils.storage import StoragePath, names_below, storing

logger = logging.getLogger(__name__)


class Inbox:
    """The parts of one output. `scratch`: where a URI's are fetched to (default: the system's temporary folder)."""

    def __init__(self, output: StoragePath, scratch: Path | None = None) -> None:
        self.folder = output / "parts"
        self.scratch = scratch

    def attempts(self) -> dict[str, list[str]]:
        """Attempt → names of its whole parts, repeated ones (`is_retry`) last. Raises `StorageError`."""
        found: dict[str, list[str]] = {}
        if isinstance(self.folder, Path):
            for folder in sorted(path for path in self.folder.glob("*") if path.is_dir()):
                found[folder.name] = [file.name for file in folder.glob("*.parquet")]
        else:
            for attempt, _, name in (path.rpartition("/") for path in names_below(self.folder)):
                if attempt and "/" not in attempt:
                    found.setdefault(attempt, []).append(name)
        return {
            attempt: sorted((name for name in names if _is_part(name)), key=lambda name: (is_retry(name), name))
            for attempt, names in found.items()
        }

    @contextlib.contextmanager
    def at_hand(self, attempt: str, names: Sequence[str]) -> Iterator[list[Path]]:
        """Files of this machine with the parts' contents, in order. A part that has gone meanwhile is left out.

        Raises `StorageError`.
        """
        if isinstance(self.folder, Path):
            yield [self.folder / attempt / name for name in names]
            return
        if not names:
            yield []
            return
        remote = self.folder / attempt
        with tempfile.TemporaryDirectory(dir=self.scratch, prefix="parts-") as folder:
            local = Path(folder, attempt)
            local.mkdir()
            try:
                _fetch(remote, names, local)
            except FileNotFoundError:
                there = set(names_below(remote))
                names = [name for name in names if name in there]
                _fetch(remote, names, local)
            yield [local / name for name in names]

    def remove(self, attempt: str, names: Sequence[str]) -> None:
        """Of parts that the database has. Raises `StorageError`."""
        folder = self.folder / attempt
        if isinstance(folder, Path):
            for name in names:
                (folder / name).unlink(missing_ok=True)
        elif names:
            with storing(folder), contextlib.suppress(FileNotFoundError):
                folder.fs.rm([(folder / name).path for name in names])
                folder.fs.invalidate_cache()

    def set_aside(self, attempt: str, file: Path) -> bool:
        """Whether a part (as `at_hand` gives it) was unreadable, and so renamed to `<name>.corrupt`."""
        reason = damage(file)
        if reason is None:
            return False
        part = self.folder / attempt / file.name
        aside = part.with_suffix(".corrupt")
        with storing(part):
            part.rename(aside)  # type: ignore[arg-type]  # both are of one kind
        logger.warning("a part cannot be read, its rows will be computed again: %s (%s)", aside, reason)
        return True

    def close(self, attempt: str) -> None:
        """Remove an ended attempt's folder and its unfinished files, unless something was set aside in it.

        An object store has neither: what a worker that outlived its run writes there comes in with the next run, less
        what the database has by then.
        """
        folder = self.folder / attempt
        if isinstance(folder, Path):
            for left in folder.glob("*.partial"):
                left.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty; or such a worker was just writing: next time
                folder.rmdir()


def _fetch(remote: UPath, names: Sequence[str], folder: Path) -> None:
    """Piece by piece onto the disk: all parts of a transaction are more than should be in memory."""
    with storing(remote):
        remote.fs.get([(remote / name).path for name in names], [str(folder / name) for name in names])


def _is_part(name: str) -> bool:
    return name.endswith(".parquet") and kind_of(Path(name)) in SCHEMAS
