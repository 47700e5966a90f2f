"""The tables that end a run: who suffers how much, in a form that a person reads."""

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cnnsens_bench.store import Store

LEADERS = "SELECT * FROM leaderboard WHERE protocol = ? AND dataset = ?"
ACCURACY = "SELECT * FROM accuracy WHERE protocol = ? AND dataset = ? AND degradation <> 'none'"
CHANGE = "SELECT * FROM label_change WHERE protocol = ? AND dataset = ?"
KEY = ["model", "defense"]


def print_summary(console: Console, store: Store, protocol: str, dataset: str) -> None:
    """Print what `summary_tables` gives."""
    for table in summary_tables(store, protocol, dataset):
        console.print()
        console.print(table)


def summary_tables(store: Store, protocol: str, dataset: str) -> list[Table]:
    """A ranking, then one table per degradation: accuracy and p_Δ per level, each with its 95 % interval.

    All in per cent; sorted by mean degraded accuracy, best first.
    """
    which = [protocol, dataset]
    leaders = store.query(LEADERS, which).sort_values(
        ["mean_degraded_accuracy", "accuracy", "model", "defense"], ascending=[False, False, True, True]
    )
    if leaders.empty:
        return []
    tables = [_ranking(leaders, dataset)]
    accuracy, change = store.query(ACCURACY, which), store.query(CHANGE, which)
    for degradation in sorted(accuracy["degradation"].unique()):
        tables.append(
            _levels(
                degradation,
                leaders[KEY],
                accuracy[accuracy["degradation"] == degradation],
                change[change["degradation"] == degradation],
            )
        )
    return tables


def _ranking(leaders: pd.DataFrame, dataset: str) -> Table:
    table = Table(
        title=f"{dataset}: accuracy and label change p_Δ in %, with 95 % intervals",
        caption=f"{leaders['n_images'].max()} test images; means over levels, then over degradations",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("architecture")
    table.add_column("defense")
    table.add_column("undegraded", justify="right")
    table.add_column("mean degraded", justify="right")
    table.add_column("mean p_Δ", justify="right")
    table.add_column("worst condition", justify="right")
    for row in leaders.itertuples():
        worst = (
            f"{row.worst_degradation} {level_text(row.worst_level)}: {percent(row.worst_accuracy)}".replace(" :", ":")
            if isinstance(row.worst_degradation, str)
            else "–"
        )
        table.add_row(
            Text(str(row.architecture)),
            Text(_short(row.defense)),
            interval(row.accuracy, row.accuracy_low, row.accuracy_high),
            percent(row.mean_degraded_accuracy),
            percent(row.mean_label_change),
            Text(worst),
        )
    return table


def _levels(degradation: str, order: pd.DataFrame, accuracy: pd.DataFrame, change: pd.DataFrame) -> Table:
    levels = sorted(accuracy["level"].unique())
    table = Table(title=Text(f"{degradation}, by level"), title_justify="left")
    table.add_column("architecture")
    table.add_column("defense")
    table.add_column("")
    for level in levels:
        table.add_column(level_text(level) or "mirrored", justify="right")
    for key in order.itertuples(index=False):
        for name, source in (("acc.", accuracy), ("p_Δ", change)):
            rows = source[(source["model"] == key.model) & (source["defense"] == key.defense)].set_index("level")
            cells = [
                interval(rows.value[level], rows.low[level], rows.high[level]) if level in rows.index else "–"
                for level in levels
            ]
            first = name == "acc."
            table.add_row(
                Text(key.model.partition("/")[2] if first else ""),
                Text(_short(key.defense) if first else ""),
                name,
                *cells,
            )
    return table


def level_text(level: float) -> str:
    """A level as a column heading; none for what has no level."""
    return f"{level:g}" if level else ""


def percent(value: float) -> str:
    """A share in per cent with one decimal."""
    return "–" if pd.isna(value) else f"{100 * value:.1f}"


def interval(value: float, low: float, high: float) -> str:
    """`61.2 [55–67]`."""
    return "–" if pd.isna(value) else f"{100 * value:.1f} [{100 * low:.0f}–{100 * high:.0f}]"


def _short(defense: str) -> str:
    """`gaussian_filter(size=3, sigma=0.5)` → `gaussian_filter(3, 0.5)`."""
    name, bracket, inner = defense.partition("(")
    if not bracket:
        return name
    return f"{name}({', '.join(part.partition('=')[2] for part in inner.rstrip(')').split(', '))})"
