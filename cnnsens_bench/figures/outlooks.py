"""The table of `python -m cnnsens_bench.predict`: what is expected of each photograph."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cnnsens_bench.figures.summary import percent, table_of
from cnnsens_bench.utils.formatting import plain

SYMBOLS = {"gaussian_rgb": "σ={}", "pepper_pixel": "p={}", "translation": "shift={}"}
"""How a condition is written on the command line."""

NUMBER, SPACE, NAMES = 5, 3, 28
"""Characters of `100.0`, between two columns, and at least of a photograph and its class together."""

Record = Mapping[str, Any]
"""Of one photograph, as `predict --json` prints it."""


def print_outlooks(console: Console, records: Sequence[Record], title: str) -> None:
    """One row a photograph, two columns a condition; or one line a condition, where the console is too narrow for that.
    Then the photograph that is most likely to change its label. `records` without errors; all of the same conditions.
    """
    if not records:
        return
    conditions = [condition_text(p) for p in records[0]["predictions"]]
    columns = [NUMBER, *(n for text in conditions for n in (max(NUMBER, len(text)), NUMBER))]
    wide = NAMES + sum(columns) + SPACE * (len(columns) + 2) <= console.width
    console.print((_wide if wide else _long)(records, conditions, title))
    worst = max(records, key=_fragility)
    at = max(worst["predictions"], key=lambda p: p["label_change"])
    console.print(
        f"most fragile: {plain(worst['file'])}, whose label changes with a probability of "
        f"{percent(at['label_change'])} % at {condition_text(at)}",
        markup=False,
        soft_wrap=True,
    )


def _fragility(record: Record) -> tuple[float, float]:
    """The margin decides where no change is expected of several."""
    return max(p["label_change"] for p in record["predictions"]), -record["margin"]


def condition_text(prediction: Record) -> str:
    """`σ=4`, `p=0.01`, `shift=0.5`."""
    return SYMBOLS[prediction["degradation"]].format(f"{prediction['level']:g}")


def _wide(records: Sequence[Record], conditions: Sequence[str], title: str) -> Table:
    table = _started(title)
    for condition in conditions:
        table.add_column(f"{condition}\n±", justify="right", no_wrap=True)
        table.add_column("\np_Δ", justify="right", no_wrap=True)
    for record in records:
        numbers = [Text(n) for p in record["predictions"] for n in _numbers(p)]
        table.add_row(*_named(record), *numbers)
    return table


def _long(records: Sequence[Record], conditions: Sequence[str], title: str) -> Table:
    table = _started(title)
    table.add_column("condition", no_wrap=True)
    for heading in ("±", "p_Δ"):
        table.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        spreads, changes = zip(*(_numbers(p) for p in record["predictions"]), strict=True)
        table.add_row(*_named(record), *(Text("\n".join(lines)) for lines in (conditions, spreads, changes)))
    return table


def _started(title: str) -> Table:
    table = table_of(
        Text(plain(title)),
        "in %: confidence, its predicted standard deviation ±, and p_Δ, how likely the label changes",
    )
    table.add_column("photograph", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("conf.", justify="right", no_wrap=True)
    return table


def _named(record: Record) -> tuple[Text, Text, Text]:
    return Text(plain(record["file"])), Text(plain(record["class"])), Text(percent(record["confidence"]))


def _numbers(prediction: Record) -> tuple[str, str]:
    # No probability deviates further, but a gradient does not know that.
    spread = prediction["probability_std"]
    return percent(spread) if spread <= 0.5 else ">50", percent(prediction["label_change"])
