"""Where what is made once lies: generated data sets and trained checkpoints."""

import os
from pathlib import Path

import platformdirs


def cache_dir() -> Path:
    """The folder `CNNSENS_CACHE` names, else the user's cache folder of this program."""
    named = os.environ.get("CNNSENS_CACHE")
    return Path(named).expanduser() if named else platformdirs.user_cache_path("cnnsens_bench")
