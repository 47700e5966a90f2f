"""Computes the numbers of a page a second time, from single predictions, in plain pandas."""

from typing import Any

import numpy as np
import pandas as pd

PROTOCOLS = {"r1": "p", "r2": "p", "r3": "q"}


def entrants(content: dict[str, Any], rows: pd.DataFrame) -> list[tuple[dict, dict, pd.DataFrame, pd.DataFrame]]:
    """Return (board, entrant, its rows, the board's rows) for every entrant of a page."""
    every = []
    for board in content["boards"]:
        own = rows[(rows["dataset"] == board["dataset"]) & (rows["run_id"].map(PROTOCOLS) == board["protocol"])]
        for one in board["entrants"]:
            every.append((board, one, own[(own["model"] == one["model"]) & (own["defense"] == one["defense"])], own))
    return every


def per_image(rows: pd.DataFrame) -> pd.DataFrame:
    """Return shares per condition and image, with p_Δ against the undegraded prediction."""
    still = rows[rows["degradation"] == "none"].set_index("image_id")["prediction"]
    rows = rows.assign(
        hit=(rows["prediction"] == rows["label"]).astype(float),
        changed=(rows["prediction"] != rows["image_id"].map(still))
        .astype(float)
        .where(rows["image_id"].isin(still.index)),
        top5=(rows["true_rank"] <= 5).astype(float),
        nll=-np.log(np.maximum(rows["true_probability"].astype("float32").astype(float), np.finfo(np.float32).tiny)),
    )
    return rows.groupby(["degradation", "level", "image_id"])[["hit", "changed", "top5", "nll"]].mean().reset_index()


def chosen(every: pd.DataFrame, own: pd.DataFrame) -> tuple[set[tuple[str, float]], bool]:
    """Return the conditions that an entrant's means are over, and whether it is ranked; `every`: the board's rows."""
    degraded = every[every["degradation"] != "none"]
    sets = {
        key: frozenset(zip(part["degradation"], part["level"], strict=True))
        for key, part in degraded.groupby(["model", "defense"])
    }
    undefended = {key: own for key, own in sets.items() if key[1] == "none"} or sets
    scores = [(sum(s <= v for v in undefended.values()) * len(s) ** 2, len(s), s) for s in sets.values()]
    best = [s for *score, s in scores if score == max(score for *score, _ in scores)]
    shared = min(best, key=sorted)
    mine = {pair for pair in zip(own["degradation"], own["level"], strict=True) if pair[0] != "none"}
    return (set(shared), True) if shared <= mine else (mine, False)


def averaged(values: pd.Series) -> float:
    """Average values that are indexed by (degradation, level): over levels, then over degradations."""
    return float(values.drop("none", level=0, errors="ignore").groupby(level=0).mean().mean())


def images_per_second(board: dict, one: dict, speed: pd.DataFrame) -> tuple[float, str, pd.DataFrame]:
    """Return the speed on the device that computed most of the entrant's images, its label, and its batches."""
    own = speed[(speed["dataset"] == board["dataset"]) & (speed["run_id"].map(PROTOCOLS) == board["protocol"])]
    own = own[(own["model"] == one["model"]) & (own["defense"] == one["defense"])]
    sums = own.groupby("device")[["images", "seconds"]].sum()
    device = sums["images"].idxmax()
    label = device if device == "A GPU" else f"{device}, 2 threads"
    return sums["images"][device] / sums["seconds"][device], label, own[own["device"] == device]


def relative_measures(shares: pd.DataFrame, every: pd.DataFrame) -> dict[str, float]:
    """Return mCE, relative mCE and mean flip rate; `shares`: hit and changed by (degradation, level)."""
    reference = every[(every["model"] == "torchvision/alexnet") & (every["defense"] == "none")]
    base = per_image(reference).groupby(["degradation", "level"])[["hit", "changed"]].mean()
    plain, relative, flips = [], [], []
    for name in set(shares.index.get_level_values(0)) & set(base.index.get_level_values(0)) - {"none"}:
        both = shares.loc[name].join(base.loc[name], how="inner", rsuffix="_base")
        errors, others = (1 - both["hit"]).sum(), (1 - both["hit_base"]).sum()
        if others > 0:
            plain.append(errors / others)
        still = [1 - part["hit"].get(("none", 0), np.nan) for part in (shares, base)]
        if others - len(both) * still[1] > 1e-9:
            relative.append((errors - len(both) * still[0]) / (others - len(both) * still[1]))
        known = both.dropna(subset=["changed", "changed_base"])
        if known["changed_base"].sum() > 0:
            flips.append(known["changed"].mean() / known["changed_base"].mean())
    found = {"mce": plain, "relative_mce": relative, "mean_flip_rate": flips}
    return {name: float(np.mean(ratios)) for name, ratios in found.items() if ratios}
