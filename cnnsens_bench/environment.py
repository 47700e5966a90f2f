"""What a result was computed with: versions, commit, device."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch


def environment() -> dict[str, str | None]:
    """Versions, commit and device: what a reader needs to repeat the run."""
    packages = (
        *("torch", "torchvision", "timm", "numpy", "pillow", "opencv-python-headless"),
        *("numba", "albumentations", "ray", "duckdb"),
    )
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        check=False,
    )
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "cnnsens_bench": version("cnnsens-bench"),
        "commit": commit.stdout.strip() or None,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores",
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
