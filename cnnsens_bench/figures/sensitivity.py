"""Figures of section 4 from the store alone: predicted against measured sensitivity, and what predictors cost."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import gaussian_kde

from cnnsens_bench.figures.label_change import label_change_check
from cnnsens_bench.figures.style import COLOURS, MARKERS
from cnnsens_bench.store import Store
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import level_text, plain

ORDER = ("gaussian_rgb", "translation", "pepper_pixel")
"""The columns of figure 6."""
SCORED = "SELECT DISTINCT protocol, dataset, model, defense FROM protocol_sensitivity ORDER BY ALL"
PAIRS = """SELECT * FROM sensitivity_pairs
    WHERE protocol = ? AND dataset = ? AND model = ? AND defense = ? AND output = ? AND predictor = ?"""
CHECK = "SELECT * FROM predictor_check WHERE protocol = ? AND dataset = ? AND model = ? AND defense = ?"
CEILING = "SELECT * FROM trial_ceiling WHERE protocol = ? AND dataset = ? AND model = ? AND defense = ?"
LABEL_CHANGE = """SELECT * FROM predicted_label_change
    WHERE protocol = ? AND dataset = ? AND model = ? AND defense = ? AND predictor <> 'paper'"""
MANY = 5000
"""Points that are drawn at most: a density needs no more."""

Which = tuple[str, str, str, str]
"""protocol, dataset, model, defense."""


def order_of(condition: tuple[str, float]) -> tuple[int, str, float]:
    """To sort conditions by: the paper's first, in its order."""
    name, level = condition
    return ORDER.index(name) if name in ORDER else len(ORDER), name, level


def chosen(
    store: Store,
    model: str | None = None,
    defense: str = "none",
    dataset: str | None = None,
    protocol: str | None = None,
) -> Which:
    """What to draw: what is None may be left out where the store has scores of but one. Raises `UserError`."""
    scored = store.query(SCORED)
    if scored.empty:
        raise UserError(f"{store.path} has no sensitivity scores: a run with sensitivity=on makes them")
    rows = scored[scored["defense"] == defense]
    for column, wanted in (("model", model), ("dataset", dataset), ("protocol", protocol)):
        if wanted is not None:
            rows = rows[rows[column] == wanted]
    if len(rows) != 1:
        known = "; ".join(
            f"model {row.model}, defense {row.defense}, dataset {row.dataset}, protocol {row.protocol}"
            for row in scored.itertuples()
        )
        raise UserError(f"{store.path} has {len(rows)} scored entrants that fit, choose one: {known}")
    protocol, dataset, name, defense = rows.iloc[0].tolist()
    return protocol, dataset, name, defense


def fig6(store: Store, out: Path, which: Which, output: str = "logit", predictor: str = "paper") -> Figure:
    """Figure 6: predicted deviation of an `output` against its standard deviation over trials, an image a point,
    coloured by density, with the identity line and the correlations in the titles. Raises `UserError`."""
    pairs = store.query(PAIRS, [*which, output, predictor])
    conditions = _conditions(pairs, store)
    rows = max(len(levels) for levels in conditions.values())
    figure = Figure(figsize=(3.1 * len(conditions), 2.9 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, len(conditions), squeeze=False)
    for column, (degradation, levels) in zip(axes.T, conditions.items(), strict=True):
        for axis in column[len(levels) :]:
            axis.set_axis_off()
        for axis, level in zip(column, levels, strict=False):
            here = pairs[(pairs["degradation"] == degradation) & (pairs["level"] == level)]
            _scatter(axis, here["predicted_deviation"].to_numpy(), here["deviation"].to_numpy())
            pearson = here["predicted_deviation"].corr(here["deviation"])
            spearman = here["predicted_deviation"].corr(here["deviation"], method="spearman")
            title = f"{degradation} {level_text(degradation, level)}\nr = {pearson:.2f}, ρ = {spearman:.2f}"
            axis.set_title(title, fontsize=9)
    trials = int(pairs["n_trials"].max())
    figure.supxlabel(f"predicted standard deviation of the {output} ({plain(predictor)})", fontsize=9)
    figure.supylabel(f"standard deviation over {trials} trials", fontsize=9)
    figure.suptitle(f"{_title(which)}: {pairs['image_id'].nunique()} images (r: Pearson, ρ: Spearman)", fontsize=10)
    figure.savefig(out, dpi=140)
    return figure


def predictor_figure(store: Store, out: Path, which: Which) -> Figure:
    """What a predictor's agreement with the trials costs: Spearman's correlation (95 % intervals) over passes, a column
    a condition, a row an output; dashed: what a perfect predictor would reach. Raises `UserError`."""
    check = store.query(CHECK, list(which)).query("predictor != 'paper'")
    ceiling = store.query(CEILING, list(which)).set_index(["output", "degradation", "level"])["ceiling"]
    conditions = [(name, level) for name, levels in _conditions(check, store).items() for level in levels]
    figure = Figure(figsize=(2.25 * len(conditions) + 0.6, 5.4), layout="constrained")
    axes = figure.subplots(2, len(conditions), sharey=True, sharex=True, squeeze=False)
    families = sorted({_family(name) for name in check["predictor"]})
    for row, output in zip(axes, ("logit", "probability"), strict=True):
        for axis, (degradation, level) in zip(row, conditions, strict=True):
            here = check[
                (check["output"] == output) & (check["degradation"] == degradation) & (check["level"] == level)
            ]
            for i, family in enumerate(families):
                own = here[here["predictor"].map(_family) == family].sort_values("passes")
                if own.empty:
                    continue
                low, high = own["spearman"] - own["spearman_low"], own["spearman_high"] - own["spearman"]
                # Side by side where several cost the same.
                x = own["passes"] * 1.05 ** (i - len(families) / 2)
                style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
                axis.errorbar(x, own["spearman"], [low, high], ms=4.5, lw=1.2, capsize=2, label=plain(family), **style)
            highest = ceiling.get((output, degradation, level))
            if highest is not None and np.isfinite(highest):
                label = "ceiling (estimated): a perfect predictor against so few trials"
                axis.axhline(highest, color="0.4", ls="--", lw=1, label=label)
            axis.set_xscale("log", base=2)
            ticks = sorted(check["passes"].unique())
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=7)
            axis.minorticks_off()
            axis.grid(alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
            if output == "logit":
                axis.set_title(f"{degradation}\n{level_text(degradation, level)}", fontsize=9)
        row[0].set_ylabel(f"Spearman's ρ, {output}", fontsize=9)
    handles = {
        label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    title = "over the forward and backward passes that an image and output cost"
    figure.legend(
        list(handles.values()),
        list(handles),
        title=title,
        loc="outside lower center",
        ncols=6,
        frameon=False,
        fontsize=9,
        title_fontsize=9,
    )
    figure.suptitle(f"{_title(which)}: agreement with the standard deviation over trials", fontsize=10)
    figure.savefig(out, dpi=140)
    return figure


def label_change_figure(store: Store, out: Path, which: Which, check: pd.DataFrame | None = None) -> Figure:
    """Reliability of the predicted label change, and its area under the ROC curve beside confidence, entropy and
    margin, a row a condition in which labels change. `check`: of `label_change_check`, where it is known already.
    Raises `UserError`."""
    table = store.query(LABEL_CHANGE, list(which))
    check = label_change_check(table) if check is None else check
    rows = [key for key, _ in check.groupby(["degradation", "level"])]
    if not rows:
        raise UserError(f"{store.path} has no condition in which labels of '{which[2]}' change")
    rows.sort(key=order_of)
    figure = Figure(figsize=(9, 2.5 * len(rows) + 0.7), layout="constrained")
    axes = figure.subplots(len(rows), 2, squeeze=False, width_ratios=(1, 1.8))
    names = sorted(table["predictor"].unique())
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    for (left, right), (degradation, level) in zip(axes, rows, strict=True):
        here = table[(table["degradation"] == degradation) & (table["level"] == level)]
        for i, name in enumerate(names):
            own = here[here["predictor"] == name]
            if len(own):
                _reliability(left, own, colours[name], MARKERS[i % len(MARKERS)])
        left.plot([0, 1], [0, 1], color="0.5", lw=0.8, ls="--")
        left.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="measured p_Δ")
        left.set_title(f"{degradation} {level_text(degradation, level)}", fontsize=9)
        own = check[(check["degradation"] == degradation) & (check["level"] == level)].sort_values("auroc")
        for place, row in enumerate(own.itertuples()):
            marker = MARKERS[names.index(row.score) % len(MARKERS)] if row.score in names else "|"
            style = {"color": colours.get(row.score, "0.5"), "marker": marker}
            right.errorbar(
                row.auroc, place, xerr=[[row.auroc - row.low], [row.high - row.auroc]], ms=5, lw=1.4, **style
            )
        right.set_yticks(range(len(own)), [plain(name) for name in own["score"]], fontsize=8)
        right.set(xlim=(max(0, own["low"].min() - 0.02), 1.005), ylim=(-0.6, len(own) - 0.4))
        right.grid(alpha=0.25)
    axes[-1, 0].set_xlabel("predicted label change")
    axes[-1, 1].set_xlabel("AUROC of a label change, 95 % intervals")
    figure.suptitle(f"{_title(which)}: foretelling label changes", fontsize=10)
    figure.savefig(out, dpi=140)
    return figure


def _conditions(table: pd.DataFrame, store: Store) -> dict[str, list[float]]:
    """Degradations in the paper's order → levels."""
    names = sorted(table["degradation"].unique(), key=lambda name: order_of((name, 0)))
    found = {name: sorted(table.loc[table["degradation"] == name, "level"].unique()) for name in names}
    if not found:
        raise UserError(f"{store.path} has no scores beside trials of {', '.join(ORDER)}: suite=sensitivity makes both")
    return found


def _scatter(axis: Axes, predicted: np.ndarray, measured: np.ndarray) -> None:
    good = np.isfinite(predicted) & np.isfinite(measured)
    points = np.stack([predicted[good], measured[good]])
    if points.shape[1] > MANY:
        points = points[:, np.random.default_rng(0).permutation(points.shape[1])[:MANY]]
    try:
        density = gaussian_kde(points)(points)
    except (np.linalg.LinAlgError, ValueError):  # all on one line, or hardly any
        density = np.ones(points.shape[1])
    order = np.argsort(density)
    axis.scatter(points[0, order], points[1, order], c=density[order], s=9, cmap="viridis", linewidths=0)
    highest = points.max(axis=1, initial=0) * 1.05 + 1e-12
    axis.plot([0, highest.max()], [0, highest.max()], color="#d62728", ls="--", lw=1)
    axis.set(xlim=(0, highest[0]), ylim=(0, highest[1]))
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)


def _reliability(axis: Axes, rows: pd.DataFrame, colour: str, marker: str) -> None:
    """Means of predicted and measured in bins of as many images, fewer bins where most say 0."""
    ranks = rows["predicted"].rank(method="first")
    bins = np.minimum((ranks - 1) * 10 // len(rows), 9)
    means = rows[["predicted", "measured"]].groupby(bins.to_numpy()).mean()
    axis.plot(means["predicted"], means["measured"], color=colour, marker=marker, ms=4, lw=1)


def _family(predictor: str) -> str:
    return predictor.partition("(")[0]


def _title(which: Sequence[str]) -> str:
    _, dataset, model, defense = which
    return plain(f"{dataset}, {model}" + ("" if defense == "none" else f", {defense}"))
