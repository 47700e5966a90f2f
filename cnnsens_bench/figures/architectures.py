"""Architectures beside each other: two noises at once (paper, section 5), and depth (section 6)."""

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from cnnsens_bench.figures.curves import model_styles, plain_legend
from cnnsens_bench.figures.paper import CHANGES, undefended, with_most
from cnnsens_bench.figures.published import COMBINATION, COMBINED, INTENSITY, INTENSITY_LOSS, PEPPER, PEPPER_LOSS
from cnnsens_bench.store import Store
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import plain

PARAMETERS = "SELECT model, dataset, num_parameters FROM models WHERE defense = 'none'"
ALONE = {"undegraded": ("none", 0.0), "intensity σ=4": INTENSITY, "pepper p=0.02": PEPPER, "both": (COMBINATION, 0.0)}


def combination(store: Store, out: Path, dataset: str | None = None, models: Sequence[str] = ()) -> Figure:
    """Accuracy under intensity noise of σ = 4, pepper of p = 0.02, and both at once, a mark an architecture; stars: the
    paper's numbers. Raises `UserError`."""
    table = with_most(store, undefended(store, dataset, models), (COMBINATION,), bool(models))
    known = model_styles(store)
    shown = sorted(table["model"].unique(), key=lambda model: known[model].place)
    figure = Figure(figsize=(7.2, 3.9), layout="constrained")
    axis = figure.subplots()
    for i, model in enumerate(shown):
        own = table[table["model"] == model].set_index(["degradation", "level"])
        there = [
            (x, own.loc[[condition]].iloc[0]) for x, condition in enumerate(ALONE.values()) if condition in own.index
        ]
        x = np.array([x for x, _ in there]) + 0.12 * (i - (len(shown) - 1) / 2)
        value, low, high = (100 * np.array([row[key] for _, row in there]) for key in ("value", "low", "high"))
        look = known[model]
        style: dict[str, Any] = {"color": look.colour, "marker": look.marker, "ls": "none", "ms": 6, "capsize": 2}
        axis.errorbar(x, value, [value - low, high - value], label=plain(model), **style)
    paper = 100 * np.array([COMBINED + INTENSITY_LOSS, COMBINED + PEPPER_LOSS, COMBINED])
    label = "paper (network not named; alone: from its differences)"
    axis.plot([1.36, 2.36, 3.36], paper, ls="none", marker="*", ms=11, mfc="none", mec="0.3", label=label)
    axis.set_xticks(range(len(ALONE)), list(ALONE))
    axis.set(ylabel="accuracy in %", ylim=(-2, 102), xlim=(-0.5, len(ALONE) - 0.5))
    axis.grid(axis="y", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    plain_legend(figure, axis.get_legend_handles_labels(), 2)
    figure.suptitle(
        f"{plain(table['dataset'].iloc[0])}: two noises at once (bars: 95 % intervals)", fontsize=10.5, parse_math=False
    )
    figure.savefig(out, dpi=160)
    return figure


def depth(store: Store, out: Path, dataset: str | None = None, models: Sequence[str] = ()) -> Figure:
    """Accuracy (undegraded: open; mean over degradations: filled) and p_Δ over the number of parameters; architectures
    that differ in a number alone (ResNet-18, -34, …) are joined. Means are over the conditions that all have. Raises
    `UserError`."""
    table = undefended(store, dataset, models)
    table = table.merge(store.query(PARAMETERS), on=["model", "dataset"]).dropna(subset=["num_parameters"])
    changes = store.query(CHANGES, ["none"]).merge(table[["protocol", "dataset", "model"]].drop_duplicates())
    common = _common(table)
    if common.empty:
        raise UserError(f"{store.path} has no degradation that all of its models on this data set were measured under")
    places = table.groupby("model").agg(parameters=("num_parameters", "first"), architecture=("architecture", "first"))
    places["still"] = table[table["degradation"] == "none"].set_index("model")["value"]
    places["degraded"], places["change"] = _mean(table, common), _mean(changes, common)
    places = places.dropna(subset=["still", "degraded"]).sort_values(["parameters", "architecture"])
    if places.empty:
        raise UserError(f"{store.path} has no model with undegraded predictions and a number of parameters here")
    places["family"] = [family(str(name)) for name in places["architecture"]]
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    known = model_styles(store)
    for _, own in places.groupby("family"):
        for axis, column, dash in ((left, "degraded", "-"), (left, "still", (0, (2, 3))), (right, "change", "-")):
            axis.plot(own["parameters"], 100 * own[column], color="0.6", lw=1.2, ls=dash, zorder=1)
    for model, row in places.iterrows():
        look = known[str(model)]
        style: dict[str, Any] = {"color": look.colour, "marker": look.marker, "ls": "none", "ms": 7}
        left.plot(row["parameters"], 100 * row["degraded"], label=plain(str(row["architecture"])), **style)
        left.plot(row["parameters"], 100 * row["still"], mfc="none", **style)
        right.plot(row["parameters"], 100 * row["change"], **style)
    for axis, label in ((left, "accuracy in % (open: undegraded)"), (right, "mean p_Δ in %")):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set(xlabel="parameters", ylabel=label)
        axis.margins(x=0.15)
        axis.set_ylim(-2, 1.1 * max(float(np.max(line.get_ydata())) for line in axis.get_lines()))
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    plain_legend(figure, left.get_legend_handles_labels(), 4)
    names = ", ".join(sorted(common["degradation"].unique()))
    title = f"{plain(table['dataset'].iloc[0])}: robustness over size; means over {plain(names)}"
    figure.suptitle(textwrap.fill(title, 100), fontsize=10, parse_math=False)
    figure.savefig(out, dpi=160)
    return figure


def family(architecture: str) -> str:
    """What is left of a name without its variant and its numbers: `resnet50.a1_in1k` → `resnet`."""
    plain_name = architecture.partition(".")[0]
    return re.sub(r"\d+(_\d+x\d+d|[a-z])?$", "", plain_name).rstrip("_-") or plain_name


def _common(table: pd.DataFrame) -> pd.DataFrame:
    """The degraded conditions that every model has."""
    degraded = table[table["degradation"] != "none"]
    counts = degraded.groupby(["degradation", "level"])["model"].nunique().reset_index(name="models")
    return counts[counts["models"] == table["model"].nunique()][["degradation", "level"]]


def _mean(table: pd.DataFrame, common: pd.DataFrame) -> pd.Series:
    """By model: over the levels of a degradation, then over degradations, as everywhere."""
    rows = table.merge(common)
    return rows.groupby(["model", "degradation"])["value"].mean().groupby("model").mean()
