"""What differs where the command is a Ray job: its working folder is a copy that Ray removes when the job is over."""

import dataclasses
import os
from pathlib import Path
from urllib.parse import urlsplit

from cnnsens_bench.config import Config

STORAGE = "CNNSENS_STORAGE"
"""Names the folder, seen by all machines, below which the relative outputs of jobs lie."""


def settled(config: Config) -> Config:
    """In a job's uploaded folder a relative `output` goes below $CNNSENS_STORAGE, or the user's home."""
    output = config.output or f"runs/{config.suite}"
    if not in_uploaded_folder() or Path(output).expanduser().is_absolute() or urlsplit(output).scheme:
        return config
    base = os.environ.get(STORAGE) or str(Path.home())
    return dataclasses.replace(config, output=os.path.normpath(os.path.join(base, output)))


def in_uploaded_folder() -> bool:
    """Whether this runs where Ray unpacked what `ray job submit --working-dir` uploaded."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and "working_dir_files" in Path.cwd().parts
