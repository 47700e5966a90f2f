"""The folder that keeps what is computed once and used by many runs: generated data sets and trained checkpoints."""

import os
from pathlib import Path


def cache_dir(named: str | Path | None = None) -> Path:
    """Return the cache folder, which need not exist.

    Parameters
    ----------
    named
        The folder that the user named, if any. The next choices are the folder that the environment variable
        `CNNSENS_CACHE` names, and the user's cache folder of this program.

    Examples
    --------
    >>> cache_dir("/scratch/cache").as_posix()
    '/scratch/cache'
    """
    named = named or os.environ.get("CNNSENS_CACHE")
    if named:
        return Path(named).expanduser()
    import platformdirs  # imported here because the engine alone needs no cache folder

    return platformdirs.user_cache_path("cnnsens_bench")
