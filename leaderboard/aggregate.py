"""Numbers of a board: shares per image in, measures with intervals and ranks out."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cnnsens_bench.measures import (
    Estimate,
    above_undegraded,
    bootstrap,
    clustered_interval,
    ratios_by_degradation,
)
from leaderboard.ranking import BoardEntrant, Interval, enough, rank, ranked_conditions
from leaderboard.read import Results
from leaderboard.speed import rates

RESAMPLES = 1000
SEED = 0
FRAGILE = 8
SHARES = ("hit", "changed", "top5", "nll")


@dataclass
class Board:
    """One protocol on one data set: `conditions` (degradation, level, trials), `images` (image_id, class_name)."""

    board: int
    conditions: pd.DataFrame
    images: pd.DataFrame
    entrants: list[BoardEntrant]
    reference: int | None
    device: str | None
    """The one that most images were predicted on."""
    ranked: list[int]
    """Degraded conditions that the ranked entrants share: their means are over these."""


class Resampler:
    """Bootstrap over images, the same draws for every entrant of a board, so that ratios are paired."""

    def __init__(self, n_images: int) -> None:
        blocks = [block.astype(np.float32) for block in bootstrap(n_images, RESAMPLES, SEED)]
        # The first row is the sample itself.
        self.weights = np.concatenate([np.ones((1, n_images), np.float32), *blocks])

    def means(self, values: np.ndarray) -> np.ndarray:
        """(resamples + 1, conditions) of `values` (images, conditions), NaN where an image has none."""
        there = ~np.isnan(values)
        sums = self.weights @ np.where(there, values, 0).astype(np.float32)
        counts = np.float32(len(values)) if there.all() else self.weights @ there.astype(np.float32)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = (sums / counts).astype(float)
            # float32 is enough for an interval, not for the value.
            means[0] = np.where(there, values, 0).sum(0) / there.sum(0)
        return means

    def class_means(self, hits: np.ndarray, trials: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The same of the mean over classes of each class's share, images and trials pooled; `labels` (images,)."""
        pooled = np.where(np.isnan(hits), 0, hits * trials).astype(np.float32)
        counts = np.where(np.isnan(hits), 0, trials).astype(np.float32)
        total = np.zeros((len(self.weights), hits.shape[1]))
        classes = np.zeros_like(total)
        for label in np.unique(labels[~np.isnan(labels)]):
            chosen = labels == label
            right, of = self.weights[:, chosen] @ pooled[chosen], self.weights[:, chosen] @ counts[chosen]
            total += np.divide(right, of, out=np.zeros_like(right), where=of > 0)
            classes += of > 0
        return np.divide(total, classes, out=np.full_like(total, np.nan), where=classes > 0)


def boards(results: Results, reference: str) -> list[Board]:
    """All boards; `reference`: the model (without a defense) whose errors mCE is relative to."""
    ece = results.query("ece").set_index(["entrant", "condition"])["ece"]
    chunks = results.query("speed")
    measured = results.query("measured").set_index("entrant")
    return [
        _board(results, row.board, row.dataset, reference, ece, chunks, measured) for row in results.boards.itertuples()
    ]


def _board(
    results: Results,
    board: int,
    dataset: str,
    reference: str,
    ece: pd.Series,
    chunks: pd.DataFrame,
    measured: pd.DataFrame,
) -> Board:
    conditions = results.query("conditions", board=board)
    images = results.query("images", board=board, dataset=dataset)
    members = results.entrants[results.entrants["board"] == board]
    draws = Resampler(len(images))
    is_reference = (members["defense"] == "none") & ((members["name"] == reference) | (members["model"] == reference))
    # Of several weights the exact name wins, else none: which of them would be chance.
    exact = members.index[is_reference & (members["name"] == reference)]
    chosen = exact if len(exact) else members.index[is_reference]
    ref = int(members.loc[chosen[0], "entrant"]) if len(chosen) == 1 else None
    own = measured.loc[members["entrant"]]
    same_images = enough(own["images"])
    undegraded = frozenset(np.flatnonzero(conditions["degradation"] == "none").tolist())
    sets = {int(entrant): frozenset(those) for entrant, those in own["conditions"].items()}
    undefended = set(members.loc[members["defense"] == "none", "entrant"])
    shared = ranked_conditions({one: sets[one] for one in sorted(same_images)}, undefended, undegraded)
    made: list[BoardEntrant] = []
    of_reference = None
    for entrant in sorted(members["entrant"], key=lambda one: one != ref):  # the reference first
        rows = results.query("entrant", entrant=int(entrant))
        tables = {name: _matrix(rows, name, len(images), len(conditions)) for name in SHARES}
        resampled = {name: draws.means(table) for name, table in tables.items()}
        if entrant == ref:
            of_reference = resampled
        resampled["class"] = draws.class_means(
            tables["hit"], _matrix(rows, "trials", *tables["hit"].shape), _labels(rows, len(images))
        )
        contains = shared <= sets[int(entrant)]
        chosen = (shared if contains else sets[int(entrant)]) | undegraded
        one = _entrant(int(entrant), rows, tables, resampled, conditions, ece, chosen)
        if of_reference is not None:
            _add_relative(one, resampled, of_reference, conditions["degradation"].to_numpy(), chosen)
        one.same_images = int(entrant) in same_images
        one.comparable = one.same_images and contains
        made.append(one)
    made.sort(key=lambda one: one.entrant)
    device = _add_speed(made, chunks[chunks["entrant"].isin(members["entrant"])])
    rank(made)
    return Board(board, conditions, images, made, ref, device, sorted(shared - undegraded))


def _matrix(rows: pd.DataFrame, name: str, n_images: int, n_conditions: int) -> np.ndarray:
    table = np.full((n_images, n_conditions), np.nan)
    table[rows["image"], rows["condition"]] = rows[name]
    return table


def _entrant(
    entrant: int,
    rows: pd.DataFrame,
    tables: dict[str, np.ndarray],
    resampled: dict[str, np.ndarray],
    conditions: pd.DataFrame,
    ece: pd.Series,
    chosen: frozenset[int],
) -> BoardEntrant:
    """`chosen`: the conditions that its means are over."""
    trials = rows.groupby("condition")["trials"].max()
    own = sorted(int(i) for i in trials.index)
    names = conditions["degradation"].to_numpy()
    accuracy, change = (_per_condition(tables[name], trials) for name in ("hit", "changed"))
    undegraded = [i for i in own if names[i] == "none"]
    weights = averaging(names, [i for i in own if names[i] != "none" and i in chosen])
    changed_weights = averaging(names, sorted(chosen & change.keys()))
    stats: dict[str, Interval] = {}
    if undegraded:
        stats["accuracy"] = accuracy[undegraded[0]]
        stats["nll"] = _interval(resampled["nll"][:, undegraded[0]])
        top5 = _per_condition(tables["top5"][:, undegraded], trials[undegraded].reset_index(drop=True))
        stats |= {"top5": top5[0]} if top5 else {}
    mean = {name: _weighted(resampled[name], weights) for name in ("hit", "top5", "nll")}
    stats["mean_degraded_accuracy"] = _interval(mean["hit"])
    stats["mean_label_change"] = _interval(_weighted(resampled["changed"], changed_weights))
    stats["top5_degraded"], stats["nll_degraded"] = _interval(mean["top5"]), _interval(mean["nll"])
    calibration = _series(ece, entrant).reindex(range(len(conditions))).to_numpy()[None]
    if undegraded:
        stats["mean_per_class"] = _interval(resampled["class"][:, undegraded[0]])
        stats["ece"] = (float(calibration[0, undegraded[0]]), np.nan, np.nan)
    stats["mean_per_class_degraded"] = _interval(_weighted(resampled["class"], weights))
    # No interval: resampling makes an ECE larger, so its quantiles would not hold the value.
    stats["ece_degraded"] = (float(_weighted(calibration, weights)[0]), np.nan, np.nan)
    degraded = [i for i in accuracy if names[i] != "none"]
    averaged = [i for i in degraded if i in chosen]
    worst = min(averaged, key=lambda i: (accuracy[i][0], names[i], conditions["level"][i])) if averaged else None
    if worst is not None:
        stats["worst_accuracy"] = accuracy[worst]
    by_degradation = {}
    for name in dict.fromkeys(names[degraded]):
        levels = [i for i in degraded if names[i] == name]
        changes = [change[i][0] for i in levels if i in change]
        by_degradation[str(name)] = (
            float(np.mean([accuracy[i][0] for i in levels])),
            float(np.mean(changes)) if changes else float("nan"),
        )
    return BoardEntrant(
        entrant,
        int((~np.isnan(tables["hit"])).any(1).sum()),
        own,
        accuracy,
        change,
        by_degradation,
        {name: value for name, value in stats.items() if not np.isnan(value[0])},
        worst,
        _fragile(tables["changed"], names),
    )


def averaging(names: np.ndarray, chosen: list[int]) -> np.ndarray:
    """Weights of conditions that average over levels within a degradation, then over degradations."""
    weights = np.zeros(len(names))
    kinds, counts = np.unique(names[chosen].astype(str), return_counts=True)
    for i in chosen:
        weights[i] = 1 / (len(kinds) * counts[list(kinds).index(names[i])])
    return weights


def _weighted(means: np.ndarray, weights: np.ndarray) -> np.ndarray:
    used = weights > 0
    return means[:, used] @ weights[used] if used.any() else np.full(len(means), np.nan)


def _interval(values: np.ndarray) -> Interval:
    """The first value, and the central 95 % of the others."""
    known = values[1:][~np.isnan(values[1:])]
    if np.isnan(values[0]) or not len(known):
        return (float("nan"),) * 3
    low, high = np.quantile(known, [0.025, 0.975])
    # Where nothing varies float32's rounding must not put a bound beside the value.
    return float(values[0]), float(min(low, values[0])), float(max(high, values[0]))


def _per_condition(table: np.ndarray, trials: pd.Series) -> dict[int, Interval]:
    found = {}
    for condition in range(table.shape[1]):
        shares = table[:, condition]
        shares = shares[~np.isnan(shares)]
        if len(shares):
            estimate: Estimate = clustered_interval(shares, int(trials[condition]))
            found[condition] = (estimate.value, estimate.low, estimate.high)
    return found


def _labels(rows: pd.DataFrame, n_images: int) -> np.ndarray:
    labels = np.full(n_images, np.nan)
    labels[rows["image"]] = rows["label"]
    return labels


def _series(table: pd.Series, entrant: int) -> pd.Series:
    return table.xs(entrant) if entrant in table.index.get_level_values(0) else pd.Series(dtype=float)


def _fragile(changed: np.ndarray, names: np.ndarray) -> list[tuple[int, float]]:
    """The images whose label changes most: mean over levels, then over the degradations that the image has."""
    sums, counts = np.zeros(len(changed)), np.zeros(len(changed))
    for name in dict.fromkeys(names):
        part = changed[:, names == name]
        there = ~np.isnan(part)
        with np.errstate(invalid="ignore"):
            means = np.where(there, part, 0).sum(1) / there.sum(1)
        known = ~np.isnan(means)
        sums[known] += means[known]
        counts += known
    with np.errstate(invalid="ignore"):
        share = np.where(counts > 0, sums / counts, -1)
    return [(int(i), float(share[i])) for i in np.argsort(-share, kind="stable")[:FRAGILE] if share[i] > 0]


def _add_relative(
    one: BoardEntrant,
    own: dict[str, np.ndarray],
    reference: dict[str, np.ndarray],
    degradation: np.ndarray,
    chosen: frozenset[int],
) -> None:
    """mCE, relative mCE and mean flip rate, as `measures` has them, of the images and of their resamples."""
    errors = [1 - means["hit"] for means in (own, reference)]
    averaged = np.isin(np.arange(len(degradation)), sorted(chosen))
    excesses = [above_undegraded(error, degradation) for error in errors]
    changes = [means["changed"] for means in (own, reference)]
    for name, (mine, theirs) in {"mce": errors, "relative_mce": excesses, "mean_flip_rate": changes}.items():
        ratios = ratios_by_degradation(np.where(averaged, mine, np.nan), theirs, degradation)
        usable = ratios[:, ~np.isnan(ratios[0])]
        one.degradations_of[name] = usable.shape[1]
        if usable.size:
            # A resample that lacks a ratio which the images have tells nothing of their mean.
            one.stats[name] = _interval(usable.mean(1))


def _add_speed(made: list[BoardEntrant], chunks: pd.DataFrame) -> str | None:
    found, usual = rates(chunks)
    for one in made:
        if one.entrant in found and not np.isnan(found[one.entrant][1][0]):
            one.device, one.stats["images_per_second"] = found[one.entrant]
            one.same_device = one.device == usual
    return usual
