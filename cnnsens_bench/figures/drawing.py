"""Figures by name, as `python -m cnnsens_bench.figures` and the key `figures` of a suite know them."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from cnnsens_bench.store import Store


def figure_names(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(names)


def draw_figures(console: Console, store: Store, names: Sequence[str], folder: Path) -> None:
    return None
