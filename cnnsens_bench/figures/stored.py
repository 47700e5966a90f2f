"""The accuracy on pre-made pictures beside that on corruptions made on the fly, with one panel for each corruption."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cnnsens_bench.figures.curves import (
    check_dataset,
    draw_legend,
    finish_panel,
    model_styles,
    rows_of_dataset,
    save_figure,
)
from cnnsens_bench.figures.evaluated import evaluated_caption
from cnnsens_bench.figures.style import Style
from cnnsens_bench.store import Store
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import plain

STORED, MADE = "stored:", "common:"
ACCURACY = "SELECT * FROM accuracy WHERE defense = 'none' ORDER BY level"
COLUMNS = 5
"""How many panels lie beside each other."""
SEVERITIES = [1, 2, 3, 4, 5]
DASHES: Mapping[str, Any] = {STORED: "-", MADE: (0, (4, 2)), "none": (0, (1, 2))}


def stored_figure(store: Store, out: Path, dataset: str | None = None) -> Figure:
    """Draw the accuracy of each model over severity: solid on pre-made pictures, dashed on those made on the fly.

    The two differ by what storing the pictures, another crop, other draws and other code change.

    Parameters
    ----------
    store
        The results.
    out
        The image file to write.
    dataset
        The data set; None where the store has pre-made pictures of one only.

    Raises
    ------
    UserError
        If the store has no results on pre-made pictures, or those of several data sets or protocols.
    """
    check_dataset(store, dataset)
    table = rows_of_dataset(store.query(ACCURACY), dataset)
    plainly = table["degradation"].str.fullmatch(rf"{STORED}\w+")
    kinds = table.loc[plainly, ["protocol", "dataset"]].drop_duplicates()
    if kinds.empty:
        raise UserError(
            f"{store.path} has no results on pre-made pictures: a run with degradations=[{STORED}*,{MADE}*] and "
            "stored_root=<folder> makes them"
        )
    if len(kinds) > 1:
        raise UserError(
            f"{store.path} has pre-made pictures of several protocols or data sets: --dataset names one, and runs of "
            "several protocols need outputs of their own"
        )
    table = table.merge(kinds)
    names = sorted(table.loc[table["degradation"].str.fullmatch(rf"{STORED}\w+"), "degradation"].unique())
    corruptions = [name.removeprefix(STORED) for name in names]
    shown = table[table["degradation"].isin([*names, *(MADE + name for name in corruptions), "none"])]
    style_of = model_styles(store, shown)
    columns = min(COLUMNS, len(corruptions))
    rows = -(-len(corruptions) // columns)
    size = max(7.0, 2.5 * columns), 2.1 * rows + 1.2 + 0.12 * len(style_of)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axis in panels.flat[len(corruptions) :]:
        axis.set_axis_off()
    for axis, corruption in zip(panels.flat, corruptions, strict=False):
        _draw_corruption(axis, shown, corruption, style_of)
    for axis in panels[:, 0]:
        axis.set_ylabel("accuracy in %")
    lowest = [panels[max(i for i in range(rows) if i * columns + j < len(corruptions)), j] for j in range(columns)]
    for axis in lowest:
        axis.set_xlabel("severity")
        axis.tick_params(labelbottom=True)
    draw_legend(figure, _legend(style_of, bool(shown["degradation"].str.startswith(MADE).any())), ncols=4)
    title = f"{plain(kinds['dataset'].iloc[0])}, {shown['n_images'].max()} images: pre-made pictures beside corruptions"
    title += " made on the fly (95\u00a0% intervals)"
    return save_figure(figure, out, title, 11, caption=evaluated_caption(store, kinds))


def _draw_corruption(axis: Axes, table: pd.DataFrame, corruption: str, style_of: Mapping[str, Style]) -> None:
    """Draw the curves of one corruption, and a dotted line at each model's undegraded accuracy."""
    for model, style in style_of.items():
        own = table[table["model"] == model]
        for prefix in (STORED, MADE):
            rows = own[own["degradation"] == prefix + corruption]
            look: dict[str, Any] = {"color": style.colour, "lw": 1.6, "ls": DASHES[prefix], "marker": style.marker}
            axis.plot(rows["level"], 100 * rows["value"], ms=4, mfc=style.colour if prefix == STORED else "w", **look)
            low, high = 100 * rows["low"], 100 * rows["high"]
            axis.fill_between(rows["level"], low, high, color=style.colour, alpha=0.3 / (3 + len(style_of)), lw=0)
        for value in own.loc[own["degradation"] == "none", "value"]:
            axis.axhline(100 * value, ls=DASHES["none"], color=style.colour, lw=0.9)
    axis.set(xticks=SEVERITIES, xlim=(0.8, 5.2), ylim=(-2, 102))
    axis.set_title(plain(corruption), fontsize=10, parse_math=False)
    finish_panel(axis)


def _legend(style_of: Mapping[str, Style], made: bool) -> tuple[list[Any], list[str]]:
    """Return the handles and labels of the models and of the kinds of lines; `made` is whether some are dashed."""
    models = [Line2D([], [], color=style.colour, marker=style.marker, ms=4.5) for style in style_of.values()]
    kinds = {"stored": STORED, **({"made on the fly": MADE} if made else {}), "undegraded": "none"}
    lines = [Line2D([], [], color="0.3", ls=DASHES[kind]) for kind in kinds.values()]
    return [*models, *lines], [*map(plain, style_of), *kinds]
