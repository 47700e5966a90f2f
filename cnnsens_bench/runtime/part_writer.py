"""Writes the part files of a worker while it computes; `store.parts` writes one file."""

import contextlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa

from cnnsens_bench.store.parts import write_part
from cnnsens_bench.utils.storage import StoragePath

MOST_PENDING = 4
"""The part files that wait to be written at most, so that a slow storage does not fill the memory."""


class PartWriter:
    """Writes part files one after the other in a thread, because a disk or a server lets its caller wait.

    Parameters
    ----------
    folder
        The folder of the part files.
    """

    def __init__(self, folder: StoragePath) -> None:
        self.folder = folder
        self._pool = ThreadPoolExecutor(1)
        self._pending: deque[Future[StoragePath]] = deque()

    def write(self, kind: str, name: str, table: pa.Table) -> None:
        """Write a part file as `write_part` does, in the background.

        What writing raises is raised by this call or a later one of `write` or `finish`.
        """
        while self._pending and (len(self._pending) >= MOST_PENDING or self._pending[0].done()):
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(write_part, self.folder, kind, name, table))

    def finish(self) -> None:
        """Wait until all part files are written, and raise the first error of those that could not be."""
        try:
            while self._pending:
                self._pending.popleft().result()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Wait until all part files are written, without an error for those that could not be."""
        while self._pending:
            with contextlib.suppress(Exception):
                self._pending.popleft().result()

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self.abandon()
        self._pool.shutdown()
