"""Figures 2 and 3 and Table 1 of the paper, from the store alone, with the paper's own numbers beside them."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnsens_bench.errors import UserError
from cnnsens_bench.figures.curves import MODELS, level_axis, model_styles, panel
from cnnsens_bench.figures.published import CUB, FIGURE_2, FIGURE_3, TABLE_1
from cnnsens_bench.figures.style import Style, styles
from cnnsens_bench.figures.summary import interval, level_text, plain
from cnnsens_bench.figures.tables import write_table
from cnnsens_bench.store import Store

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
    if dataset is None and known:
        dataset = CUB if CUB in known else known[0] if len(known) == 1 else None
        if dataset is None:
            raise UserError(f"{store.path} has several data sets: --dataset names one of {', '.join(known)}")
    table = table[table["dataset"] == dataset]
    if table.empty:
        has = f"it has {', '.join(known)}" if known else "it has no predictions yet"
        raise UserError(f"{store.path} has no predictions on '{dataset}': {has}")
    if table["protocol"].nunique() > 1:
        raise UserError(
            f"{store.path} holds several protocols of '{dataset}': runs of each need an output of their own"
        )
    for model in models:
        if model not in set(table["model"]):
            raise UserError(
                f"{store.path} has no model '{model}' on '{dataset}': it has {', '.join(sorted(set(table['model'])))}"
            )
    return table[table["model"].isin(models)] if models else table


def with_most(table: pd.DataFrame, degradations: Sequence[str]) -> pd.DataFrame:
    """The rows of the models that were measured under most of `degradations`. Raises `UserError` for none."""
    counts = table[table["degradation"].isin(degradations)].groupby("model")["degradation"].nunique()
    if counts.empty:
        raise UserError(
            f"the database has none of {', '.join(degradations)}: python -m cnnsens_bench.run suite=paper makes them"
        )
    return table[table["model"].isin(counts.index[counts == counts.max()])]


def fig2(store: Store, out: Path, dataset: str | None = None, models: Sequence[str] = ()) -> None:
    """Figure 2: accuracy over the levels of seven kinds of noise, a curve an architecture. Raises `UserError`."""
    table = with_most(undefended(store, dataset, models), NOISES)
    shown = [name for name in NOISES if (table["degradation"] == name).any()]
    known = model_styles(store)
    looks = {model: known[model] for model in sorted(table["model"].unique(), key=lambda m: known[m].place)}
    figure = Figure(figsize=(12.4, 6.2), layout="constrained")
    axes = list(figure.subplots(2, 4, sharey=True).flat)
    for axis, name in zip(axes, shown, strict=False):
        panel(axis, table, "model", looks, name)
        axis.set_title(name, fontsize=10)
        for note in FIGURE_2.get(name, ()):
            _note(axis, note.text)
    _legend(axes[len(shown) :], axes[0])
    for axis in figure.axes[::4]:
        axis.set_ylabel("accuracy in %")
    figure.suptitle(
        f"{_where(table)}: accuracy under noise (bands: 95 % intervals; dotted: undegraded)",
        fontsize=11,
        parse_math=False,
    )
    figure.savefig(out, dpi=160)


def fig3(store: Store, out: Path, datasets: Sequence[str] = (), model: str | None = None) -> None:
    """Figure 3: the kinds of noise beside each other on other data sets than birds, with one architecture (`model`;
    None: AlexNet, or the one that was measured on most of them). Raises `UserError`."""
    every = store.query(MODELS, ["none"])
    every = every[every["degradation"].isin([*NOISES, "none"])]
    names = list(datasets) or sorted(name for name in every["dataset"].unique() if name != CUB)
    table = every[every["dataset"].isin(names)]
    if table.empty:
        raise UserError(f"{store.path} has no noise on {', '.join(names) or 'a data set other than ' + CUB}")
    known = sorted(table["model"].unique())
    model = model or _most(table)
    table = table[table["model"] == model]
    if table.empty:
        raise UserError(f"{store.path} has no model '{model}' on {', '.join(names)}: it has {', '.join(known)}")
    looks = styles(NOISES)
    figure = Figure(figsize=(10.6, 3.1 * len(names) + 0.5), layout="constrained")
    grid = figure.subplots(len(names), len(PIECES), sharey=True, squeeze=False, width_ratios=(1.5, 1, 1))
    for axes, name in zip(grid, names, strict=True):
        own = table[table["dataset"] == name]
        if own["protocol"].nunique() > 1:
            raise UserError(
                f"{store.path} holds several protocols of '{name}': runs of each need an output of their own"
            )
        for axis, kinds in zip(axes, PIECES, strict=True):
            _kinds(axis, own, kinds, looks)
        axes[0].set_ylabel(f"{plain(name)}\naccuracy in %", parse_math=False)
        for note in FIGURE_3.get(name, ()):
            axes[0].plot(
                note.level, 100 * note.value, marker="*", ms=13, mfc="none", mec=looks[note.degradation].colour
            )
            _note(axes[0], note.text)
    handles = {
        label: handle for axis in grid[0] for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.suptitle(
        f"{plain(model)}: accuracy under noise (bands: 95 % intervals; dotted: undegraded)",
        fontsize=11,
        parse_math=False,
    )
    figure.savefig(out, dpi=160)


def table1(store: Store, out: Path, dataset: str | None = None, models: Sequence[str] = ()) -> None:
    """Table 1: label change p_Δ and accuracy under rotation and flips, in % with 95 % intervals. Raises `UserError`."""
    table = with_most(undefended(store, dataset, models), tuple(TRANSFORMATIONS))
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
    write_table(
        pd.DataFrame(rows),
        out,
        f"{_where(table)}: label change p_Δ and accuracy in %, with 95 % intervals",
        "* p_Δ, accuracy: the numbers of one of its networks; the text at hand has neither its name nor the others.",
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


def _legend(free: Sequence[Axes], axis: Axes) -> None:
    for other in free:
        other.set_axis_off()
    handles = axis.get_legend_handles_labels()
    if free:
        free[0].legend(*handles, loc="center left", frameon=False, fontsize=9)
    else:
        axis.legend(*handles, fontsize=8)


def _note(axis: Axes, text: str) -> None:
    axis.text(0.03, 0.03, text, transform=axis.transAxes, fontsize=7.5, color="0.35", va="bottom", style="italic")


def _where(table: pd.DataFrame) -> str:
    return f"{plain(table['dataset'].iloc[0])}, {table['n_images'].max()} images"
