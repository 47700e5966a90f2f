"""The environment in which a result was computed: versions, commit and device."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def environment() -> dict[str, str | None]:
    """Return the versions, commit, platform, device and time that a reader needs to repeat a run.

    A package that is not installed has None as its version.
    """
    import torch  # imported here alone, because the leaderboard asks for the commit without torch

    packages = (
        *("torch", "torchvision", "timm", "numpy", "pillow", "opencv-python-headless"),
        *("numba", "albumentations", "ray", "duckdb"),
    )
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
        "cnnsens_bench": _version("cnnsens-bench"),
        "commit": commit(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores",
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # another distribution of it may be installed, such as opencv-python
        return None


def commit() -> str | None:
    """Return the git commit of the program's checkout, or None where there is no checkout or no git."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    except OSError:
        return None
    return found.stdout.strip() or None
