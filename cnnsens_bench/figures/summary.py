"""The tables that end a run: who suffers how much, in a form that a person reads."""

import re
from collections.abc import Iterator

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cnnsens_bench.store import Store
from cnnsens_bench.utils.formatting import UNITS, level_text, plain

LEADERS = "SELECT * FROM leaderboard WHERE protocol = ? AND dataset = ?"
ACCURACY = "SELECT * FROM accuracy WHERE protocol = ? AND dataset = ? AND degradation <> 'none'"
CHANGE = "SELECT * FROM label_change WHERE protocol = ? AND dataset = ?"
KEY = ["model", "defense"]


PLAIN_WIDTH = 120
"""Columns where there is no terminal."""
NAMES = "architecture\ndefense"
CELL, LABEL = 16, 6
"""Columns that `100.0 [100–100]` and `acc.` take, with the space between columns."""


def print_summary(console: Console, store: Store, protocol: str, dataset: str) -> None:
    """Print what `summary_tables` gives: as wide as the terminal, or `PLAIN_WIDTH` where there is none."""
    width = console.width
    if not console.is_terminal:
        console.width = max(width, PLAIN_WIDTH)
    try:
        for table in summary_tables(store, protocol, dataset, console.width):
            console.print()
            console.print(table)
    finally:
        console.width = width


def summary_tables(store: Store, protocol: str, dataset: str, width: int = PLAIN_WIDTH) -> list[Table]:
    """A ranking, then for each degradation accuracy and p_Δ per level, all in % with 95 % intervals.

    Sorted by mean degraded accuracy, best first; of entrants with unlike numbers of conditions those with most come
    first. A degradation whose levels do not fit into `width` columns gets several tables. Empty when the store has no
    undegraded predictions of `dataset` under `protocol`.
    """
    which = [protocol, dataset]
    leaders = store.query(LEADERS, which).sort_values(
        ["n_conditions", "mean_degraded_accuracy", "accuracy", *KEY], ascending=[False, False, False, True, True]
    )
    if leaders.empty:
        return []
    leaders["name"] = _names(leaders)
    accuracy, change = store.query(ACCURACY, which), store.query(CHANGE, which)
    tables = [_ranking(leaders, dataset)]
    for degradation in sorted(accuracy["degradation"].unique()):
        tables += _levels(
            degradation,
            leaders,
            accuracy[accuracy["degradation"] == degradation],
            change[change["degradation"] == degradation],
            width,
        )
    return tables


def _ranking(leaders: pd.DataFrame, dataset: str) -> Table:
    unlike = leaders["n_conditions"].nunique() > 1
    table = table_of(
        Text(f"{plain(dataset)}: accuracy and label change p_Δ in %, with 95 % intervals"),
        f"{leaders['n_images'].max()} test images; means over levels, then over degradations"
        + ("\nmeans are comparable only among rows with the same conditions" if unlike else ""),
    )
    # Names may fold, numbers never.
    table.add_column(NAMES, overflow="fold")
    headings = ("undegraded", *(["condi-\ntions"] if unlike else []), "mean\ndegraded", "mean\np_Δ")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("worst condition\nits accuracy", justify="right", overflow="fold")
    for row in leaders.to_dict("records"):
        worst = Text("–")
        if isinstance(row["worst_degradation"], str):
            condition = f"{plain(row['worst_degradation'])} {level_text(row['worst_degradation'], row['worst_level'])}"
            worst = Text(f"{condition.strip()}\n{percent(row['worst_accuracy'])}")
        table.add_row(
            _entrant(row["name"], short_defense(row["defense"])),
            Text(interval(row["accuracy"], row["accuracy_low"], row["accuracy_high"])),
            *([str(row["n_conditions"])] if unlike else []),
            Text(percent(row["mean_degraded_accuracy"]), _colour(row["mean_degraded_accuracy"], row["accuracy"])),
            Text(percent(row["mean_label_change"])),
            worst,
        )
    return table


def _levels(
    degradation: str, leaders: pd.DataFrame, accuracy: pd.DataFrame, change: pd.DataFrame, width: int
) -> list[Table]:
    """Two lines an entrant: architecture beside accuracy, defense beside p_Δ."""
    levels = sorted(accuracy["level"].unique())
    defenses = [short_defense(defense) for defense in leaders["defense"]]
    longest = max(len(text) for text in ["defense", *leaders["name"], *defenses])
    names = max(12, min(longest, width - LABEL - 2 * CELL)) + 3
    fitting = max(1, (width - names - LABEL) // CELL)
    values = {"acc.": _by_key(accuracy), "p_Δ": _by_key(change)}
    tables = []
    for start in range(0, len(levels), fitting):
        some = levels[start : start + fitting]
        table = table_of(Text(f"{plain(degradation)}{UNITS.get(degradation, ('', ''))[1]}"))
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
"""(model, defense, level) → (value, low, high)."""


def _by_key(rows: pd.DataFrame) -> Values:
    return {
        (row["model"], row["defense"], row["level"]): (row["value"], row["low"], row["high"])
        for row in rows.to_dict("records")
    }


def _cell(values: dict[str, Values], key: tuple[str, str, float], undegraded: float) -> Text:
    lines = []
    for name, known in values.items():
        found = known.get(key)
        style = _colour(found[0], undegraded) if found and name == "acc." else ""
        lines.append(Text(interval(*found) if found else "–", style))
    return Text("\n").join(lines)


def _entrant(name: str, defense: str) -> Text:
    return Text(f"{name}\n{'' if defense == 'none' else defense}")


def table_of(title: Text, caption: str | None = None) -> Table:
    """An empty table in the style of all."""
    return Table(title=title, caption=caption, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD)


def _names(leaders: pd.DataFrame) -> list[str]:
    """The architecture, or the model where several models share one."""
    models = leaders.groupby("architecture")["model"].nunique().to_dict()
    return [
        plain(architecture if models.get(architecture) == 1 else model)
        for architecture, model in zip(leaders["architecture"], leaders["model"], strict=True)
    ]


def _colour(accuracy: float, undegraded: float) -> str:
    """By the share that is left of the undegraded accuracy; only an addition to the number."""
    if pd.isna(accuracy) or not undegraded > 0:
        return ""
    left = accuracy / undegraded
    return "green" if left >= 0.8 else "yellow" if left >= 0.5 else "red"


def percent(value: float) -> str:
    """A share in per cent with one decimal."""
    return "–" if pd.isna(value) else f"{100 * value:.1f}"


def interval(value: float, low: float, high: float) -> str:
    """`61.2 [55–67]`."""
    return "–" if pd.isna(value) else f"{100 * value:.1f} [{100 * low:.0f}–{100 * high:.0f}]"


def wrapped(name: str, width: int) -> Iterator[str]:
    """A degradation's name in lines of at most `width` characters: broken before a sum's sign and after a prefix's
    colon, elsewhere only where a line is full."""
    for part in re.split(r" (?=\+ )|(?<=:)(?=\w)", name):
        line = ""
        for word in re.findall(r"[^_,(=]+[_,(=]*|[_,(=]+", part):
            while len(line) + len(word) > width:
                room = 0 if line else width
                yield (line + word[:room]).strip()
                line, word = "", word[room:]
            line += word
        if line.strip():
            yield line.strip()


def short_defense(defense: str) -> str:
    """`gaussian_filter(size=3, sigma=0.5)` → `gaussian_filter(3, 0.5)`."""
    if " + " in defense:
        return " + ".join(map(short_defense, defense.split(" + ")))
    name, bracket, inner = defense.partition("(")
    if not bracket:
        return plain(defense)
    values = [part.partition("=")[2] or part for part in inner.removesuffix(")").split(", ")]
    return plain(f"{name}({', '.join(values)})")
