"""Accuracy over levels, one panel a degradation, from the store alone."""

from pathlib import Path

from matplotlib.figure import Figure

from cnnsens_bench.errors import UserError
from cnnsens_bench.figures.summary import UNITS, short_defense
from cnnsens_bench.store import Store

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999")
"""Okabe & Ito's, told apart by the colour-blind; markers tell them apart in gray."""
MARKERS = "osD^vP*X"
CURVES = "SELECT * FROM accuracy WHERE defense = ? ORDER BY level"


def curves(store: Store, out: Path, defense: str = "none") -> None:
    """Accuracy (with its 95 % interval) over the levels of each degradation that has several, written to `out`.

    The dashed line is the undegraded accuracy. Raises `UserError` when the store has nothing of the kind, or several
    protocols or data sets (which are not to be mixed).
    """
    table = store.query(CURVES, [defense])
    kinds = table[["protocol", "dataset"]].drop_duplicates()
    if len(kinds) > 1:
        raise UserError(f"{store.path} holds several protocols or data sets: draw each from an output of its own")
    levels = table.groupby("degradation")["level"].nunique()
    shown = list(levels.index[levels > 1])
    if not shown:
        raise UserError(f"{store.path} has no degradation with several levels for the defense '{defense}'")
    figure = Figure(figsize=(3.1 * len(shown), 3.4), layout="constrained")
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    models = sorted(table["model"].unique())
    for axis, degradation in zip(axes, shown, strict=True):
        for i, model in enumerate(models):
            rows = table[(table["model"] == model) & (table["degradation"] == degradation)]
            style = {"color": COLOURS[i % len(COLOURS)], "lw": 1.6}
            axis.plot(
                rows["level"], 100 * rows["value"], marker=MARKERS[i % len(MARKERS)], ms=4.5, label=model, **style
            )
            axis.fill_between(
                rows["level"], 100 * rows["low"], 100 * rows["high"], color=style["color"], alpha=0.13, lw=0
            )
            still = table[(table["model"] == model) & (table["degradation"] == "none")]["value"]
            axis.axhline(100 * still.iloc[0], ls=(0, (2, 3)), color=style["color"], lw=0.9)
        form, note = UNITS.get(degradation, ("level", ""))
        axis.set_xscale("log", base=2)
        ticks = sorted(table.loc[table["degradation"] == degradation, "level"].unique())
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
        axis.set(title=degradation, xlabel=note.lstrip(", ") or form.format("").rstrip("=°"), ylim=(0, 101))
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("accuracy in %")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    dataset = kinds["dataset"].iloc[0]
    suffix = "" if defense == "none" else f", defense {short_defense(defense)}"
    figure.suptitle(f"{dataset}{suffix} (bands: 95 % intervals; dotted: undegraded)", fontsize=10)
    figure.savefig(out, dpi=140)
