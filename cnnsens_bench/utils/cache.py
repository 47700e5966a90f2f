"""Where what is made once lies: generated data sets and trained checkpoints."""

import os
from pathlib import Path

import platformdirs


def cache_dir(named: str | Path | None = None) -> Path:
    """`named`, else the folder that `CNNSENS_CACHE` names, else the user's cache folder of this program."""
    named = named or os.environ.get("CNNSENS_CACHE")
    return Path(named).expanduser() if named else platformdirs.user_cache_path("cnnsens_bench")
