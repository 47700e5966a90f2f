"""Figures that compare architectures: two noises at once (section 5 of the paper), and depth (section 6)."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from cnnsens_bench.figures import published
from cnnsens_bench.figures.curves import draw_legend, finish_panel, model_styles, save_figure
from cnnsens_bench.figures.evaluated import evaluated_caption
from cnnsens_bench.figures.paper import CHANGES, most_measured, undefended_accuracy
from cnnsens_bench.figures.style import Style
from cnnsens_bench.store import Store
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import plain

PARAMETERS = "SELECT model, dataset, num_parameters FROM models WHERE defense = 'none'"
ALONE = {
    "undegraded": published.UNDEGRADED,
    "intensity σ=4": published.INTENSITY,
    "pepper p=0.02": published.PEPPER,
    "both": (published.COMBINATION, 0.0),
}
"""The conditions of the figure `combination`, by their labels."""


def combination(store: Store, out: Path, dataset: str | None = None, models: Sequence[str] = ()) -> Figure:
    """Draw the accuracy under intensity noise of σ = 4, pepper of p = 0.02, and both at once, for each architecture.

    Stars are the numbers of the paper.

    Parameters
    ----------
    store
        The results.
    out
        The image file to write.
    dataset
        The data set. The default is the paper's, or the only one.
    models
        The models. By default all that were evaluated under both noises at once.

    Raises
    ------
    UserError
        If the store has nothing of the kind.
    """
    table = most_measured(store, undefended_accuracy(store, dataset, models), (published.COMBINATION,), bool(models))
    style_of = model_styles(store, table)
    figure = Figure(figsize=(7.2, 3.9), layout="constrained")
    axis = figure.subplots()
    for i, (model, style) in enumerate(style_of.items()):
        own = table[table["model"] == model].set_index(["degradation", "level"])
        _draw_conditions(axis, own, plain(model), style, 0.12 * (i - (len(style_of) - 1) / 2))
    paper = 100 * (published.COMBINED + np.array([published.INTENSITY_LOSS, published.PEPPER_LOSS, 0]))
    label = "paper (network not named; alone: from its differences)"
    axis.plot([1.36, 2.36, 3.36], paper, ls="none", marker="*", ms=11, mfc="none", mec="0.3", label=label)
    axis.set_xticks(range(len(ALONE)), list(ALONE))
    axis.set(ylabel="accuracy in %", ylim=(-2, 102), xlim=(-0.5, len(ALONE) - 0.5))
    finish_panel(axis, grid="y")
    draw_legend(figure, axis.get_legend_handles_labels(), 2)
    title = f"{plain(table['dataset'].iloc[0])}: two noises at once (bars: 95 % intervals)"
    return save_figure(figure, out, title, fontsize=10.5, caption=evaluated_caption(store, table))


def _draw_conditions(axis: Axes, rows: pd.DataFrame, label: str, style: Style, shift: float) -> None:
    """Draw the accuracy and its interval of one model under each condition, beside the other models' by `shift`."""
    found = 100 * rows.reindex(list(ALONE.values()))[["value", "low", "high"]]
    bars = [found["value"] - found["low"], found["high"] - found["value"]]
    options: dict[str, Any] = {"color": style.colour, "marker": style.marker, "ls": "none", "ms": 6, "capsize": 2}
    axis.errorbar(np.arange(len(ALONE)) + shift, found["value"], bars, label=label, **options)


def depth(store: Store, out: Path, dataset: str | None = None, models: Sequence[str] = ()) -> Figure:
    """Draw accuracy and p_Δ over the number of parameters; architectures that differ in a number alone are joined.

    Accuracies are undegraded (open marks) and means over degradations (filled marks). Means are over the conditions
    that all models were evaluated under.

    Parameters
    ----------
    store
        The results.
    out
        The image file to write.
    dataset
        The data set. The default is the paper's, or the only one.
    models
        The models. By default all.

    Raises
    ------
    UserError
        If the store has nothing of the kind.
    """
    table = undefended_accuracy(store, dataset, models)
    table = table.merge(store.query(PARAMETERS), on=["model", "dataset"]).dropna(subset=["num_parameters"])
    changes = store.query(CHANGES, ["none"]).merge(table[["protocol", "dataset", "model"]].drop_duplicates())
    common = _common_conditions(table)
    if common.empty:
        raise UserError(f"{store.path} has no degradation that all of its models on this data set were measured under")
    points = _points(table, changes, common)
    if points.empty:
        raise UserError(f"{store.path} has no model with undegraded predictions and a number of parameters here")
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_points(left, right, points, model_styles(store, table))
    for axis, label in ((left, "accuracy in % (open: undegraded)"), (right, "mean p_Δ in %")):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set(xlabel="parameters", ylabel=label)
        axis.margins(x=0.15)
        axis.set_ylim(-2, 1.1 * max(float(np.max(line.get_ydata())) for line in axis.get_lines()))
        finish_panel(axis)
    draw_legend(figure, left.get_legend_handles_labels(), 4)
    names = ", ".join(sorted(common["degradation"].unique()))
    title = f"{plain(table['dataset'].iloc[0])}: robustness over size; means over {plain(names)}"
    return save_figure(figure, out, title, per_inch=10.5, caption=evaluated_caption(store, table))


def _points(table: pd.DataFrame, changes: pd.DataFrame, common: pd.DataFrame) -> pd.DataFrame:
    """Return the number of parameters, the accuracies, the mean p_Δ and the family of each model."""
    points = table.groupby("model").agg(parameters=("num_parameters", "first"), architecture=("architecture", "first"))
    points["undegraded"] = table[table["degradation"] == "none"].set_index("model")["value"]
    points["degraded"], points["change"] = _mean_by_model(table, common), _mean_by_model(changes, common)
    points = points.dropna(subset=["undegraded", "degraded"]).sort_values(["parameters", "architecture"])
    return points.assign(family=[family(str(name)) for name in points["architecture"]])


def _draw_points(left: Axes, right: Axes, points: pd.DataFrame, style_of: Mapping[str, Style]) -> None:
    """Draw the accuracies at the left and the mean p_Δ at the right, and join the models of a family."""
    for _, own in points.groupby("family"):
        for axis, column, dash in ((left, "degraded", "-"), (left, "undegraded", (0, (2, 3))), (right, "change", "-")):
            axis.plot(own["parameters"], 100 * own[column], color="0.6", lw=1.2, ls=dash, zorder=1)
    for model, row in points.iterrows():
        style = style_of[str(model)]
        options: dict[str, Any] = {"color": style.colour, "marker": style.marker, "ls": "none", "ms": 7}
        left.plot(row["parameters"], 100 * row["degraded"], label=plain(str(row["architecture"])), **options)
        left.plot(row["parameters"], 100 * row["undegraded"], mfc="none", **options)
        right.plot(row["parameters"], 100 * row["change"], **options)


def family(architecture: str) -> str:
    """Return the name of an architecture without the tag of its weights and without its number.

    Examples
    --------
    >>> family("resnet50.a1_in1k"), family("vgg19")
    ('resnet', 'vgg')
    """
    untagged = architecture.partition(".")[0]
    return re.sub(r"\d+(_\d+x\d+d|[a-z])?$", "", untagged).rstrip("_-") or untagged


def _common_conditions(table: pd.DataFrame) -> pd.DataFrame:
    """Return the degradations and levels that every model was evaluated under."""
    degraded = table[table["degradation"] != "none"]
    counts = degraded.groupby(["degradation", "level"])["model"].nunique().reset_index(name="models")
    return counts[counts["models"] == table["model"].nunique()][["degradation", "level"]]


def _mean_by_model(table: pd.DataFrame, common: pd.DataFrame) -> pd.Series:
    """Return each model's mean over the levels of a degradation, and then over degradations."""
    rows = table.merge(common)
    return rows.groupby(["model", "degradation"])["value"].mean().groupby("model").mean()
