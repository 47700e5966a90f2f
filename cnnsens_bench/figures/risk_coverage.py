"""Risk–coverage curves: the error rate of one network where it refuses its least certain predictions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cnnsens_bench.figures.curves import TITLE, draw_legend, finish_panel, save_figure
from cnnsens_bench.figures.evaluated import evaluated_caption
from cnnsens_bench.figures.selective import CONFIDENCE, choose_entrants, entrant_curves
from cnnsens_bench.figures.summary import short_defense, wrapped
from cnnsens_bench.measures.failure_points import is_falling
from cnnsens_bench.store import Store
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import degradation_text, level_text, plain

GRADIENT = "gradient"
"""The predictor whose expected label change is the second score by default, where the store has it."""
MOST_LEVELS = 4
"""How many levels of a degradation have a curve."""
COLUMNS = 4
"""How many panels lie beside each other."""
UNDEGRADED: Mapping[str, Any] = {"color": "0.45", "lw": 1.2, "ls": (0, (1, 1.5))}


def risk_coverage_figure(
    store: Store,
    out: Path,
    model: str | None = None,
    defense: str | None = None,
    dataset: str | None = None,
    protocol: str | None = None,
    score: str | None = None,
) -> Figure:
    """Draw the error rate among the most certain predictions over the share that is kept, a panel a degradation.

    Solid curves are by confidence, and dashed ones by another score.

    Parameters
    ----------
    store
        The results.
    out
        The image file to write.
    model, defense, dataset, protocol
        The entrant. None where there is one only; of several defenses, `none`.
    score
        The other score, as in `Results.risk_coverage`. None is the predictor `gradient`, where the store has it.

    Raises
    ------
    UserError
        If not exactly one entrant fits, it has no degraded predictions, or not the score.
    """
    entrants = choose_entrants(store, protocol=protocol, dataset=dataset, model=model, defense=defense)
    if len(entrants) > 1 and defense is None:
        entrants = [entrant for entrant in entrants if entrant.defense == "none"] or entrants
    if len(entrants) > 1:
        known = "; ".join(
            f"model {e.model}, defense {e.defense}, dataset {e.dataset}, protocol {e.protocol}" for e in entrants
        )
        raise UserError(f"{store.path} has {len(entrants)} entrants that fit, choose one: {known}")
    [entrant] = entrants
    table = entrant_curves(store, entrant)
    scores = sorted(table["score"].unique())
    if score is not None and score not in scores:
        raise UserError(f"{store.path} has no score '{score}' of {entrant.model}: it has {', '.join(scores)}")
    other = score or (GRADIENT if GRADIENT in scores else CONFIDENCE)
    shown = sorted(table.loc[table["degradation"] != "none", "degradation"].unique())
    if not shown:
        raise UserError(
            f"{store.path} has no degraded predictions of {entrant.model}: a run with degradations makes them"
        )
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(max(6.4, 2.9 * columns), 2.7 * rows + 1.1), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axis in panels.flat[len(shown) :]:
        axis.set_axis_off()
    for axis, degradation in zip(panels.flat, shown, strict=False):
        _draw_degradation(axis, table, degradation, other)
        axis.set_xlabel("kept, in %")
        axis.tick_params(labelbottom=True)
    for axis in panels[:, 0]:
        axis.set_ylabel("errors among these, in %")
    names = [f"by {CONFIDENCE}", *([f"by {plain(other)}"] if other != CONFIDENCE else []), "undegraded, by confidence"]
    lines = [Line2D([], [], color="0.2", ls=style) for style in ("-", "--")[: len(names) - 1]]
    draw_legend(figure, ([*lines, Line2D([], [], **UNDEGRADED)], names), ncols=3)
    suffix = "" if entrant.defense == "none" else f", {short_defense(entrant.defense)}"
    title = f"{plain(entrant.dataset)}, {plain(entrant.model)}{suffix}"
    title += ": errors that are left where the least certain predictions are refused"
    return save_figure(figure, out, title, 11, caption=evaluated_caption(store, table))


def _draw_degradation(axis: Axes, table: pd.DataFrame, degradation: str, other: str) -> None:
    """Draw the curves of a degradation's levels by both scores, and the undegraded curve."""
    own = table[table["degradation"] == degradation]
    levels = sorted(own["level"].unique(), key=lambda level: -level if is_falling(degradation, level) else level)
    chosen = [levels[i] for i in np.unique(np.linspace(0, len(levels) - 1, MOST_LEVELS).round().astype(int))]
    undegraded = table[(table["degradation"] == "none") & (table["score"] == CONFIDENCE)]
    axis.plot(100 * undegraded["coverage"], 100 * undegraded["risk"], **UNDEGRADED)
    for level, shade in zip(chosen, np.linspace(0.85, 0.1, len(chosen)), strict=True):
        for score, style in {other: "--", CONFIDENCE: "-"}.items():
            curve = own[(own["level"] == level) & (own["score"] == score)]
            if len(curve):
                label = level_text(degradation, level) if style == "-" else None
                look: dict[str, Any] = {"color": colormaps["viridis"](shade), "lw": 1.5, "ls": style, "label": label}
                axis.plot(100 * curve["coverage"], 100 * curve["risk"], **look)
    axis.set(xlim=(0, 101), ylim=(-2, 102))
    axis.set_title("\n".join(wrapped(degradation_text(degradation), TITLE)), fontsize=10, parse_math=False)
    handles, labels = axis.get_legend_handles_labels()
    if any(labels):  # a degradation without levels has no text for its level
        draw_legend(axis, (handles, labels), ncols=1, loc="upper left")
    finish_panel(axis)
