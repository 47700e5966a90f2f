"""What a run with scores ends with: tables of how far predictions can be trusted, and the figures of section 4."""

import contextlib
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cnnsens_bench.figures.fragile import fig5, hue_test, sensitive_images
from cnnsens_bench.figures.label_change import label_change_check
from cnnsens_bench.figures.sensitivity import (
    CEILING,
    CHECK,
    LABEL_CHANGE,
    SCORED,
    Which,
    fig6,
    label_change_figure,
    order_of,
    predictor_figure,
)
from cnnsens_bench.figures.summary import short_defense, table_of
from cnnsens_bench.store import Store
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import level_text, plain

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
        changes = label_change_check(store.query(LABEL_CHANGE, list(which)))
        for table in _tables(store, which, changes):
            console.print()
            console.print(table)
        hues = _hues(store, which)
        if hues:
            console.print(hues, markup=False, soft_wrap=True)
        files += _figures(store, which, folder, changes)
    if files:
        console.print(f"figures: {folder}", markup=False, soft_wrap=True)
    return files


def _tables(store: Store, which: Which, changes: pd.DataFrame) -> Iterator[Table]:
    name = plain(which[2]) + ("" if which[3] == "none" else f", {short_defense(which[3])}")
    check = store.query(CHECK, list(which))
    if len(check):
        check["text"] = [_interval(r.spearman, r.spearman_low, r.spearman_high) for r in check.itertuples()]
        check = check.rename(columns={"predictor": "name"}).sort_values(["passes", "name"])
        ceiling = store.query(CEILING, list(which)).merge(check[["degradation", "level"]].drop_duplicates())
        ceiling = ceiling.assign(name="ceiling", passes=0, text=[f"{value:.2f}" for value in ceiling["ceiling"]])
        for output, rows in pd.concat([check, ceiling]).groupby("output"):
            yield from _wide(
                f"{name}: predicted against measured standard deviation of the {output}",
                "Spearman's ρ over images, 95 % intervals; cost: passes; 'paper': √V; 'ceiling' is estimated",
                rows,
            )
    if len(changes):
        changes = changes.rename(columns={"score": "name"}).sort_values(["passes", "name"])
        areas = changes.assign(text=[_interval(r.auroc, r.low, r.high) for r in changes.itertuples()])
        yield from _wide(
            f"{name}: foretelling a label change", "AUROC over (image, trial), 95 % by bootstrap over images", areas
        )
        skills = changes.dropna(subset=["skill"])
        yield from _wide(
            f"{name}: probability of a label change",
            "skill: 1 − Brier score over that of the mean p_Δ; below 0 the mean foretells better",
            skills.assign(text=[f"{value:.2f}" for value in skills["skill"]]),
        )


def _interval(value: float, low: float, high: float) -> str:
    """`0.76 [.61–.86]`."""
    if pd.isna(low):
        return "–"
    return f"{value:.2f} [{f'{low:.2f}'.replace('0.', '.', 1)}–{f'{high:.2f}'.replace('0.', '.', 1)}]"


def _hues(store: Store, which: Which) -> str | None:
    try:
        return hue_test(sensitive_images(store, which, "gaussian_rgb", 1.0, "logit")).sentence()
    except (UserError, ValueError):
        return None


def _wide(title: str, caption: str, rows: pd.DataFrame) -> Iterator[Table]:
    """A line a name, a column a condition, `COLUMNS` of them in a table."""
    conditions = sorted(set(rows[["degradation", "level"]].itertuples(index=False, name=None)), key=order_of)
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


def _figures(store: Store, which: Which, folder: Path, changes: pd.DataFrame) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    name = which[2] if which[3] == "none" else f"{which[2]} {which[3]}"
    plain_name = "".join(c if c.isalnum() else "_" for c in name)[:80]
    # Names that differ in signs alone, or after 80 letters, are told apart.
    mark = (
        "" if plain_name == name.replace("/", "_") else f"-{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}"
    )
    drawn = []
    for kind, draw in (
        ("fig5", fig5),
        ("fig6", fig6),
        ("predictors", predictor_figure),
        ("label-change", functools.partial(label_change_figure, check=changes)),
    ):
        file = folder / f"{kind}-{plain_name}{mark}.png"
        with contextlib.suppress(UserError):
            draw(store, file, which)
            drawn.append(file)
    return drawn
