"""What a run with scores ends with: tables of how far predictions can be trusted, and the figures of section 4."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cnnsens_bench.errors import UserError
from cnnsens_bench.figures.fragile import fig5, hue_test, sensitive_images
from cnnsens_bench.figures.label_change import label_change_check
from cnnsens_bench.figures.sensitivity import (
    CHECK,
    LABEL_CHANGE,
    ORDER,
    SCORED,
    Which,
    fig6,
    label_change_figure,
    predictor_figure,
)
from cnnsens_bench.figures.summary import level_text, plain, short_defense, table_of
from cnnsens_bench.store import Store

COLUMNS = 6
"""Conditions side by side in a table."""


def sensitivity_report(console: Console, store: Store, protocol: str, dataset: str, folder: Path) -> list[Path]:
    """Print the tables and draw the figures of every entrant that was scored; gives the files, in `folder`.

    A figure that has nothing to show is left out. Nothing where no entrant was scored.
    """
    scored = store.query(SCORED)
    scored = scored[(scored["protocol"] == protocol) & (scored["dataset"] == dataset)]
    files: list[Path] = []
    for which in scored.itertuples(index=False, name=None):
        for table in _tables(store, which):
            console.print()
            console.print(table)
        files += _figures(store, which, folder)
    if files:
        console.print(f"figures: {folder}", markup=False, soft_wrap=True)
    return files


def _tables(store: Store, which: Which) -> Iterator[Table]:
    name = plain(which[2]) + ("" if which[3] == "none" else f", {short_defense(which[3])}")
    check = store.query(CHECK, list(which))
    if len(check):
        check["text"] = [
            f"{r.spearman:.2f} [{r.spearman_low:.2f}–{r.spearman_high:.2f}]" if pd.notna(r.spearman_low) else "–"
            for r in check.itertuples()
        ]
        check["name"] = check["output"] + ", " + check["predictor"]
        check = check.sort_values(["output", "passes", "predictor"])
        caption = "Spearman's ρ over images with 95 % intervals; 'paper' is √V, others the deviation alone"
        caption += _hues(store, which)
        yield _wide(f"{name}: predicted against measured standard deviation", caption, check)
    changes = label_change_check(store.query(LABEL_CHANGE, list(which)).query("predictor != 'paper'"))
    if len(changes):
        changes["text"] = [f"{r.auroc:.2f} [{r.low:.2f}–{r.high:.2f}]" for r in changes.itertuples()]
        changes = changes.rename(columns={"score": "name"}).sort_values(["passes", "name"])
        yield _wide(
            f"{name}: foretelling a label change", "AUROC over (image, trial), 95 % by bootstrap over images", changes
        )


def _hues(store: Store, which: Which) -> str:
    try:
        return "\n" + hue_test(sensitive_images(store, which, "gaussian_rgb", 1.0, "logit")).sentence()
    except (UserError, ValueError):
        return ""


def _wide(title: str, caption: str, rows: pd.DataFrame) -> Table:
    """A line a name, a column a condition."""
    table = table_of(Text(title), caption)
    table.add_column("", overflow="fold")
    table.add_column("passes", justify="right")
    conditions = sorted(
        set(rows[["degradation", "level"]].itertuples(index=False, name=None)), key=lambda c: (ORDER.index(c[0]), c[1])
    )[:COLUMNS]
    for degradation, level in conditions:
        table.add_column(Text(f"{degradation}\n{level_text(degradation, level)}"), justify="right")
    for (name, passes), own in rows.groupby(["name", "passes"], sort=False):
        texts = {(row.degradation, row.level): row.text for row in own.itertuples()}
        cells = [Text(texts.get(condition, "")) for condition in conditions]
        table.add_row(Text(plain(str(name))), str(passes), *cells)
    return table


def _figures(store: Store, which: Which, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    safe = "".join(c if c.isalnum() else "_" for c in f"{which[2]} {'' if which[3] == 'none' else which[3]}").strip("_")
    drawn = []
    for name, draw in (
        ("fig5", fig5),
        ("fig6", fig6),
        ("predictors", predictor_figure),
        ("label-change", label_change_figure),
    ):
        file = folder / f"{name}-{safe[:80]}.png"
        with contextlib.suppress(UserError):
            draw(store, file, which)
            drawn.append(file)
    return drawn
