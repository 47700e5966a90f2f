"""Figures 2 and 3 and Table 1 of the paper, from the store alone, with the paper's own numbers beside them."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnsens_bench.figures.curves import (
    MODELS,
    known_dataset,
    level_axis,
    model_styles,
    note,
    one_protocol,
    panel,
    plain_legend,
)
from cnnsens_bench.figures.published import CUB, FIGURE_2, FIGURE_3, TABLE_1, TABLE_1_NOTE
from cnnsens_bench.figures.style import Style, styles
from cnnsens_bench.figures.summary import interval
from cnnsens_bench.figures.tables import write_table
from cnnsens_bench.store import Store
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import level_text, plain

NOISES = ("gaussian_rgb", "gaussian_intensity", "saturation", "hue_global", "hue_local", "pepper", "translation")
"""The panels of figure 2."""
GRAY_LEVELS = NOISES[:5]
TRANSFORMATIONS = {"rotation": "rotation", "flip_ud": "upside-down flip", "flip_lr": "left-right flip"}
CHANGES = "SELECT * FROM label_change WHERE defense = ? ORDER BY level"
PIECES = [GRAY_LEVELS, ("pepper",), ("translation",)]
"""What shares an axis in figure 3: noises whose levels have one unit."""


def undefended(store: Store, dataset: str | None = None, models: Sequence[str] = ()) -> pd.DataFrame:
    """Rows of the view `accuracy` without a defense: of `dataset` (None: the paper's where it is there, else the only
    one), and of `models` where some are named. Raises `UserError`."""
    table = store.query(MODELS, ["none"])
    known = sorted(table["dataset"].unique())
    known_dataset(store, dataset)
    if not known:
        raise UserError(f"{store.path} has no predictions yet: a run makes them")
    if dataset is None:
        dataset = CUB if CUB in known else known[0] if len(known) == 1 else None
        if dataset is None:
            raise UserError(f"{store.path} has several data sets: --dataset names one of {', '.join(known)}")
    table = table[table["dataset"] == dataset]
    if table.empty:
        raise UserError(f"{store.path} has no predictions without a defense on '{dataset}'")
    one_protocol(store, table)
    for model in models:
        if model not in set(table["model"]):
            raise UserError(
                f"{store.path} has no model '{model}' on '{dataset}': it has {', '.join(sorted(set(table['model'])))}"
            )
    return table[table["model"].isin(models)] if models else table


def with_most(store: Store, table: pd.DataFrame, degradations: Sequence[str], named: bool) -> pd.DataFrame:
    """The rows of the models that were measured under most of `degradations`; of all where the user has `named` some.
    Raises `UserError` where none has any."""
    counts = table[table["degradation"].isin(degradations)].groupby("model")["degradation"].nunique()
    if counts.empty:
        raise UserError(f"{store.path} has none of {', '.join(degradations)} here: a run of suite=paper makes them")
    return table if named else table[table["model"].isin(counts.index[counts == counts.max()])]


def fig2(store: Store, out: Path, dataset: str | None = None, models: Sequence[str] = ()) -> Figure:
    """Figure 2: accuracy over the levels of seven kinds of noise, a curve an architecture. Raises `UserError`."""
    table = with_most(store, undefended(store, dataset, models), NOISES, bool(models))
    shown = [name for name in NOISES if (table["degradation"] == name).any()]
    known = model_styles(store)
    looks = {model: known[model] for model in sorted(table["model"].unique(), key=lambda m: known[m].place)}
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(max(6.2, 3.1 * columns), 3.0 * rows + 0.3), layout="constrained")
    axes = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for axis, name in zip(axes, shown, strict=False):
        panel(axis, table, "model", looks, name)
        axis.set_title(name, fontsize=10)
        if name in FIGURE_2:
            note(axis, FIGURE_2[name])
    handles = axes[0].get_legend_handles_labels()
    if free := axes[len(shown) :]:
        for axis in free:
            axis.set_axis_off()
        plain_legend(free[0], handles, 1, loc="center left")
    else:
        plain_legend(figure, handles, 4)
    for axis in axes[::columns]:
        axis.set_ylabel("accuracy in %")
    _title(figure, f"{_where(table)}: accuracy under noise (bands: 95\u00a0% intervals; dotted: undegraded)")
    figure.savefig(out, dpi=160)
    return figure


def fig3(store: Store, out: Path, datasets: Sequence[str] = (), model: str | None = None) -> Figure:
    """Figure 3: the kinds of noise beside each other on other data sets than birds, with one architecture (`model`;
    None: AlexNet, or the one that was measured on most of them). Raises `UserError`."""
    every = store.query(MODELS, ["none"])
    every = every[every["degradation"].isin([*NOISES, "none"])]
    for name in datasets:
        known_dataset(store, name)
    names = list(datasets) or sorted(name for name in every["dataset"].unique() if name != CUB)
    table = every[every["dataset"].isin(names)]
    if table.empty:
        raise UserError(f"{store.path} has no noise on {', '.join(names) or 'a data set other than ' + CUB}")
    known = sorted(table["model"].unique())
    model = model or _most(table)
    table = table[table["model"] == model]
    if table.empty:
        raise UserError(f"{store.path} has no model '{model}' on {', '.join(names)}: it has {', '.join(known)}")
    one_protocol(store, table)
    names = [name for name in names if name in set(table["dataset"])]
    looks = styles(NOISES)
    figure = Figure(figsize=(10.6, 3.1 * len(names) + 0.5), layout="constrained")
    grid = figure.subplots(len(names), len(PIECES), sharey=True, squeeze=False, width_ratios=(1.5, 1, 1))
    for axes, name in zip(grid, names, strict=True):
        own = table[table["dataset"] == name]
        for axis, kinds in zip(axes, PIECES, strict=True):
            _kinds(axis, own, kinds, looks)
        axes[0].set_ylabel(f"{plain(name)}\naccuracy in %", parse_math=False)
        for said in FIGURE_3.get(name, ()):
            colour = looks[said.degradation].colour
            axes[0].plot(said.level, 100 * said.value, marker="*", ms=13, mfc="none", mec=colour)
            note(axes[0], said.text)
    handles = {
        label: handle for axis in grid[0] for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    plain_legend(figure, (list(handles.values()), list(handles)), 4)
    _title(figure, f"{plain(model)}: accuracy under noise (bands: 95\u00a0% intervals; dotted: undegraded)")
    figure.savefig(out, dpi=160)
    return figure


def table1(store: Store, out: Path, dataset: str | None = None, models: Sequence[str] = ()) -> Figure | None:
    """Table 1: label change p_Δ and accuracy under rotation and flips, in % with 95 % intervals. Raises `UserError`."""
    table = with_most(store, undefended(store, dataset, models), tuple(TRANSFORMATIONS), bool(models))
    changes = store.query(CHANGES, ["none"]).merge(table[["protocol", "dataset", "model"]].drop_duplicates())
    shown = sorted(table["model"].unique(), key=lambda model: model_styles(store)[model].place)
    rows = []
    conditions = table[table["degradation"].isin(TRANSFORMATIONS)][["degradation", "level"]].drop_duplicates()
    order = sorted(
        conditions.itertuples(index=False), key=lambda c: (list(TRANSFORMATIONS).index(c.degradation), c.level)
    )
    for degradation, level in [("none", 0.0), *order]:
        name = f"{TRANSFORMATIONS.get(degradation, 'undegraded')} {level_text(degradation, level)}".strip()
        row: dict[str, str] = {"": name}
        for model in shown:
            row[f"{plain(model)} p_Δ"] = "" if degradation == "none" else _at(changes, model, degradation, level)
            row[f"{plain(model)} acc."] = _at(table, model, degradation, level)
        row["paper*"] = TABLE_1.get(degradation, "")
        rows.append(row)
    return write_table(
        pd.DataFrame(rows),
        out,
        f"{_where(table)}: label change p_Δ and accuracy in %, with 95 % intervals",
        TABLE_1_NOTE,
    )


def _at(table: pd.DataFrame, model: str, degradation: str, level: float) -> str:
    found = table[(table["model"] == model) & (table["degradation"] == degradation) & (table["level"] == level)]
    return interval(*found[["value", "low", "high"]].iloc[0]) if len(found) else "–"


def _most(table: pd.DataFrame) -> str:
    """AlexNet where it is there, else the model that was measured on most data sets, then under most noises."""
    counts = table.groupby(["model", "architecture"]).agg(datasets=("dataset", "nunique"), rows=("level", "size"))
    counts = counts.reset_index().assign(papers=lambda frame: frame["architecture"] == "alexnet")
    return str(
        counts.sort_values(["datasets", "papers", "rows", "model"], ascending=[False, False, False, True])[
            "model"
        ].iloc[0]
    )


def _kinds(axis: Axes, own: pd.DataFrame, kinds: Sequence[str], looks: dict[str, Style]) -> None:
    """One data set's curves of noises that share an axis."""
    there = [name for name in kinds if (own["degradation"] == name).any()]
    if not there:
        axis.set_axis_off()
        return
    for name in there:
        panel(axis, own, "degradation", {name: looks[name]}, name)
    still = own[own["degradation"] == "none"]["value"]
    if len(still):
        axis.axhline(100 * still.iloc[0], ls=(0, (2, 3)), color="0.3", lw=0.9)
    level_axis(axis, there[0], sorted(own[own["degradation"].isin(there)]["level"].unique()))


def _title(figure: Figure, text: str) -> None:
    figure.suptitle(textwrap.fill(text, int(10 * figure.get_figwidth())), fontsize=11, parse_math=False)


def _where(table: pd.DataFrame) -> str:
    return f"{plain(table['dataset'].iloc[0])}, {table['n_images'].max()} images"
