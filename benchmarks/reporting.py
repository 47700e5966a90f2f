"""How benchmarks show their figures: a table on the screen, and a file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def show(title: str, shown: Mapping[str, Any], figures: Mapping[str, Any], file: Path | None) -> None:
    """Print a table of what is shown, with three decimals, and write the figures to the file, if one is named."""
    table = Table("figure", "value", title=title)
    for key, value in shown.items():
        table.add_row(key, f"{value:.3f}" if isinstance(value, float) else str(value))
    Console().print(table)
    if file:
        file.write_text(json.dumps(figures, indent=2) + "\n")
