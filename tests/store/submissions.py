"""A database for submissions, and all that a database holds."""

from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from cnnsens_bench.store.source import results
from tests.leaderboard.made import sweep, write

IMAGES = range(7)
"""Image 7 of `sweep` lacks its undegraded row."""
CONFIG = {
    "seed": 0,
    "trials": 3,
    "output": "/home/maker/runs",
    "data_root": "/home/maker/data",
    "models": [{"name": "torchvision/alexnet", "weights": "/home/maker/alexnet.pth"}],
}


def made(folder: Path, **more: Any) -> Path:
    """Two data sets under two protocols, with failures, labels and paths of the maker's machine."""
    rows = pd.concat([sweep("r1", "birds", IMAGES, 0), sweep("r2", "pets", IMAGES, 1)])
    failed = [("r1", "birds", "i090", "decode", "/home/maker/a b/i090.jpg: the image cannot be read")]
    failures = pd.DataFrame(failed, columns=["run_id", "dataset", "image_id", "stage", "error"])
    path = write(folder, rows, {"r1": "p1", "r2": "p2"}, failures=failures, config=CONFIG, **more)
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE images SET uri = '/home/maker/' || image_id || '.jpg'")
        connection.execute("UPDATE images SET label = substr(image_id, 2)::INTEGER % 5")
    return path


def everything(path: Path) -> dict[str, Any]:
    """All rows of all tables."""
    store = results(path)
    tables = store.query("SELECT table_name FROM duckdb_tables() ORDER BY ALL")["table_name"]
    found = {}
    for table in tables:
        rows = store.query("SELECT t::VARCHAR AS row FROM query_table(?) AS t ORDER BY ALL", [table])
        found[table] = rows["row"].tolist()
    return found
