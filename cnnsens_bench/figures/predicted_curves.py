"""The predicted label change of each network over the levels of degradations, beside the measured one."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnsens_bench.figures.curves import (
    check_one_protocol,
    draw_legend,
    format_level_axis,
    rows_of_dataset,
    save_figure,
    shared_handles,
)
from cnnsens_bench.figures.evaluated import evaluated_caption
from cnnsens_bench.figures.sensitivity import ORDER, require_scored
from cnnsens_bench.figures.style import styles
from cnnsens_bench.store import Store
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import degradation_text, plain
from cnnsens_bench.utils.registry import near

CURVES = "SELECT * FROM predicted_curve WHERE defense = ? ORDER BY level"
GRADIENT = "gradient"


def predicted_curves(
    store: Store, out: Path, defense: str = "none", dataset: str | None = None, predictor: str = GRADIENT
) -> Figure:
    """Draw the predicted p_Δ of each model over the levels of each degradation, beside the measured one.

    Predictions are dashed and have no band. The legend says how far they are from the measured values on average, over
    all levels and degradations that are measured.

    Parameters
    ----------
    store
        The results.
    out
        The image file to write.
    defense
        The name of the defense.
    dataset
        The data set; None where the store has one only.
    predictor
        The predictor, as the view `predicted_curve` names it; `gradient` needs no degraded pass.

    Raises
    ------
    UserError
        If the store has no scores of that defense, data set and predictor, or several data sets or protocols.
    """
    require_scored(store)
    table = store.query(CURVES, [defense])
    known = sorted(table["dataset"].unique())
    if dataset is None and len(known) > 1:
        raise UserError(f"{store.path} has scores on several data sets: --dataset names one, {' or '.join(known)}")
    table = rows_of_dataset(table, dataset)
    if table.empty:
        raise UserError(
            f"{store.path} has no sensitivity scores for the defense '{defense}'"
            + (f" on '{dataset}': it has {', '.join(known) or 'none'}" if dataset else "")
        )
    check_one_protocol(store, table)
    predictors = sorted(table["predictor"].unique())
    table = table[table["predictor"] == predictor]
    if table.empty:
        raise UserError(f"{store.path} has no scores of the predictor '{predictor}'{near(predictor, predictors)}")
    names = sorted(table["degradation"].unique(), key=lambda name: (name not in ORDER, name))
    figure = Figure(figsize=(max(6.2, 3.4 * len(names)), 3.6 + 0.12 * table["model"].nunique()), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axis, degradation in zip(axes, names, strict=True):
        rows = table[table["degradation"] == degradation]
        _draw_panel(axis, rows, table)
        format_level_axis(axis, degradation, sorted(rows["level"].unique()))
        axis.set_title(degradation_text(degradation), parse_math=False)
    axes[0].set_ylabel("p_Δ in %")
    draw_legend(figure, shared_handles(axes), ncols=2)
    title = f"{plain(table['dataset'].iloc[0])}: label change predicted by {plain(predictor)} (dashed), and measured"
    caption = evaluated_caption(store, table)
    return save_figure(figure, out, f"{title} (bands: 95\u00a0% intervals)", 11, caption=caption)


def _draw_panel(axis: Axes, rows: pd.DataFrame, every: pd.DataFrame) -> None:
    """Draw the curves of one degradation; `every` has the rows of all, which colours and the legend are made from."""
    for model, style in styles(sorted(every["model"].unique())).items():
        own = rows[rows["model"] == model]
        error = 100 * np.abs(every.loc[every["model"] == model, "error"]).mean()
        label = f"{plain(model)}: " + ("not measured" if np.isnan(error) else f"off by {error:.1f} points on average")
        axis.plot(own["level"], 100 * own["value"], color=style.colour, ls=(0, (4, 2)), lw=1.3, label=label)
        seen = own.dropna(subset=["measured"])
        axis.plot(seen["level"], 100 * seen["measured"], color=style.colour, marker=style.marker, ms=4.5, lw=1.6)
        low, high = 100 * seen["measured_low"], 100 * seen["measured_high"]
        axis.fill_between(seen["level"], low, high, color=style.colour, alpha=0.12, lw=0)
