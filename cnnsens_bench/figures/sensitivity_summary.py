"""The report that a run with scores ends with: tables of how far predictions can be trusted, and figures."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cnnsens_bench.figures import sensitivity
from cnnsens_bench.figures.catalogue import SCORE_FIGURES
from cnnsens_bench.figures.fragile import compare_hues, sensitive_images
from cnnsens_bench.figures.label_change import label_change_check
from cnnsens_bench.figures.sensitivity import ScoredEntrant, condition_order
from cnnsens_bench.figures.summary import short_defense, table_of
from cnnsens_bench.store import Store
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import level_text, plain

COLUMNS = 6
"""How many conditions a table shows side by side."""
SPEARMAN = "Spearman's ρ over images, 95 % intervals; cost: passes; 'paper': √V; 'ceiling' is estimated"
AUROC = "AUROC over (image, trial), 95 % by bootstrap over images"
SKILL = "skill: 1 − Brier score over that of the mean p_Δ; below 0 the mean foretells better"
"""The captions of the tables."""


def sensitivity_report(console: Console, store: Store, protocol: str, dataset: str, folder: Path) -> list[Path]:
    """Print the tables and draw the figures of every scored entrant of a run.

    A figure that has nothing to show is left out.

    Parameters
    ----------
    console
        Where the tables are printed.
    store
        The results.
    protocol, dataset
        Which scored entrants are reported.
    folder
        The folder of the figures.

    Returns
    -------
    list of pathlib.Path
        The files that were written.
    """
    files: list[Path] = []
    for entrant in sensitivity.scored_entrants(store):
        if (entrant.protocol, entrant.dataset) != (protocol, dataset):
            continue
        changes = label_change_check(store.query(sensitivity.LABEL_CHANGE, list(entrant)))
        for table in _tables(store, entrant, changes):
            console.print()
            console.print(table)
        with contextlib.suppress(UserError, ValueError):
            hues = compare_hues(sensitive_images(store, entrant, "gaussian_rgb", 1.0, "logit"))
            console.print(hues.sentence(), markup=False, soft_wrap=True)
        files += _draw_figures(store, entrant, folder, changes)
    if files:
        console.print(f"figures: {folder}", markup=False, soft_wrap=True)
    return files


def _tables(store: Store, entrant: ScoredEntrant, changes: pd.DataFrame) -> Iterator[Table]:
    """Yield the tables of one entrant: deviations of both outputs, ranking of label changes, and their skill."""
    name = plain(entrant.model) + ("" if entrant.defense == "none" else f", {short_defense(entrant.defense)}")
    check = store.query(sensitivity.CHECK, list(entrant))
    if len(check):
        check["text"] = [_interval(r.spearman, r.spearman_low, r.spearman_high) for r in check.itertuples()]
        check = check.rename(columns={"predictor": "name"}).sort_values(["passes", "name"])
        conditions = check[["degradation", "level"]].drop_duplicates()
        ceiling = store.query(sensitivity.CEILING, list(entrant)).merge(conditions)
        ceiling = ceiling.assign(name="ceiling", passes=0, text=[f"{value:.2f}" for value in ceiling["ceiling"]])
        for output, rows in pd.concat([check, ceiling]).groupby("output"):
            title = f"{name}: predicted against measured standard deviation of the {output}"
            yield from _tables_of_conditions(title, SPEARMAN, rows)
    if len(changes):
        changes = changes.rename(columns={"score": "name"}).sort_values(["passes", "name"])
        areas = changes.assign(text=[_interval(r.auroc, r.low, r.high) for r in changes.itertuples()])
        yield from _tables_of_conditions(f"{name}: foretelling a label change", AUROC, areas)
        skills = changes.dropna(subset=["skill"])
        skills = skills.assign(text=[f"{value:.2f}" for value in skills["skill"]])
        yield from _tables_of_conditions(f"{name}: probability of a label change", SKILL, skills)


def _interval(value: float, low: float, high: float) -> str:
    """Return a value with its interval, such as `0.76 [.61–.86]`."""
    if pd.isna(low):
        return "–"
    return f"{value:.2f} [{f'{low:.2f}'.replace('0.', '.', 1)}–{f'{high:.2f}'.replace('0.', '.', 1)}]"


def _tables_of_conditions(title: str, caption: str, rows: pd.DataFrame) -> Iterator[Table]:
    """Yield tables with a line for each name and a column for each condition, `COLUMNS` of them in a table."""
    conditions = sorted(set(rows[["degradation", "level"]].itertuples(index=False, name=None)), key=condition_order)
    for start in range(0, len(conditions), COLUMNS):
        shown = conditions[start : start + COLUMNS]
        table = table_of(Text(title), caption)
        table.padding, table.show_edge = 0, False
        table.add_column("", overflow="fold")
        table.add_column("cost", justify="right")
        for degradation, level in shown:
            table.add_column(Text(f"{plain(degradation)}\n{level_text(degradation, level)}"), justify="right")
        for (name, passes), own in rows.groupby(["name", "passes"], sort=False):
            texts = {(row.degradation, row.level): row.text for row in own.itertuples()}
            cells = [Text(texts.get(condition, "")) for condition in shown]
            table.add_row(Text(short_defense(str(name))), str(passes) if passes else "", *cells)
        yield table


def _draw_figures(store: Store, entrant: ScoredEntrant, folder: Path, changes: pd.DataFrame) -> list[Path]:
    """Draw the figures of one entrant, whose name their file names contain, and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    name = entrant.model if entrant.defense == "none" else f"{entrant.model} {entrant.defense}"
    file_name = "".join(c if c.isalnum() else "_" for c in name)[:80]
    # A hash tells apart names that differ only in signs, or after 80 characters.
    if file_name != name.replace("/", "_"):
        file_name += f"-{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}"
    drawn = []
    for kind, draw in SCORE_FIGURES.items():
        file = folder / f"{kind}-{file_name}.png"
        with contextlib.suppress(UserError):
            draw(store, file, entrant, **({"check": changes} if kind == "label-change" else {}))
            drawn.append(file)
    return drawn
