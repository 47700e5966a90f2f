"""A table as a file: for a paper, for a program, or as a picture."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

DATA = (".csv",)
"""Endings of files for programs, in which every row is whole."""
ROW, CHARACTER = 0.3, 0.085
"""Inches that a row and a character take."""


def write_table(table: pd.DataFrame, out: Path, title: str, note: str = "") -> Figure | None:
    """Write `table`, whose cells are text: as CSV or LaTeX where the name ends so, else drawn by matplotlib with its
    `title` above and a `note` below, and returned. Raises `ValueError` for an ending that nobody knows."""
    if out.suffix == ".csv":
        table.to_csv(out, index=False)
    elif out.suffix == ".tex":
        with pd.option_context("styler.format.escape", "latex"):
            style = table.style.hide(axis="index").format_index(escape="latex", axis=1)
            out.write_text(style.to_latex(hrules=True, caption=title), encoding="utf-8")
    else:
        return _draw(table, out, title, note)
    return None


def _draw(table: pd.DataFrame, out: Path, title: str, note: str) -> Figure:
    columns = [str(column).replace(" p_Δ", "\np_Δ").replace(" acc.", "\nacc.") for column in table.columns]
    lengths = [
        max([len(line) for text in (heading, *table[name]) for line in str(text).split("\n")])
        for heading, name in zip(columns, table.columns, strict=True)
    ]
    lines = 1 + max(heading.count("\n") for heading in columns)
    heights = [1 + max(str(text).count("\n") for text in row) for row in table.itertuples(index=False, name=None)]
    width = max(5.0, CHARACTER * (sum(lengths) + 2 * len(lengths)))
    figure = Figure(figsize=(width, ROW * (lines + sum(heights)) + 0.75), layout="constrained")
    axis = figure.subplots()
    axis.set_axis_off()
    drawn = axis.table(
        table.astype(str).to_numpy().tolist(),
        colLabels=columns,
        colWidths=[(length + 2) / (sum(lengths) + 2 * len(lengths)) for length in lengths],
        cellLoc="left",
        colLoc="left",
        bbox=Bbox.from_bounds(0, 0, 1, 1),
        edges="horizontal",
    )
    drawn.auto_set_font_size(False)
    total = lines + sum(heights)
    for (row, _), cell in drawn.get_celld().items():
        cell.set_fontsize(8.5)
        cell.get_text().set_parse_math(False)
        cell.set_height((lines if row == 0 else heights[row - 1]) / total)
        cell.set_edgecolor("0.75")
        if row == 0:
            cell.get_text().set_fontweight("bold")
    axis.set_title(title, fontsize=10, loc="left", parse_math=False)
    if note:
        figure.supxlabel(note, fontsize=7.5, color="0.35", ha="left", x=0.01, parse_math=False)
    figure.savefig(out, dpi=160)
    return figure
