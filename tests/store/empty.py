"""Stores without rows. Making the tables and views of each takes ten times as long as copying them."""

import functools
import tempfile
from pathlib import Path

from cnnsens_bench.store import Store
from cnnsens_bench.store.schema import SQL


@functools.cache
def _content(schema: str) -> bytes:
    """Return the content of a database that has this schema and all views."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        store.open()
        return store.path.read_bytes()


def empty_store(output: Path, *runs: str) -> Store:
    """Return the store of a folder as `Store.open` makes it, in which these runs of the protocol p have begun."""
    output.mkdir(parents=True, exist_ok=True)
    store = Store(output)
    store.path.write_bytes(_content(SQL["schema"]))
    for run_id in runs:
        store.begin_run(run_id, "test", "p", {}, {})
    return store
