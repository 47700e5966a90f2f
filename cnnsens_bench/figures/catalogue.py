"""The figures by their names: those that a run draws without further choices, and all with the choices of users."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from rich.console import Console

from cnnsens_bench.figures import architectures, curves, fragile, paper, published, sensitivity
from cnnsens_bench.figures.predicted_curves import predicted_curves
from cnnsens_bench.figures.risk_coverage import risk_coverage_figure
from cnnsens_bench.figures.stored import stored_figure
from cnnsens_bench.store import Store
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import near

FigureFunction = Callable[..., Figure | None]
"""It takes the store, the file to write, and options of the figure. It returns None where the file is text."""
TABLES = ("table1", "published")
"""The figures that are tables, which are also written as CSV."""


def _fig4(store: Store, out: Path, model: str | None = None, dataset: str | None = None) -> Figure:
    """Draw figure 4. By default it shows the paper's network and data set, or else the network with most defenses."""
    if model or dataset:
        return curves.defense_curves(store, out, model, dataset)
    table = store.query(curves.DEFENDED)
    if table.empty:
        raise UserError(f"{store.path} has no models with defenses: a run with defenses makes one")
    table = table.assign(birds=table["dataset"] == published.CUB, papers=table["model"].str.endswith("/alexnet"))
    order = ["birds", "papers", "defenses", "model"]
    first = table.sort_values(order, ascending=[False, False, False, True]).iloc[0]
    notes = published.FIGURE_4 if first["birds"] else {}
    return curves.defense_curves(store, out, first["model"], first["dataset"], notes)


def _of_first_scored(draw: Callable[..., Figure]) -> FigureFunction:
    """Return a function that draws a figure of one scored entrant, on the paper's data set where there is one."""

    def draw_first(store: Store, out: Path) -> Figure:
        def order(entrant: sensitivity.ScoredEntrant) -> tuple[bool, bool, str, str]:
            return entrant.dataset != published.CUB, entrant.defense != "none", entrant.dataset, entrant.model

        return draw(store, out, min(sensitivity.require_scored(store), key=order))

    return draw_first


def _of_chosen(draw: Callable[..., Figure]) -> FigureFunction:
    """Return a function that draws a figure of the scored entrant that the options `model`, `defense`, … choose."""

    def draw_chosen(store: Store, out: Path, **options: Any) -> Figure:
        chosen = {key: options.pop(key) for key in sensitivity.ScoredEntrant._fields if key in options}
        return draw(store, out, sensitivity.choose_entrant(store, **chosen), **options)

    return draw_chosen


SCORE_FIGURES: dict[str, Callable[..., Figure]] = {
    "fig5": fragile.fig5,
    "fig6": sensitivity.fig6,
    "predictors": sensitivity.predictor_figure,
    "label-change": sensitivity.label_change_figure,
}
"""The figures of one scored entrant, which they take beside the store and the file."""
FIGURES: dict[str, FigureFunction] = {
    "table1": paper.table1,
    "fig2": paper.fig2,
    "fig3": paper.fig3,
    "fig4": _fig4,
    "fig5": _of_first_scored(fragile.fig5),
    "fig6": _of_first_scored(sensitivity.fig6),
    "combination": architectures.combination,
    "depth": architectures.depth,
    "published": published.published,
    "stored": stored_figure,
}
"""The figures that need no choices, by the names of the config key `figures`."""
ALL_FIGURES: dict[str, FigureFunction] = {
    **FIGURES,
    "curves": curves.curves,
    "defenses": curves.defense_curves,
    "risk-coverage": risk_coverage_figure,
    "predicted-curves": predicted_curves,
    **{name: _of_chosen(draw) for name, draw in SCORE_FIGURES.items()},
}
"""All figures that users can ask for by name. Keyword arguments choose what is shown, such as `dataset` and `model`."""


def figure_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of figures once all are known to exist, and raise `UserError` otherwise."""
    for name in names:
        if name not in FIGURES:
            raise UserError(f"figures: unknown figure '{name}'{near(name, FIGURES)}")
    return tuple(names)


def endings(name: str) -> tuple[str, ...]:
    """Return the endings of the files that a figure is written to by default.

    Examples
    --------
    >>> endings("fig2"), endings("table1")
    (('.pdf', '.png'), ('.pdf', '.png', '.csv'))
    """
    return (".pdf", ".png", ".csv") if name in TABLES else (".pdf", ".png")


class DrawnFigures(NamedTuple):
    """The files that were written, and the names of figures that failed."""

    files: list[Path]
    failed: list[str]


def draw_figures(console: Console, store: Store, names: Sequence[str], folder: Path) -> DrawnFigures:
    """Draw figures into a folder, and say in a sentence why one cannot be drawn.

    A figure that has nothing to show (a `UserError`) is left out. One that fails in another way is named in the result
    too, and the others are drawn nevertheless.

    Parameters
    ----------
    console
        Where the sentences are shown.
    store
        The results.
    names
        Names of `FIGURES`.
    folder
        The folder, which is made where it is missing.

    Returns
    -------
    DrawnFigures
        The files that were written, and the names of figures that failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = DrawnFigures([], [])
    for name in names:
        for ending in endings(name):  # an older file must not remain where the figure cannot be drawn again
            (folder / f"{name}{ending}").unlink(missing_ok=True)
        try:
            for ending in endings(name):
                FIGURES[name](store, folder / f"{name}{ending}")
                drawn.files.append(folder / f"{name}{ending}")
        except UserError as error:
            console.print(f"{name} is not drawn: {error}", markup=False, soft_wrap=True)
        except Exception as error:  # a mistake in a figure must not end a run whose results are complete
            drawn.failed.append(name)
            console.print(f"{name} is not drawn ({type(error).__name__}: {error})", markup=False, soft_wrap=True)
    if drawn.files:
        console.print(f"figures: {folder}", markup=False, soft_wrap=True)
    return drawn
