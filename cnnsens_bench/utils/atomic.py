"""Writing files of this machine atomically: whoever reads one finds the old content or the new, never a part of it."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path, partial: Path | None = None, sync: bool = False) -> Iterator[Path]:
    """Give the body a temporary path to write to, and put that file in place of `path` when the body has ended.

    The temporary file is removed where the body raises.

    Parameters
    ----------
    path
        The file to replace. Its folder must exist.
    partial
        The temporary path, on the same file system. The default is a unique name beside `path` that ends in `.partial`.
    sync
        Whether the content must have reached the disk before it replaces the old one.

    Yields
    ------
    Path
        The temporary path. The body must create a file there.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "notes.txt"
    >>> with replacing(path) as partial:
    ...     _ = partial.write_text("whole")
    >>> path.read_text()
    'whole'
    """
    partial = partial or path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        yield partial
        if sync:
            sync_to_disk(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: str | bytes, sync: bool = False) -> None:
    """Write a file whole or not at all; text is encoded as UTF-8. See `replacing`."""
    with replacing(path, sync=sync) as partial:
        partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def sync_to_disk(path: Path) -> None:
    """Wait until the content of a file, or the list of names in a folder, has reached the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
