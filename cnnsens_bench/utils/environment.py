"""What a result was computed with: versions, commit, device."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def environment() -> dict[str, str | None]:
    """Versions, commit and device: what a reader needs to repeat the run."""
    import torch  # imported only here: the leaderboard asks for the commit alone

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
    except PackageNotFoundError:  # its twin may be there, such as opencv-python
        return None


def commit() -> str | None:
    """Of the program's checkout; None where there is none, or no git."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    except OSError:
        return None
    return found.stdout.strip() or None
