"""The table of predictions for photographs that `python -m cnnsens_bench.predict` prints."""

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
"""Widths in characters: of `100.0`, between two columns, and of a photograph and its class together at least."""

Record = Mapping[str, Any]
"""What `predict --json` prints of one photograph, or of one of its predictions."""


def print_photo_table(console: Console, records: Sequence[Record], title: str) -> None:
    """Print the predictions for photographs, and which photograph is most likely to change its label.

    A condition has two columns where the console is wide enough, and otherwise a line.

    Parameters
    ----------
    console
        Where the table is printed.
    records
        The records of the photographs, without errors, all of the same conditions.
    title
        The title of the table.
    """
    if not records:
        return
    conditions = [condition_text(prediction) for prediction in records[0]["predictions"]]
    columns = [NUMBER, *(n for text in conditions for n in (max(NUMBER, len(text)), NUMBER))]
    wide = NAMES + sum(columns) + SPACE * (len(columns) + 2) <= console.width
    console.print((_wide_table if wide else _long_table)(records, conditions, title))
    worst = max(records, key=_fragility)
    at = max(worst["predictions"], key=lambda prediction: prediction["label_change"])
    chance = f"a probability of {percent(at['label_change'])} % at {condition_text(at)}"
    sentence = f"most fragile: {plain(worst['file'])}, whose label changes with {chance}"
    console.print(sentence, markup=False, soft_wrap=True)


def _fragility(record: Record) -> tuple[float, float]:
    """Return what photographs are ranked by: the highest predicted label change, and then the margin."""
    return max(prediction["label_change"] for prediction in record["predictions"]), -record["margin"]


def condition_text(prediction: Record) -> str:
    """Return a condition as it is written on the command line.

    Examples
    --------
    >>> condition_text({"degradation": "gaussian_rgb", "level": 4.0})
    'σ=4'
    """
    return SYMBOLS[prediction["degradation"]].format(f"{prediction['level']:g}")


def _wide_table(records: Sequence[Record], conditions: Sequence[str], title: str) -> Table:
    table = _empty_table(title)
    for condition in conditions:
        table.add_column(f"{condition}\n±", justify="right", no_wrap=True)
        table.add_column("\np_Δ", justify="right", no_wrap=True)
    for record in records:
        numbers = [Text(text) for prediction in record["predictions"] for text in _numbers(prediction)]
        table.add_row(*_names(record), *numbers)
    return table


def _long_table(records: Sequence[Record], conditions: Sequence[str], title: str) -> Table:
    table = _empty_table(title)
    table.add_column("condition", no_wrap=True)
    for heading in ("±", "p_Δ"):
        table.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        deviations, changes = zip(*(_numbers(prediction) for prediction in record["predictions"]), strict=True)
        table.add_row(*_names(record), *(Text("\n".join(lines)) for lines in (conditions, deviations, changes)))
    return table


def _empty_table(title: str) -> Table:
    """Return a table with the columns that do not depend on conditions, and no rows."""
    caption = "in %: confidence, its predicted standard deviation ±, and p_Δ, how likely the label changes"
    table = table_of(Text(plain(title)), caption)
    table.add_column("photograph", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("conf.", justify="right", no_wrap=True)
    return table


def _names(record: Record) -> tuple[Text, Text, Text]:
    """Return the cells of the photograph, its class and its confidence."""
    return Text(plain(record["file"])), Text(plain(record["class"])), Text(percent(record["confidence"]))


def _numbers(prediction: Record) -> tuple[str, str]:
    """Return the predicted standard deviation and label change in per cent."""
    # A probability cannot deviate by more than 0.5, but a prediction from a gradient can be larger.
    deviation = prediction["probability_std"]
    return percent(deviation) if deviation <= 0.5 else ">50", percent(prediction["label_change"])
