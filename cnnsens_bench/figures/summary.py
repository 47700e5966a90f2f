"""The table at the end of a run: accuracy and label change of each entrant, and in detail under each condition."""

import re
from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cnnsens_bench.measures import EntrantResults, MeasureSpec, measures
from cnnsens_bench.store import Store
from cnnsens_bench.utils.formatting import UNITS, degradation_text, level_text, plain, share_span

LEADERS = "SELECT * FROM leaderboard WHERE protocol = ? AND dataset = ?"
ACCURACY = "SELECT * FROM accuracy WHERE protocol = ? AND dataset = ? AND degradation <> 'none'"
CHANGE = "SELECT * FROM label_change WHERE protocol = ? AND dataset = ?"
BUDGETED = """
SELECT 1 FROM runs
WHERE protocol = ? AND ((config ->> 'budget')::DOUBLE < 1 OR config ->> 'until' IS NOT NULL) LIMIT 1
"""
SHARES = "SELECT share FROM evaluated_share WHERE protocol = ? AND dataset = ? AND share IS NOT NULL"
KEY = ["model", "defense"]

PLAIN_WIDTH = 120
"""The width of the detailed tables where there is no terminal, in characters."""
BRIEF_WIDTH = 100
"""The largest width of the table that is printed without details, in characters."""
BRIEF_ENTRANTS = 20
"""The most entrants that are printed without details."""
NAMES = "architecture\ndefense"
CELL, LABEL = 16, 6
"""The widths of `100.0 [100–100]` and of `acc.` with the space between columns, in characters."""


def print_summary(console: Console, store: Store, protocol: str, dataset: str, details: bool = False) -> None:
    """Print the ranking, at most `BRIEF_WIDTH` wide, or with `details` all tables of `summary_tables`.

    The detailed tables are as wide as the terminal, or `PLAIN_WIDTH` where there is none.

    Parameters
    ----------
    console
        Where the tables are printed.
    store
        The store of the run.
    protocol, dataset
        Which rows of the store are summarised.
    details
        Whether there is a table of each degradation too, and a row of every entrant.
    """
    width = console.width
    if details and not console.is_terminal:
        console.width = max(width, PLAIN_WIDTH)
    elif not details:
        console.width = min(width, BRIEF_WIDTH) if console.is_terminal else BRIEF_WIDTH
    try:
        for table in summary_tables(store, protocol, dataset, console.width, details):
            console.print()
            console.print(table)
    finally:
        console.width = width


def summary_tables(
    store: Store, protocol: str, dataset: str, width: int = PLAIN_WIDTH, details: bool = True
) -> list[Table]:
    """Make a ranking, then for each degradation a table of accuracy and p_Δ per level, in % with 95 % intervals.

    Entrants are sorted by mean degraded accuracy, best first. Where they have unlike numbers of conditions, those with
    most come first.

    Parameters
    ----------
    store
        The store of the run.
    protocol, dataset
        Which rows of the store are summarised.
    width
        The width to fit into, in characters. A degradation with too many levels gets several tables.
    details
        Whether there are more tables than the ranking, which then has every entrant; otherwise it has the first
        `BRIEF_ENTRANTS`.

    Returns
    -------
    list of rich.table.Table
        The tables; none where the store has no undegraded predictions of the data set under the protocol.
    """
    which = [protocol, dataset]
    order = ["n_conditions", "mean_degraded_accuracy", "accuracy", *KEY]
    leaders = store.query(LEADERS, which).sort_values(order, ascending=[False, False, False, True, True])
    if leaders.empty:
        return []
    leaders["name"] = _names(leaders)
    shown = leaders if details else leaders.head(BRIEF_ENTRANTS)
    accuracy, change = store.query(ACCURACY, which), store.query(CHANGE, which)
    notes = [evaluated_text(store, protocol, dataset)]
    if notes[0]:
        notes[0] += "; the worst condition is the lowest of uncertain shares, so it looks too low"
    if leaders["n_conditions"].nunique() > 1:
        notes.append("means are comparable only among rows with the same conditions")
    if not details:
        notes.append(_left_out(len(leaders) - len(shown), accuracy))
    tables = [_ranking(_with_measures(shown, accuracy, change), leaders, dataset, list(filter(None, notes)))]
    for degradation in sorted(accuracy["degradation"].unique()) if details else ():
        own, own_change = (rows[rows["degradation"] == degradation] for rows in (accuracy, change))
        tables += _levels(degradation, leaders, own, own_change, width)
    return tables


def _left_out(entrants: int, accuracy: pd.DataFrame) -> str:
    """Say what the ranking alone does not show; "" where that is nothing."""
    conditions = len(accuracy[["degradation", "level"]].drop_duplicates())
    names = [degradation_text(name) for name in sorted(accuracy["degradation"].unique())]
    what = [f"{entrants} more {'entrants' if entrants > 1 else 'entrant'}"] if entrants else []
    if conditions > 1:
        what.append(f"the {conditions} conditions one by one ({', '.join(names)})")
    return f"not shown: {'; '.join(what)}: details=on" if what else ""


def evaluated_text(store: Store, protocol: str, dataset: str) -> str:
    """Say which share of the degraded cells was evaluated; "" where all cells are evaluated by every run's config.

    Parameters
    ----------
    store
        The store of the run.
    protocol, dataset
        Which rows of the store are counted.
    """
    if store.query(BUDGETED, [protocol]).empty:
        return ""
    shares = store.query(SHARES, [protocol, dataset])["share"]
    return f"{share_span(shares.min(), shares.max())} of the degraded cells evaluated" if len(shares) else ""


def _shown() -> list[MeasureSpec]:
    """Return the measures that stand between the undegraded accuracy and the worst condition."""
    return [spec for spec in measures.values() if spec.summary and spec.name not in ("accuracy", "worst_accuracy")]


def _with_measures(leaders: pd.DataFrame, accuracy: pd.DataFrame, change: pd.DataFrame) -> pd.DataFrame:
    """Add the measures that the view `leaderboard` lacks, from the accuracy and label change of each condition."""
    lacking = [spec for spec in _shown() if spec.name not in leaders]
    if not lacking:
        return leaders
    both = accuracy.merge(change, on=[*KEY, "degradation", "level"], how="left", suffixes=("", "_change"))
    both = both.sort_values(["degradation", "level"])
    results = []
    for row in leaders.to_dict("records"):
        own = both[(both["model"] == row["model"]) & (both["defense"] == row["defense"])]
        shares = np.array([[row["accuracy"], *own["value"]]])
        unknown: dict[str, Any] = dict.fromkeys(("top5", "class_accuracy", "nll", "ece"), np.full_like(shares, np.nan))
        results.append(
            EntrantResults(
                degradation=np.array(["none", *own["degradation"]]),
                level=np.array([0.0, *own["level"]]),
                averaged=np.array([False, *[True] * len(own)]),
                accuracy=shares,
                label_change=np.array([[np.nan, *own["value_change"]]]),
                num_parameters=row["num_parameters"],
                **unknown,
            )
        )
    return leaders.assign(**{spec.name: [spec.interval(one)[0] for one in results] for spec in lacking})


def _ranking(shown: pd.DataFrame, leaders: pd.DataFrame, dataset: str, notes: list[str]) -> Table:
    """Make the table of the entrants in `shown`, which are some of `leaders` with all measures; notes go below it."""
    unlike = leaders["n_conditions"].nunique() > 1
    notes = [f"{leaders['n_images'].max()} test images; means over levels, then over degradations", *notes]
    title = Text(f"{plain(dataset)}: accuracy and label change p_Δ in %, with 95 % intervals")
    table = table_of(title, Text("\n".join(notes)))
    # Names may be folded, but numbers never are.
    table.add_column(NAMES, overflow="fold")
    headings = (measures["accuracy"].summary, *(["condi-\ntions"] if unlike else []), *(s.summary for s in _shown()))
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(measures["worst_accuracy"].summary, justify="right", overflow="fold")
    for row in shown.to_dict("records"):
        worst = Text("–")
        if isinstance(row["worst_degradation"], str):
            name = row["worst_degradation"]
            condition = f"{degradation_text(name)} {level_text(name, row['worst_level'])}"
            worst = Text(f"{condition.strip()}\n{percent(row['worst_accuracy'])}")
        table.add_row(
            _entrant(row["name"], short_defense(row["defense"])),
            Text(interval(row["accuracy"], row["accuracy_low"], row["accuracy_high"])),
            *([str(row["n_conditions"])] if unlike else []),
            *(_measured(spec, row) for spec in _shown()),
            worst,
        )
    return table


def _measured(spec: MeasureSpec, row: dict[Hashable, Any]) -> Text:
    """Return the value of a measure, coloured where it is the mean degraded accuracy."""
    value = row[spec.name]
    return Text(spec.text(value), _colour(value, row["accuracy"]) if spec.name == "mean_degraded_accuracy" else "")


def _levels(
    degradation: str, leaders: pd.DataFrame, accuracy: pd.DataFrame, change: pd.DataFrame, width: int
) -> list[Table]:
    """Make the tables of a degradation, with two lines per entrant: architecture and accuracy, defense and p_Δ."""
    levels = sorted(accuracy["level"].unique())
    defenses = [short_defense(defense) for defense in leaders["defense"]]
    longest = max(len(text) for text in ["defense", *leaders["name"], *defenses])
    names = max(12, min(longest, width - LABEL - 2 * CELL)) + 3
    fitting = max(1, (width - names - LABEL) // CELL)
    values = {"acc.": _by_key(accuracy), "p_Δ": _by_key(change)}
    tables = []
    for start in range(0, len(levels), fitting):
        some = levels[start : start + fitting]
        table = table_of(Text(f"{degradation_text(degradation)}{UNITS.get(degradation, ('', ''))[1]}"))
        table.add_column(NAMES, overflow="fold", max_width=names)
        table.add_column("")
        for level in some:
            table.add_column(Text(level_text(degradation, level)), justify="right", no_wrap=True)
        for row, defense in zip(leaders.to_dict("records"), defenses, strict=True):
            cells = [_cell(values, (row["model"], row["defense"], level), row["accuracy"]) for level in some]
            table.add_row(_entrant(row["name"], defense), "acc.\np_Δ", *cells)
        tables.append(table)
    return tables


Values = dict[tuple[str, str, float], tuple[float, float, float]]
"""The value, low and high of each (model, defense, level)."""


def _by_key(rows: pd.DataFrame) -> Values:
    columns = rows[[*KEY, "level", "value", "low", "high"]]
    return {tuple(row[:3]): tuple(row[3:]) for row in columns.itertuples(index=False, name=None)}


def _cell(values: dict[str, Values], key: tuple[str, str, float], undegraded: float) -> Text:
    lines = []
    for name, known in values.items():
        found = known.get(key)
        style = _colour(found[0], undegraded) if found and name == "acc." else ""
        lines.append(Text(interval(*found) if found else "–", style))
    return Text("\n").join(lines)


def _entrant(name: str, defense: str) -> Text:
    return Text(f"{name}\n{'' if defense == 'none' else defense}")


def table_of(title: Text, caption: Text | str | None = None) -> Table:
    """Return an empty table in the style of all tables in the terminal."""
    return Table(title=title, caption=caption, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD)


def _names(leaders: pd.DataFrame) -> pd.Series:
    """Return the architecture of each entrant, or its model where several models share the architecture."""
    models = leaders.groupby("architecture")["model"].transform("nunique")
    return leaders["architecture"].where(models == 1, leaders["model"]).map(plain)


def _colour(accuracy: float, undegraded: float) -> str:
    """Return a colour for the share of the undegraded accuracy that is left. The number says it without colours."""
    if pd.isna(accuracy) or not undegraded > 0:
        return ""
    left = accuracy / undegraded
    return "green" if left >= 0.8 else "yellow" if left >= 0.5 else "red"


def percent(value: float) -> str:
    """Return a share in per cent with one decimal, and `–` for NaN."""
    return "–" if pd.isna(value) else f"{100 * value:.1f}"


def interval(value: float, low: float, high: float) -> str:
    """Return a share with its interval in per cent, such as `61.2 [55–67]`, and `–` for NaN."""
    return "–" if pd.isna(value) else f"{100 * value:.1f} [{100 * low:.0f}–{100 * high:.0f}]"


def wrapped(name: str, width: int) -> Iterator[str]:
    """Break the name of a degradation into lines.

    Lines are broken before the sign of a sum and after the colon of a prefix, elsewhere only where a line is full.

    Parameters
    ----------
    name
        The name of a degradation, such as `common:glass_blur`.
    width
        The largest number of characters of a line.

    Yields
    ------
    str
        The lines.

    Examples
    --------
    >>> list(wrapped("common:glass_blur + pepper(p=0.1)", 12))
    ['common:', 'glass_blur', '+ pepper(p=', '0.1)']
    """
    for section in re.split(r" (?=\+ )|(?<=:)(?=\w)", name):
        line = ""
        for word in re.findall(r"[^_,(=]+[_,(=]*|[_,(=]+", section):
            while len(line) + len(word) > width:
                room = 0 if line else width
                yield (line + word[:room]).strip()
                line, word = "", word[room:]
            line += word
        if line.strip():
            yield line.strip()


def short_defense(defense: str) -> str:
    """Return a defense without the names of its arguments, safe to print.

    Examples
    --------
    >>> short_defense("gaussian_filter(size=3, sigma=0.5)")
    'gaussian_filter(3, 0.5)'
    """
    if " + " in defense:
        return " + ".join(map(short_defense, defense.split(" + ")))
    name, bracket, inner = defense.partition("(")
    if not bracket:
        return plain(defense)
    values = [argument.partition("=")[2] or argument for argument in inner.removesuffix(")").split(", ")]
    return plain(f"{name}({', '.join(values)})")
