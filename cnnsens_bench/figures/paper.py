"""Figures 2 and 3 and Table 1 of the paper, drawn from a store, with the numbers of the paper beside them."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnsens_bench.figures import curves
from cnnsens_bench.figures.evaluated import evaluated_caption
from cnnsens_bench.figures.published import CUB, FIGURE_2, FIGURE_3, TABLE_1, TABLE_1_NOTE
from cnnsens_bench.figures.style import Style, styles
from cnnsens_bench.figures.summary import interval
from cnnsens_bench.figures.tables import write_table
from cnnsens_bench.store import Store
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import level_text, plain

NOISES = ("gaussian_rgb", "gaussian_intensity", "saturation", "hue_global", "hue_local", "pepper", "translation")
"""The degradations of figure 2 in the order of its panels."""
GRAY_LEVELS = NOISES[:5]
TRANSFORMATIONS = {"rotation": "rotation", "flip_ud": "upside-down flip", "flip_lr": "left-right flip"}
CHANGES = "SELECT * FROM label_change WHERE defense = ? ORDER BY level"
TITLE = "accuracy under noise (bands: 95\u00a0% intervals; dotted: undegraded)"
SHARED_AXES = [GRAY_LEVELS, ("pepper",), ("translation",)]
"""The degradations of figure 3 whose levels have the same unit, and which therefore share a panel."""


def undefended_accuracy(store: Store, dataset: str | None = None, models: Sequence[str] = ()) -> pd.DataFrame:
    """Return the rows of the view `accuracy` that have no defense.

    Parameters
    ----------
    store
        The results.
    dataset
        The data set. The default is the paper's, or the only one.
    models
        The models. By default all.

    Raises
    ------
    UserError
        If there are no such rows, several data sets or protocols, or if a model is unknown.
    """
    table = store.query(curves.MODELS, ["none"])
    known = sorted(table["dataset"].unique())
    curves.check_dataset(store, dataset)
    if not known:
        raise UserError(f"{store.path} has no predictions yet: a run makes them")
    if dataset is None:
        dataset = CUB if CUB in known else known[0] if len(known) == 1 else None
        if dataset is None:
            raise UserError(f"{store.path} has several data sets: --dataset names one of {', '.join(known)}")
    table = table[table["dataset"] == dataset]
    if table.empty:
        raise UserError(f"{store.path} has no predictions without a defense on '{dataset}'")
    curves.check_one_protocol(store, table)
    measured = sorted(table["model"].unique())
    for model in models:
        if model not in measured:
            raise UserError(f"{store.path} has no model '{model}' on '{dataset}': it has {', '.join(measured)}")
    return table[table["model"].isin(models)] if models else table


def most_measured(store: Store, table: pd.DataFrame, degradations: Sequence[str], named: bool) -> pd.DataFrame:
    """Return the rows of the models that were measured under the largest number of some degradations.

    Parameters
    ----------
    store
        The results, for the error.
    table
        Rows of the view `accuracy`.
    degradations
        The degradations that count.
    named
        Whether the user named the models, so that all are returned.

    Raises
    ------
    UserError
        If no model was measured under any of the degradations.
    """
    counts = table[table["degradation"].isin(degradations)].groupby("model")["degradation"].nunique()
    if counts.empty:
        raise UserError(f"{store.path} has none of {', '.join(degradations)} here: a run of suite=paper makes them")
    return table if named else table[table["model"].isin(counts.index[counts == counts.max()])]


def fig2(store: Store, out: Path, dataset: str | None = None, models: Sequence[str] = ()) -> Figure:
    """Draw figure 2: the accuracy of each architecture over the levels of seven kinds of noise.

    Parameters
    ----------
    store
        The results.
    out
        The image file to write.
    dataset
        The data set. The default is the paper's, or the only one.
    models
        The models. By default those that were measured under most of the noises.

    Raises
    ------
    UserError
        If the store has nothing of the kind.
    """
    table = most_measured(store, undefended_accuracy(store, dataset, models), NOISES, bool(models))
    shown = [name for name in NOISES if (table["degradation"] == name).any()]
    style_of = curves.model_styles(store, table)
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(max(6.2, 3.1 * columns), 3.0 * rows + 0.3), layout="constrained")
    axes = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for axis, name in zip(axes, shown, strict=False):
        curves.draw_panel(axis, table, "model", style_of, name)
        axis.set_title(name, fontsize=10)
        if name in FIGURE_2:
            curves.annotate(axis, FIGURE_2[name])
    handles = axes[0].get_legend_handles_labels()
    free = axes[len(shown) :]
    for axis in free:
        axis.set_axis_off()
    if free:
        curves.draw_legend(free[0], handles, 1, loc="center left")
    else:
        curves.draw_legend(figure, handles, 4)
    for axis in axes[::columns]:
        axis.set_ylabel("accuracy in %")
    caption = evaluated_caption(store, table)
    return curves.save_figure(figure, out, f"{_subject(table)}: {TITLE}", fontsize=11, caption=caption)


def fig3(store: Store, out: Path, datasets: Sequence[str] = (), model: str | None = None) -> Figure:
    """Draw figure 3: the accuracy of one architecture under noise, on other data sets than the paper's birds.

    Parameters
    ----------
    store
        The results.
    out
        The image file to write.
    datasets
        The data sets. By default all but `cub200`.
    model
        The model. The default is the one that was measured on most of the data sets, AlexNet where it is among several.

    Raises
    ------
    UserError
        If the store has nothing of the kind, or several protocols of one data set.
    """
    every = store.query(curves.MODELS, ["none"])
    every = every[every["degradation"].isin([*NOISES, "none"])]
    for name in datasets:
        curves.check_dataset(store, name)
    names = list(datasets) or sorted(name for name in every["dataset"].unique() if name != CUB)
    table = every[every["dataset"].isin(names)]
    if table.empty:
        raise UserError(f"{store.path} has no noise on {', '.join(names) or 'a data set other than ' + CUB}")
    known = sorted(table["model"].unique())
    model = model or _default_model(table)
    table = table[table["model"] == model]
    if table.empty:
        raise UserError(f"{store.path} has no model '{model}' on {', '.join(names)}: it has {', '.join(known)}")
    curves.check_one_protocol(store, table)
    names = [name for name in names if name in set(table["dataset"])]
    style_of = styles(NOISES)
    figure = Figure(figsize=(10.6, 3.1 * len(names) + 0.5), layout="constrained")
    grid = figure.subplots(len(names), len(SHARED_AXES), sharey=True, squeeze=False, width_ratios=(1.5, 1, 1))
    for axes, name in zip(grid, names, strict=True):
        own = table[table["dataset"] == name]
        for axis, kinds in zip(axes, SHARED_AXES, strict=True):
            _draw_shared_axis(axis, own, kinds, style_of)
        axes[0].set_ylabel(f"{plain(name)}\naccuracy in %", parse_math=False)
        for degradation, level, value, text in FIGURE_3.get(name, ()):
            axes[0].plot(level, 100 * value, marker="*", ms=13, mfc="none", mec=style_of[degradation].colour)
            curves.annotate(axes[0], text)
    curves.draw_legend(figure, curves.shared_handles(grid[0]), 4)
    caption = evaluated_caption(store, table[table["dataset"].isin(names)])
    return curves.save_figure(figure, out, f"{plain(model)}: {TITLE}", fontsize=11, caption=caption)


def table1(store: Store, out: Path, dataset: str | None = None, models: Sequence[str] = ()) -> Figure | None:
    """Write Table 1: the label change p_Δ and the accuracy under rotation and flips, in % with 95 % intervals.

    Parameters
    ----------
    store
        The results.
    out
        The file to write; see `write_table`.
    dataset
        The data set. The default is the paper's, or the only one.
    models
        The models. By default those that were measured under most of the transformations.

    Raises
    ------
    UserError
        If the store has nothing of the kind.
    """
    table = most_measured(store, undefended_accuracy(store, dataset, models), tuple(TRANSFORMATIONS), bool(models))
    changes = store.query(CHANGES, ["none"]).merge(table[["protocol", "dataset", "model"]].drop_duplicates())
    shown = curves.model_styles(store, table)
    rows = []
    for kind, name in {"none": "undegraded", **TRANSFORMATIONS}.items():
        levels = table.loc[table["degradation"] == kind, "level"].unique()
        for level in [0.0] if kind == "none" else sorted(levels):
            row = {"": f"{name} {level_text(kind, level)}".strip()}
            for model in shown:
                row[f"{plain(model)} p_Δ"] = "" if kind == "none" else _interval_at(changes, model, kind, level)
                row[f"{plain(model)} acc."] = _interval_at(table, model, kind, level)
            rows.append(row | {"paper*": TABLE_1.get(kind, "")})
    title = f"{_subject(table)}: label change p_Δ and accuracy in %, with 95 % intervals"
    title = "; ".join(filter(None, [title, evaluated_caption(store, table)]))
    return write_table(pd.DataFrame(rows), out, title, TABLE_1_NOTE)


def _interval_at(table: pd.DataFrame, model: str, degradation: str, level: float) -> str:
    """Return the value and its interval of one model under one condition, or a dash where there is none."""
    found = table[(table["model"] == model) & (table["degradation"] == degradation) & (table["level"] == level)]
    return interval(*found[["value", "low", "high"]].iloc[0]) if len(found) else "–"


def _default_model(table: pd.DataFrame) -> str:
    """Return the model that was measured on most data sets. Among several, AlexNet comes before others."""
    counts = table.groupby(["model", "architecture"]).agg(datasets=("dataset", "nunique"), rows=("level", "size"))
    counts = counts.reset_index().assign(papers=lambda frame: frame["architecture"] == "alexnet")
    order = ["datasets", "papers", "rows", "model"]
    return str(counts.sort_values(order, ascending=[False, False, False, True])["model"].iloc[0])


def _draw_shared_axis(axis: Axes, own: pd.DataFrame, kinds: Sequence[str], style_of: dict[str, Style]) -> None:
    """Draw the curves of degradations that share a panel, on one data set."""
    shown = [name for name in kinds if (own["degradation"] == name).any()]
    if not shown:
        axis.set_axis_off()
        return
    for name in shown:
        curves.draw_panel(axis, own, "degradation", {name: style_of[name]}, name)
    undegraded = own[own["degradation"] == "none"]["value"]
    if len(undegraded):
        axis.axhline(100 * undegraded.iloc[0], ls=(0, (2, 3)), color="0.3", lw=0.9)
    curves.format_level_axis(axis, shown[0], sorted(own[own["degradation"].isin(shown)]["level"].unique()))


def _subject(table: pd.DataFrame) -> str:
    """Return the data set and the number of images, for a title."""
    return f"{plain(table['dataset'].iloc[0])}, {table['n_images'].max()} images"
