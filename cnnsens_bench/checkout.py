"""Which state of this program's code it is."""

import subprocess
from pathlib import Path


def commit() -> str | None:
    """Of the program's checkout; None where there is none, or no git."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    except OSError:
        return None
    return found.stdout.strip() or None
