"""Accuracy over levels, one panel a degradation, from the store alone."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnsens_bench.figures.style import Style, architecture_styles, styles
from cnnsens_bench.figures.summary import short_defense, wrapped
from cnnsens_bench.store import Store
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import UNITS, plain

EMPTY: Mapping[str, str] = {}
TITLE = 26
"""Characters of a panel's title that fit beside each other."""
LABEL = 60
"""Characters of a name in a legend."""
MODELS = "SELECT * FROM accuracy WHERE defense = ? ORDER BY level"
DEFENSES = "SELECT * FROM accuracy WHERE model = ? ORDER BY level"
DEFENDED = "SELECT DISTINCT model FROM accuracy WHERE defense <> 'none' ORDER BY model"
DEFENDED_ON = """SELECT model, dataset, count(DISTINCT defense) AS defenses FROM accuracy WHERE defense <> 'none'
    GROUP BY ALL ORDER BY ALL"""
DATASETS = "SELECT DISTINCT dataset FROM predictions ORDER BY ALL"
ARCHITECTURES = "SELECT DISTINCT model, architecture FROM predictions ORDER BY ALL"


def curves(store: Store, out: Path, defense: str = "none", dataset: str | None = None) -> Figure:
    """A curve per model, all with `defense`; see `draw`."""
    known_dataset(store, dataset)
    suffix = "" if defense == "none" else f", defense {short_defense(defense)}"
    table = of_dataset(store.query(MODELS, [defense]), dataset)
    return draw(store, table, "model", out, f"for the defense '{defense}'", suffix)


def defense_curves(
    store: Store, out: Path, model: str | None = None, dataset: str | None = None, notes: Mapping[str, str] = EMPTY
) -> Figure:
    """A curve per defense of `model`, `none` first (figure 4 of the paper); see `draw`. `notes`: degradation → what
    the paper says of it.

    `model` may be left out where the store has but one that is defended. Raises `UserError`.
    """
    known_dataset(store, dataset)
    if model is not None and model not in (known := store.query(ARCHITECTURES)["model"].tolist()):
        raise UserError(f"{store.path} has no model '{model}': it has {', '.join(known)}")
    if model is None:
        models = store.query(DEFENDED)["model"].tolist()
        if len(models) != 1:
            known = f", {' or '.join(models)}" if models else "; a run with defenses makes one"
            raise UserError(f"{store.path} has {len(models)} models with defenses: --model names one{known}")
        model = models[0]
    table = of_dataset(store.query(DEFENSES, [model]), dataset)
    # Degradations that no defense was tried under say nothing here.
    defended = table.loc[table["defense"] != "none", ["protocol", "dataset", "degradation"]].drop_duplicates()
    if len(defended):
        table = table.merge(defended)
    return draw(store, table, "defense", out, f"for the model '{model}'", f", {plain(model)}", notes)


def known_dataset(store: Store, dataset: str | None) -> None:
    """Raises `UserError` for one that the store has not; None: all."""
    known = store.query(DATASETS)["dataset"].tolist()
    if dataset is not None and dataset not in known:
        has = f"it has {', '.join(known)}" if known else "it has no predictions yet"
        raise UserError(f"{store.path} has no predictions on '{dataset}': {has}")


def one_protocol(store: Store, table: pd.DataFrame) -> None:
    """Raises `UserError` where rows of one data set were made under several, which are not to be mixed."""
    several = table.groupby("dataset")["protocol"].nunique()
    if (several > 1).any():
        raise UserError(
            f"{store.path} holds several protocols of '{several.idxmax()}': runs of each need an output of their own"
        )


def of_dataset(table: pd.DataFrame, dataset: str | None) -> pd.DataFrame:
    """The rows of `dataset`; None: all."""
    return table if dataset is None else table[table["dataset"] == dataset]


def model_styles(store: Store) -> dict[str, Style]:
    """Each model's style: its architecture's, whatever part of the store is drawn."""
    known = store.query(ARCHITECTURES)
    architecture = dict(zip(known["model"], known["architecture"].fillna(known["model"]), strict=True))
    by_architecture = architecture_styles(architecture.values())
    return {model: by_architecture[name] for model, name in architecture.items()}


def draw(
    store: Store,
    table: pd.DataFrame,
    by: str,
    out: Path,
    which: str,
    suffix: str,
    notes: Mapping[str, str] = EMPTY,
) -> Figure:
    """Accuracy (with its 95 % interval) over the levels of each degradation that has several, written to `out`.

    `table`: rows of the view `accuracy`; a curve for each value of the column `by`. The dotted line is the undegraded
    accuracy. Raises `UserError` when there is nothing of the kind, or several protocols or data sets (which are not to
    be mixed); `which` says of what, `suffix` ends the title.
    """
    kinds = table[["protocol", "dataset"]].drop_duplicates()
    if len(kinds) > 1:
        raise UserError(
            f"{store.path} holds several protocols or data sets: --dataset names one, and runs of several protocols "
            "need outputs of their own"
        )
    shown = swept(table)
    if not shown:
        raise UserError(f"{store.path} has no degradation with several levels {which}")
    names = sorted(table[by].unique(), key=lambda name: (name != "none", name))
    looks = styles(names) if by == "defense" else model_styles(store)
    titles = {name: "\n".join(wrapped(plain(name), TITLE)) for name in shown}
    height = 3.4 + 0.12 * len(names) + 0.2 * max(title.count("\n") for title in titles.values())
    figure = Figure(figsize=(max(6.2, 3.1 * len(shown)), height), layout="constrained")
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axis, degradation in zip(axes, shown, strict=True):
        panel(axis, table, by, {name: looks[name] for name in names}, degradation)
        axis.set_title(titles[degradation], parse_math=False)
        if degradation in notes:
            note(axis, notes[degradation])
    axes[0].set_ylabel("accuracy in %")
    columns = 4 if by == "model" else 3
    plain_legend(figure, axes[0].get_legend_handles_labels(), ncols=columns)
    dataset = kinds["dataset"].iloc[0]
    images = f"{table['n_images'].max()} images"
    title = f"{plain(dataset)}, {images}{suffix}: accuracy (bands: 95\u00a0% intervals; dotted: undegraded)"
    figure.suptitle(textwrap.fill(title, int(11 * figure.get_figwidth())), fontsize=10, parse_math=False)
    figure.savefig(out, dpi=160)
    return figure


def note(axis: Axes, text: str) -> None:
    """A remark in the lower left corner of a panel."""
    place: dict[str, Any] = {"transform": axis.transAxes, "va": "bottom", "parse_math": False}
    axis.text(0.03, 0.05, text, fontsize=7.5, color="0.35", style="italic", **place)


def swept(table: pd.DataFrame) -> list[str]:
    """The degradations of a table that have several levels."""
    levels = table.groupby("degradation")["level"].nunique()
    return list(levels.index[levels > 1])


def panel(axis: Axes, table: pd.DataFrame, by: str, looks: Mapping[str, Style], degradation: str) -> None:
    """The curves of one degradation: a curve for each of `looks`, values of the column `by`; their undegraded accuracy
    dotted. `table`: rows of the view `accuracy` by rising level."""
    shade = 0.13 if len(looks) < 5 else 0.05
    for name, look in looks.items():
        rows = table[(table[by] == name) & (table["degradation"] == degradation)]
        label = short_defense(name) if by == "defense" else plain(name)
        style: dict[str, Any] = {"color": look.colour, "lw": 1.6, "ls": look.dash}
        axis.plot(rows["level"], 100 * rows["value"], marker=look.marker, ms=4.5, label=label, **style)
        axis.fill_between(rows["level"], 100 * rows["low"], 100 * rows["high"], color=look.colour, alpha=shade, lw=0)
        still = table[(table[by] == name) & (table["degradation"] == "none")]["value"]
        if len(still):
            axis.axhline(100 * still.iloc[0], ls=(0, (2, 3)), color=look.colour, lw=0.9)
    level_axis(axis, degradation, sorted(table.loc[table["degradation"] == degradation, "level"].unique()))


def plain_legend(
    of: Figure | Axes, handles: tuple[list[Any], list[Any]], ncols: int, loc: str = "outside lower center"
) -> None:
    """Labels are names, in which a `$` is no formula, cut to what a page holds."""
    options: dict[str, Any] = {"loc": loc, "ncols": ncols, "frameon": False, "fontsize": 9}
    labels = [label if len(label) <= LABEL else f"{label[: LABEL - 1]}…" for label in map(str, handles[1])]
    legend = of.legend(handles[0], labels, **options)
    for text in legend.get_texts():
        text.set_parse_math(False)


def level_axis(axis: Axes, degradation: str, ticks: list[float]) -> None:
    """An x-axis of levels, by doublings where they allow it, and a y-axis of per cent."""
    form, note = UNITS.get(degradation, ("level", ""))
    if ticks and ticks[0] > 0:
        axis.set_xscale("log", base=2)
        many = len(ticks) > 6 and ticks[0] < 1
        axis.set_xticks(
            ticks, [f"{tick:g}" for tick in ticks], rotation=45 if many else 0, fontsize=8 if many else None
        )
        axis.minorticks_off()
    axis.set(xlabel=note.lstrip(", ") or form.format("").rstrip("=°"), ylim=(-2, 102))
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
