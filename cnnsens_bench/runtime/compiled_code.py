"""The folder in which torch keeps the code of compiled networks, so that each is compiled once on a machine."""

import hashlib
import os
from pathlib import Path

import torch

from cnnsens_bench.engine.timing import device_name
from cnnsens_bench.utils.cache import cache_dir

CODE_FOLDER = "TORCHINDUCTOR_CACHE_DIR"
"""The environment variable by which torch finds the folder."""


def keep_compiled_code(cache: str | Path | None) -> None:
    """Let torch keep compiled code below the cache folder, unless the environment names a folder of its own.

    Each kind of processor has its own folder, because machines may share the cache folder.

    Parameters
    ----------
    cache
        The cache folder; None for the user's.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    if os.environ.get(CODE_FOLDER, default_cache_dir()) != default_cache_dir():
        return  # torch writes its default into the environment by itself
    processor = hashlib.blake2b(device_name(torch.device("cpu")).encode(), digest_size=4).hexdigest()
    os.environ[CODE_FOLDER] = str(cache_dir(cache).absolute() / "compiled" / processor)
