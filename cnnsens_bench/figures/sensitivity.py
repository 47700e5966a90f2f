"""Figures of section 4 of the paper: predicted against measured sensitivity, what predictors cost, and label change."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import gaussian_kde

from cnnsens_bench.figures.curves import finish_panel, shared_handles
from cnnsens_bench.figures.label_change import label_change_check
from cnnsens_bench.figures.style import Style, styles
from cnnsens_bench.store import Store
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import level_text, plain

ORDER = ("gaussian_rgb", "translation", "pepper_pixel")
"""The degradations of figure 6 in the order of its columns."""
SCORED = "SELECT DISTINCT protocol, dataset, model, defense FROM protocol_sensitivity ORDER BY ALL"
PAIRS = """SELECT * FROM sensitivity_pairs
    WHERE protocol = ? AND dataset = ? AND model = ? AND defense = ? AND output = ? AND predictor = ?"""
CHECK = "SELECT * FROM predictor_check WHERE protocol = ? AND dataset = ? AND model = ? AND defense = ?"
CEILING = "SELECT * FROM trial_ceiling WHERE protocol = ? AND dataset = ? AND model = ? AND defense = ?"
LABEL_CHANGE = """SELECT * FROM predicted_label_change
    WHERE protocol = ? AND dataset = ? AND model = ? AND defense = ? AND predictor <> 'paper'"""
MANY = 5000
"""The largest number of points that are drawn; a density needs no more."""


class ScoredEntrant(NamedTuple):
    """A model with a defense that has sensitivity scores on a data set under a protocol."""

    protocol: str
    dataset: str
    model: str
    defense: str

    def __str__(self) -> str:
        """Return the text that titles of figures begin with."""
        return plain(f"{self.dataset}, {self.model}" + ("" if self.defense == "none" else f", {self.defense}"))


def condition_order(condition: tuple[str, float]) -> tuple[int, str, float]:
    """Return the key that sorts pairs of degradation and level: those of figure 6 come first, in its order.

    Examples
    --------
    >>> sorted([("blur", 1.0), ("translation", 2.0), ("translation", 0.5)], key=condition_order)
    [('translation', 0.5), ('translation', 2.0), ('blur', 1.0)]
    """
    name, level = condition
    return ORDER.index(name) if name in ORDER else len(ORDER), name, level


def scored_entrants(store: Store) -> list[ScoredEntrant]:
    """Return all entrants that have sensitivity scores, sorted."""
    return [ScoredEntrant(*row) for row in store.query(SCORED).itertuples(index=False, name=None)]


def require_scored(store: Store) -> list[ScoredEntrant]:
    """Return all entrants that have sensitivity scores, and raise `UserError` where there are none."""
    if not (entrants := scored_entrants(store)):
        raise UserError(f"{store.path} has no sensitivity scores: a run with sensitivity=on makes them")
    return entrants


def choose_entrant(store: Store, defense: str = "none", **wanted: str | None) -> ScoredEntrant:
    """Return the scored entrant that a figure shows.

    Parameters
    ----------
    store
        The results.
    defense
        The defense of the entrant.
    **wanted
        The `model`, `dataset` and `protocol` of the entrant; None where it can have any.

    Raises
    ------
    UserError
        If not exactly one entrant fits. The sentence lists all.
    """
    scored = require_scored(store)
    wanted = {"defense": defense, **{column: value for column, value in wanted.items() if value is not None}}
    fitting = [entrant for entrant in scored if wanted.items() <= entrant._asdict().items()]
    if len(fitting) != 1:
        known = "; ".join(
            f"model {e.model}, defense {e.defense}, dataset {e.dataset}, protocol {e.protocol}" for e in scored
        )
        raise UserError(f"{store.path} has {len(fitting)} scored entrants that fit, choose one: {known}")
    return fitting[0]


def fig6(store: Store, out: Path, entrant: ScoredEntrant, output: str = "logit", predictor: str = "paper") -> Figure:
    """Draw figure 6: the predicted against the measured standard deviation of an output, one point for each image.

    Points are coloured by density. The dashed line is the identity, and titles have the correlations.

    Parameters
    ----------
    store
        The results.
    out
        The image file to write.
    entrant
        The scored entrant.
    output
        `logit` or `probability`.
    predictor
        The predictor, as the view `predictor_check` names it.

    Raises
    ------
    UserError
        If the store has no such scores beside trials.
    """
    pairs = store.query(PAIRS, [*entrant, output, predictor])
    conditions = _levels_by_degradation(pairs, store)
    rows = max(len(levels) for levels in conditions.values())
    figure = Figure(figsize=(3.1 * len(conditions), 2.9 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, len(conditions), squeeze=False)
    for column, (degradation, levels) in zip(axes.T, conditions.items(), strict=True):
        for axis in column[len(levels) :]:
            axis.set_axis_off()
        for axis, level in zip(column, levels, strict=False):
            own = pairs[(pairs["degradation"] == degradation) & (pairs["level"] == level)]
            _draw_scatter(axis, own["predicted_deviation"].to_numpy(), own["deviation"].to_numpy())
            pearson = own["predicted_deviation"].corr(own["deviation"])
            spearman = own["predicted_deviation"].corr(own["deviation"], method="spearman")
            title = f"{degradation} {level_text(degradation, level)}\nr = {pearson:.2f}, ρ = {spearman:.2f}"
            axis.set_title(title, fontsize=9)
    trials = int(pairs["n_trials"].max())
    figure.supxlabel(f"predicted standard deviation of the {output} ({plain(predictor)})", fontsize=9)
    figure.supylabel(f"standard deviation over {trials} trials", fontsize=9)
    figure.suptitle(f"{entrant}: {pairs['image_id'].nunique()} images (r: Pearson, ρ: Spearman)", fontsize=10)
    figure.savefig(out, dpi=140)
    return figure


def predictor_figure(store: Store, out: Path, entrant: ScoredEntrant) -> Figure:
    """Draw how well each predictor agrees with the trials (Spearman's correlation) over its cost in passes.

    A column is a condition, and a row an output. Bars are 95 % intervals. The dashed line is what a perfect predictor
    would reach against so few trials.

    Parameters
    ----------
    store
        The results.
    out
        The image file to write.
    entrant
        The scored entrant.

    Raises
    ------
    UserError
        If the store has no scores beside trials.
    """
    check = store.query(CHECK, list(entrant)).query("predictor != 'paper'")
    check = check.assign(family=[name.partition("(")[0] for name in check["predictor"]])
    ceiling = store.query(CEILING, list(entrant)).set_index(["output", "degradation", "level"])["ceiling"]
    conditions = [(name, level) for name, levels in _levels_by_degradation(check, store).items() for level in levels]
    figure = Figure(figsize=(2.25 * len(conditions) + 0.6, 5.4), layout="constrained")
    axes = figure.subplots(2, len(conditions), sharey=True, sharex=True, squeeze=False)
    for row, output in zip(axes, ("logit", "probability"), strict=True):
        for axis, (degradation, level) in zip(row, conditions, strict=True):
            chosen = (check["output"] == output) & (check["degradation"] == degradation) & (check["level"] == level)
            _draw_agreement(axis, check, chosen, ceiling.get((output, degradation, level)))
            if output == "logit":
                axis.set_title(f"{degradation}\n{level_text(degradation, level)}", fontsize=9)
        row[0].set_ylabel(f"Spearman's ρ, {output}", fontsize=9)
    title = "over the forward and backward passes that an image and output cost"
    options: dict[str, Any] = {"loc": "outside lower center", "ncols": 6, "frameon": False, "fontsize": 9}
    figure.legend(*shared_handles(axes.flat), title=title, title_fontsize=9, **options)
    figure.suptitle(f"{entrant}: agreement with the standard deviation over trials", fontsize=10)
    figure.savefig(out, dpi=140)
    return figure


def _draw_agreement(axis: Axes, check: pd.DataFrame, chosen: pd.Series, ceiling: float | None) -> None:
    """Draw a curve for each family of predictors over the chosen rows of `check`, and the ceiling."""
    style_of = styles(sorted(check["family"].unique()))
    for family, style in style_of.items():
        own = check[chosen & (check["family"] == family)].sort_values("passes")
        if own.empty:
            continue
        bars = [own["spearman"] - own["spearman_low"], own["spearman_high"] - own["spearman"]]
        # Predictors of equal cost stand side by side.
        x = own["passes"] * 1.05 ** (style.position - len(style_of) / 2)
        options: dict[str, Any] = {"color": style.colour, "marker": style.marker, "ms": 4.5, "lw": 1.2, "capsize": 2}
        axis.errorbar(x, own["spearman"], bars, label=plain(family), **options)
    if ceiling is not None and np.isfinite(ceiling):
        label = "ceiling (estimated): a perfect predictor against so few trials"
        axis.axhline(ceiling, color="0.4", ls="--", lw=1, label=label)
    axis.set_xscale("log", base=2)
    ticks = sorted(check["passes"].unique())
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=7)
    axis.minorticks_off()
    finish_panel(axis)


def label_change_figure(store: Store, out: Path, entrant: ScoredEntrant, check: pd.DataFrame | None = None) -> Figure:
    """Draw the reliability of the predicted label change, and its area under the ROC curve beside the baselines'.

    A row is a condition in which labels change. The baselines are confidence, entropy and margin.

    Parameters
    ----------
    store
        The results.
    out
        The image file to write.
    entrant
        The scored entrant.
    check
        What `label_change_check` returned, if it is known already.

    Raises
    ------
    UserError
        If there is no condition in which labels change.
    """
    table = store.query(LABEL_CHANGE, list(entrant))
    check = label_change_check(table) if check is None else check
    conditions = [key for key, _ in check.groupby(["degradation", "level"])]
    if not conditions:
        raise UserError(f"{store.path} has no condition in which labels of '{entrant.model}' change")
    conditions.sort(key=condition_order)
    figure = Figure(figsize=(9, 2.5 * len(conditions) + 0.7), layout="constrained")
    axes = figure.subplots(len(conditions), 2, squeeze=False, width_ratios=(1, 1.8))
    style_of = styles(sorted(table["predictor"].unique()))
    for (left, right), (degradation, level) in zip(axes, conditions, strict=True):
        _draw_reliability(left, table[(table["degradation"] == degradation) & (table["level"] == level)], style_of)
        left.set_title(f"{degradation} {level_text(degradation, level)}", fontsize=9)
        own = check[(check["degradation"] == degradation) & (check["level"] == level)].sort_values("auroc")
        _draw_areas(right, own, style_of)
    axes[-1, 0].set_xlabel("predicted label change")
    axes[-1, 1].set_xlabel("AUROC of a label change, 95 % intervals")
    figure.suptitle(f"{entrant}: foretelling label changes", fontsize=10)
    figure.savefig(out, dpi=140)
    return figure


def _draw_reliability(axis: Axes, table: pd.DataFrame, style_of: dict[str, Style]) -> None:
    """Draw measured over predicted label changes: means of ten groups of images of equal size, for each predictor."""
    for name, style in style_of.items():
        rows = table[table["predictor"] == name]
        if len(rows):
            ranks = rows["predicted"].rank(method="first")
            groups = np.minimum((ranks - 1) * 10 // len(rows), 9)
            means = rows[["predicted", "measured"]].groupby(groups.to_numpy()).mean()
            axis.plot(means["predicted"], means["measured"], ms=4, lw=1, color=style.colour, marker=style.marker)
    axis.plot([0, 1], [0, 1], color="0.5", lw=0.8, ls="--")
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="measured p_Δ")


def _draw_areas(axis: Axes, rows: pd.DataFrame, style_of: dict[str, Style]) -> None:
    """Draw the area under the ROC curve of each score with its interval, one below the other."""
    for height, row in enumerate(rows.to_dict("records")):
        low, high = row["auroc"] - row["low"], row["high"] - row["auroc"]
        style = style_of.get(row["score"])
        colour, marker = (style.colour, style.marker) if style else ("0.5", "|")
        axis.errorbar(row["auroc"], height, xerr=[[low], [high]], ms=5, lw=1.4, color=colour, marker=marker)
    axis.set_yticks(range(len(rows)), [plain(name) for name in rows["score"]], fontsize=8)
    axis.set(xlim=(max(0, rows["low"].min() - 0.02), 1.005), ylim=(-0.6, len(rows) - 0.4))
    axis.grid(alpha=0.25)


def _levels_by_degradation(table: pd.DataFrame, store: Store) -> dict[str, list[float]]:
    """Return the levels of each degradation of a table, in the order of figure 6. Raises `UserError` for none."""
    names = sorted(table["degradation"].unique(), key=lambda name: condition_order((name, 0)))
    found = {name: sorted(table.loc[table["degradation"] == name, "level"].unique()) for name in names}
    if not found:
        raise UserError(f"{store.path} has no scores beside trials of {', '.join(ORDER)}: suite=sensitivity makes both")
    return found


def _draw_scatter(axis: Axes, predicted: np.ndarray, measured: np.ndarray) -> None:
    """Draw one point for each image, coloured by density, and the identity line."""
    finite = np.isfinite(predicted) & np.isfinite(measured)
    points = np.stack([predicted[finite], measured[finite]])
    if points.shape[1] > MANY:
        points = points[:, np.random.default_rng(0).permutation(points.shape[1])[:MANY]]
    try:
        density = gaussian_kde(points)(points)
    except (np.linalg.LinAlgError, ValueError):  # all points lie on one line, or there are hardly any
        density = np.ones(points.shape[1])
    order = np.argsort(density)
    axis.scatter(points[0, order], points[1, order], c=density[order], s=9, cmap="viridis", linewidths=0)
    highest = points.max(axis=1, initial=0) * 1.05 + 1e-12
    axis.plot([0, highest.max()], [0, highest.max()], color="#d62728", ls="--", lw=1)
    axis.set(xlim=(0, highest[0]), ylim=(0, highest[1]))
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
