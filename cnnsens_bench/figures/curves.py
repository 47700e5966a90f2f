"""Accuracy over the levels of degradations, with one panel for each degradation; the parts serve other figures too."""

import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnsens_bench.camera.report import read_report
from cnnsens_bench.figures.camera_band import draw_camera_band
from cnnsens_bench.figures.style import Style, architecture_styles, styles
from cnnsens_bench.figures.summary import short_defense, wrapped
from cnnsens_bench.store import Store
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import UNITS, degradation_text, plain

EMPTY: Mapping[str, str] = {}
TITLE = 26
"""How many characters of a panel's title fit beside each other."""
LABEL = 60
"""How many characters of a name a legend shows."""
MODELS = "SELECT * FROM accuracy WHERE defense = ? ORDER BY level"
DEFENSES = "SELECT * FROM accuracy WHERE model = ? ORDER BY level"
DEFENDED = """SELECT model, dataset, count(DISTINCT defense) AS defenses FROM accuracy WHERE defense <> 'none'
    GROUP BY ALL ORDER BY ALL"""
DATASETS = "SELECT DISTINCT dataset FROM predictions ORDER BY ALL"
ARCHITECTURES = "SELECT DISTINCT model, architecture FROM predictions ORDER BY ALL"


def curves(
    store: Store, out: Path, defense: str = "none", dataset: str | None = None, camera: str | None = None
) -> Figure:
    """Draw the accuracy of each model over the levels of each degradation, all with one defense.

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
    camera
        The file of a measured camera, whose levels are drawn as bands.

    Raises
    ------
    UserError
        If the store has nothing of the kind, or several data sets or protocols.
    """
    check_dataset(store, dataset)
    suffix = "" if defense == "none" else f", defense {short_defense(defense)}"
    table = rows_of_dataset(store.query(MODELS, [defense]), dataset)
    return _draw_panels(store, table, "model", out, f"for the defense '{defense}'", suffix, camera=camera)


def defense_curves(
    store: Store,
    out: Path,
    model: str | None = None,
    dataset: str | None = None,
    notes: Mapping[str, str] = EMPTY,
    camera: str | None = None,
) -> Figure:
    """Draw the accuracy of one model with each defense over the levels of each degradation (figure 4 of the paper).

    Parameters
    ----------
    store
        The results.
    out
        The image file to write.
    model
        The model; None where the store has one only that was evaluated with defenses.
    dataset
        The data set; None where the store has one only.
    notes
        Remarks on panels, by degradation.
    camera
        The file of a measured camera, whose levels are drawn as bands.

    Raises
    ------
    UserError
        If the store has nothing of the kind, or several models, data sets or protocols.
    """
    check_dataset(store, dataset)
    if model is not None and model not in (known := store.query(ARCHITECTURES)["model"].tolist()):
        raise UserError(f"{store.path} has no model '{model}': it has {', '.join(known)}")
    if model is None:
        models = store.query(DEFENDED)["model"].unique().tolist()
        if len(models) != 1:
            known = f", {' or '.join(models)}" if models else "; a run with defenses makes one"
            raise UserError(f"{store.path} has {len(models)} models with defenses: --model names one{known}")
        model = models[0]
    table = rows_of_dataset(store.query(DEFENSES, [model]), dataset)
    # A degradation under which no defense was evaluated has nothing to compare.
    defended = table.loc[table["defense"] != "none", ["protocol", "dataset", "degradation"]].drop_duplicates()
    if len(defended):
        table = table.merge(defended)
    return _draw_panels(store, table, "defense", out, f"for the model '{model}'", f", {plain(model)}", notes, camera)


def check_dataset(store: Store, dataset: str | None) -> None:
    """Raise `UserError` for a data set that the store does not have; None stands for all."""
    known = store.query(DATASETS)["dataset"].tolist()
    if dataset is not None and dataset not in known:
        has = f"it has {', '.join(known)}" if known else "it has no predictions yet"
        raise UserError(f"{store.path} has no predictions on '{dataset}': {has}")


def check_one_protocol(store: Store, table: pd.DataFrame) -> None:
    """Raise `UserError` where rows of one data set were made under several protocols, which cannot be compared."""
    counts = table.groupby("dataset")["protocol"].nunique()
    if (counts > 1).any():
        several = f"{store.path} holds several protocols of '{counts.idxmax()}'"
        raise UserError(f"{several}: runs of each need an output of their own")


def rows_of_dataset(table: pd.DataFrame, dataset: str | None) -> pd.DataFrame:
    """Return the rows of a data set; None stands for all."""
    return table if dataset is None else table[table["dataset"] == dataset]


def model_styles(store: Store, table: pd.DataFrame) -> dict[str, Style]:
    """Return the style of each model of a table, in the order of the styles.

    The style is that of the model's architecture, whatever part of the store a figure shows.
    """
    known = store.query(ARCHITECTURES)
    architecture = dict(zip(known["model"], known["architecture"].fillna(known["model"]), strict=True))
    style_of = architecture_styles(architecture.values())
    shown = sorted(table["model"].unique(), key=lambda model: style_of[architecture[model]].position)
    return {model: style_of[architecture[model]] for model in shown}


def _draw_panels(
    store: Store,
    table: pd.DataFrame,
    by: str,
    out: Path,
    selection: str,
    suffix: str,
    notes: Mapping[str, str] = EMPTY,
    camera: str | None = None,
) -> Figure:
    """Draw a panel for each degradation with several levels, and in it a curve for each value of the column `by`.

    `table` has rows of the view `accuracy`. `selection` says for the error which rows they are; `suffix` ends the
    title. `camera` is the file whose levels are drawn.
    """
    report = read_report(camera) if camera else None
    kinds = table[["protocol", "dataset"]].drop_duplicates()
    if len(kinds) > 1:
        raise UserError(
            f"{store.path} holds several protocols or data sets: --dataset names one, and runs of several protocols "
            "need outputs of their own"
        )
    levels = table.groupby("degradation")["level"].nunique()
    shown = list(levels.index[levels > 1])
    if not shown:
        raise UserError(f"{store.path} has no degradation with several levels {selection}")
    names = sorted(table[by].unique(), key=lambda name: (name != "none", name))
    known = styles(names) if by == "defense" else model_styles(store, table)
    titles = {name: "\n".join(wrapped(degradation_text(name), TITLE)) for name in shown}
    height = 3.4 + 0.12 * len(names) + 0.2 * max(title.count("\n") for title in titles.values())
    figure = Figure(figsize=(max(6.2, 3.1 * len(shown)), height), layout="constrained")
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axis, degradation in zip(axes, shown, strict=True):
        draw_panel(axis, table, by, {name: known[name] for name in names}, degradation)
        axis.set_title(titles[degradation], parse_math=False)
        if report:
            draw_camera_band(axis, report, degradation)
        if degradation in notes:
            annotate(axis, notes[degradation])
    axes[0].set_ylabel("accuracy in %")
    draw_legend(figure, axes[0].get_legend_handles_labels(), ncols=4 if by == "model" else 3)
    subject = f"{plain(kinds['dataset'].iloc[0])}, {table['n_images'].max()} images{suffix}"
    return save_figure(figure, out, f"{subject}: accuracy (bands: 95\u00a0% intervals; dotted: undegraded)", 11)


def save_figure(figure: Figure, out: Path, title: str, per_inch: float = 10, fontsize: float = 10) -> Figure:
    """Give a figure a title whose lines have at most so many characters an inch, write it to a file, and return it."""
    figure.suptitle(textwrap.fill(title, int(per_inch * figure.get_figwidth())), fontsize=fontsize, parse_math=False)
    figure.savefig(out, dpi=160)
    return figure


def annotate(axis: Axes, text: str) -> None:
    """Write a remark into the lower left corner of a panel."""
    options: dict[str, Any] = {"transform": axis.transAxes, "va": "bottom", "parse_math": False}
    axis.text(0.03, 0.05, text, fontsize=7.5, color="0.35", style="italic", **options)


def draw_panel(axis: Axes, table: pd.DataFrame, by: str, style_of: Mapping[str, Style], degradation: str) -> None:
    """Draw the accuracy over the levels of one degradation, with its 95 % interval; dotted lines are undegraded.

    Parameters
    ----------
    axis
        The axes of the panel.
    table
        Rows of the view `accuracy`, by rising level.
    by
        The column whose values have a curve each.
    style_of
        Those values, and the style of each.
    degradation
        The degradation.
    """
    opacity = 0.13 if len(style_of) < 5 else 0.05
    for name, style in style_of.items():
        rows = table[(table[by] == name) & (table["degradation"] == degradation)]
        label = short_defense(name) if by == "defense" else plain(name)
        line: dict[str, Any] = {"color": style.colour, "lw": 1.6, "ls": style.dash}
        axis.plot(rows["level"], 100 * rows["value"], marker=style.marker, ms=4.5, label=label, **line)
        axis.fill_between(rows["level"], 100 * rows["low"], 100 * rows["high"], color=style.colour, alpha=opacity, lw=0)
        undegraded = table[(table[by] == name) & (table["degradation"] == "none")]["value"]
        if len(undegraded):
            axis.axhline(100 * undegraded.iloc[0], ls=(0, (2, 3)), color=style.colour, lw=0.9)
    format_level_axis(axis, degradation, sorted(table.loc[table["degradation"] == degradation, "level"].unique()))


def shared_handles(axes: Iterable[Axes]) -> tuple[list[Any], list[Any]]:
    """Return the handles and labels of several panels for one legend, each label once."""
    pairs = (pair for axis in axes for pair in zip(*axis.get_legend_handles_labels(), strict=True))
    handles = {label: handle for handle, label in pairs}
    return list(handles.values()), list(handles)


def draw_legend(
    parent: Figure | Axes, handles: tuple[list[Any], list[Any]], ncols: int, loc: str = "outside lower center"
) -> None:
    """Draw a legend of names, which are shortened where they are long, and in which a `$` begins no formula."""
    options: dict[str, Any] = {"loc": loc, "ncols": ncols, "frameon": False, "fontsize": 9}
    labels = [label if len(label) <= LABEL else f"{label[: LABEL - 1]}…" for label in map(str, handles[1])]
    legend = parent.legend(handles[0], labels, **options)
    for text in legend.get_texts():
        text.set_parse_math(False)


def format_level_axis(axis: Axes, degradation: str, ticks: list[float]) -> None:
    """Give a panel an x-axis of levels, logarithmic where all are above 0, and a y-axis of per cent."""
    form, addition = UNITS.get(degradation, ("level", ""))
    if ticks and ticks[0] > 0:
        axis.set_xscale("log", base=2)
        rotation, size = (45, 8) if len(ticks) > 6 and ticks[0] < 1 else (0, None)
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks], rotation=rotation, fontsize=size)
        axis.minorticks_off()
    axis.set(xlabel=addition.lstrip(", ") or form.format("").rstrip("=°"), ylim=(-2, 102))
    finish_panel(axis)


def finish_panel(axis: Axes, grid: str = "both") -> None:
    """Give a panel a pale grid, and no frame above and at its right."""
    axis.grid(axis=grid, alpha=0.25)  # type: ignore[arg-type]
    axis.spines[["top", "right"]].set_visible(False)
