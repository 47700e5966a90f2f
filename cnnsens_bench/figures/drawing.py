"""Figures by name, as `python -m cnnsens_bench.figures` and the key `figures` of a suite know them."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console

from cnnsens_bench.figures import architectures, curves, fragile, paper, published, sensitivity
from cnnsens_bench.store import Store
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import near

Draw = Callable[..., Figure | None]
"""Takes the store, the file to write, and the options of the figure; returns the figure, unless it wrote a table."""
TABLES = ("table1", "published")
"""Also written as CSV."""


def _fig4(store: Store, out: Path) -> Figure:
    table = store.query(curves.DEFENDED_ON)
    if table.empty:
        raise UserError(f"{store.path} has no models with defenses: a run with defenses makes one")
    # The paper's data set and network where they are there, then the network with most defenses.
    table = table.assign(birds=table["dataset"] == published.CUB, papers=table["model"].str.endswith("/alexnet"))
    order = ["birds", "papers", "defenses", "model"]
    first = table.sort_values(order, ascending=[False, False, False, True]).iloc[0]
    notes = published.FIGURE_4 if first["birds"] else {}
    return curves.defense_curves(store, out, first["model"], first["dataset"], notes)


def _scored(draw: Callable[..., Figure]) -> Draw:
    """Of the first entrant that has scores, on the paper's data set where that is there."""

    def drawn(store: Store, out: Path) -> Figure:
        every = store.query(sensitivity.SCORED)
        if every.empty:
            raise UserError(f"{store.path} has no sensitivity scores: a run with sensitivity=on makes them")
        every = every.assign(others=every["dataset"] != published.CUB, defended=every["defense"] != "none")
        first = every.sort_values(["others", "defended", "dataset", "model"], kind="stable").iloc[0]
        return draw(store, out, tuple(first[["protocol", "dataset", "model", "defense"]]))

    return drawn


FIGURES: dict[str, Draw] = {
    "table1": paper.table1,
    "fig2": paper.fig2,
    "fig3": paper.fig3,
    "fig4": _fig4,
    "fig5": _scored(fragile.fig5),
    "fig6": _scored(sensitivity.fig6),
    "combination": architectures.combination,
    "depth": architectures.depth,
    "published": published.published,
}
"""What can be drawn of a store without being told more."""


def figure_names(names: Sequence[str]) -> tuple[str, ...]:
    """`names`, once all are known. Raises `UserError`."""
    for name in names:
        if name not in FIGURES:
            raise UserError(f"figures: unknown figure '{name}'{near(name, list(FIGURES))}")
    return tuple(names)


def endings(name: str) -> tuple[str, ...]:
    """Of the files that a figure is written to."""
    return (".pdf", ".png", ".csv") if name in TABLES else (".pdf", ".png")


def draw_figures(console: Console, store: Store, names: Sequence[str], folder: Path) -> list[Path]:
    """Each of `names` as PDF and PNG in `folder`; one that has nothing to show is told in a sentence."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name in names:
        for ending in endings(name):  # what is drawn no more must not stand there as if it were
            (folder / f"{name}{ending}").unlink(missing_ok=True)
        try:
            for ending in endings(name):
                FIGURES[name](store, folder / f"{name}{ending}")
                files.append(folder / f"{name}{ending}")
        except UserError as error:
            console.print(f"{name} is not drawn: {error}", markup=False, soft_wrap=True)
        except Exception as error:  # a figure's fault must not end a run that is done
            console.print(f"{name} is not drawn ({type(error).__name__}: {error})", markup=False, soft_wrap=True)
    if files:
        console.print(f"figures: {folder}", markup=False, soft_wrap=True)
    return files
