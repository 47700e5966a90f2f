"""Where what is made once lies: generated data sets and trained checkpoints."""

import os
import tempfile
from pathlib import Path

import platformdirs

from cnnsens_bench.errors import UserError


def cache_dir(named: str | Path | None = None) -> Path:
    """`named`, else the folder that `CNNSENS_CACHE` names, else the user's cache folder of this program."""
    named = named or os.environ.get("CNNSENS_CACHE")
    return Path(named).expanduser() if named else platformdirs.user_cache_path("cnnsens_bench")


def require_writable(folder: Path) -> None:
    """Make the cache's folder where it is missing. Raises `UserError` when nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"the cache folder {folder} cannot be written ({reason}): choose another with cache=… or CNNSENS_CACHE"
        ) from None
