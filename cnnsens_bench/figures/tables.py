"""Tables as files: CSV for programs, LaTeX for papers, and pictures."""

import unicodedata
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

ROW, CHARACTER = 0.3, 0.085
"""The height of a row and the width of a character in inches."""
LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"}, **{character: f"${character}$" for character in "<>|"},
    "Δ": r"$\Delta$", "σ": r"$\sigma$", "ρ": r"$\rho$", "±": r"$\pm$", "×": r"$\times$", "−": "$-$", "°": r"$^\circ$",
    "–": "--", "—": "---", "…": r"\ldots{}", "\n": " ", "\u00a0": "~",
}  # fmt: skip
"""How characters are written that LaTeX reserves, or does not know without a package."""


def write_table(table: pd.DataFrame, out: Path, title: str, note: str = "") -> Figure | None:
    """Write a table to a file.

    Parameters
    ----------
    table
        The table, whose cells are text.
    out
        The file. Its ending decides what is written: `.csv`, `.tex` (a `table` environment to `\\input`), or an image
        format of matplotlib.
    title
        The caption of LaTeX, and the text above a picture.
    note
        The text below a picture.

    Returns
    -------
    matplotlib.figure.Figure or None
        The picture, if the file is one.

    Raises
    ------
    ValueError
        If matplotlib does not know the ending.
    """
    if out.suffix == ".csv":
        table.to_csv(out, index=False)
    elif out.suffix == ".tex":
        out.write_text(latex_table(table, title), encoding="ascii")
    else:
        return _draw(table, out, title, note)
    return None


def latex_table(table: pd.DataFrame, caption: str) -> str:
    """Return a table in LaTeX that needs no package: all characters are ASCII, all commands LaTeX's own.

    Examples
    --------
    >>> print(latex_table(pd.DataFrame({"model": ["vgg_19"], "p_Δ": ["9.9 ± 1 %"]}), "Label change"))
    \\begin{table}
    \\caption{Label change}
    \\begin{tabular}{ll}
    \\hline
    model & $p_\\Delta$ \\\\
    \\hline
    vgg\\_19 & 9.9 $\\pm$ 1 \\% \\\\
    \\hline
    \\end{tabular}
    \\end{table}
    <BLANKLINE>
    """
    cells = (table.columns, *table.itertuples(index=False, name=None))
    heading, *rows = [" & ".join(map(latex_text, row)) + r" \\" for row in cells]
    lines = [r"\begin{table}", rf"\caption{{{latex_text(caption)}}}", rf"\begin{{tabular}}{{{'l' * table.shape[1]}}}"]
    lines += [r"\hline", heading, r"\hline", *rows, r"\hline", r"\end{tabular}", r"\end{table}", ""]
    return "\n".join(lines)


def latex_text(text: object) -> str:
    """Return text as LaTeX shows it. A character that LaTeX lacks becomes its base letter, or its code point.

    Examples
    --------
    >>> print(latex_text("p_Δ: 46.4 [41–52], 50 %, é"))
    $p_\\Delta$: 46.4 [41--52], 50 \\%, e
    """
    parts = [
        "".join(LATEX.get(c) or (c if c.isascii() and c.isprintable() else _ascii(c)) for c in part)
        for part in str(text).split("p_Δ")
    ]
    # At the beginning of a row, LaTeX would read a bracket or an asterisk as an argument of the row before.
    return ("{}" if str(text)[:1] in ("[", "*") else "") + r"$p_\Delta$".join(parts)


def _ascii(character: str) -> str:
    """Return the ASCII letters of a character without its accents, or its code point where it has none."""
    letters = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return letters if letters.isalnum() else f"U+{ord(character):04X}"


def _draw(table: pd.DataFrame, out: Path, title: str, note: str) -> Figure:
    """Draw a table, its title above and a note below it."""
    columns = [str(column).replace(" p_Δ", "\np_Δ").replace(" acc.", "\nacc.") for column in table.columns]
    rows = [columns, *table.astype(str).to_numpy().tolist()]
    widths = [2 + max(len(line) for text in column for line in text.split("\n")) for column in zip(*rows, strict=True)]
    heights = [1 + max(text.count("\n") for text in row) for row in rows]
    size = (max(5.0, CHARACTER * sum(widths)), ROW * sum(heights) + 0.75)
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    axis.set_axis_off()
    shares = [width / sum(widths) for width in widths]
    options: dict[str, Any] = {"cellLoc": "left", "colLoc": "left", "edges": "horizontal"}
    drawn = axis.table(rows[1:], colLabels=columns, colWidths=shares, bbox=Bbox.from_bounds(0, 0, 1, 1), **options)
    drawn.auto_set_font_size(False)
    for (row, _), cell in drawn.get_celld().items():
        cell.set_fontsize(8.5)
        cell.get_text().set_parse_math(False)
        cell.set_height(heights[row] / sum(heights))
        cell.set_edgecolor("0.75")
        if row == 0:
            cell.get_text().set_fontweight("bold")
    axis.set_title(title, fontsize=10, loc="left", parse_math=False)
    if note:
        figure.supxlabel(note, fontsize=7.5, color="0.35", ha="left", x=0.01, parse_math=False)
    figure.savefig(out, dpi=160)
    return figure
