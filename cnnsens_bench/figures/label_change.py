"""How well each score foretells that a label will change: the numbers behind the figure and the table."""

import dataclasses

import numpy as np
import pandas as pd

from cnnsens_bench.measures import Foretelling, brier_score, foretelling

BASELINES = {"confidence": -1, "entropy": 1, "margin": -1}
"""What needs no gradient → the sign with which it grows with the chance of a change."""
COLUMNS = [
    "degradation",
    "level",
    "score",
    "passes",
    *(f.name for f in dataclasses.fields(Foretelling)),
    "brier",
    "skill",
    "n",
]
FEWEST = 5
"""Changes, and constancies, below which a ranking of images says nothing."""


def label_change_check(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the view `predicted_label_change`, of one model → a row per degradation × level × score.

    Columns: degradation, level, score, passes (1 for the baselines), auroc, low, high, gain, gain_low, gain_high (AUROC
    over confidence, paired; see `measures.foretelling`), brier and skill (1 − Brier score over that of the mean p_Δ;
    both NaN for the baselines, which are no probabilities), n. The event is the change of an (image, trial).
    Conditions with fewer than `FEWEST` of either kind are left out.
    """
    found = []
    for (degradation, level), here in table.groupby(["degradation", "level"]):
        first = here[here["predictor"] == "gradient"]
        share, trials = first["measured"].to_numpy(), first["n_trials"].to_numpy()
        events = (share * trials).sum()
        if min(events, trials.sum() - events) < FEWEST:
            continue
        confidence = -first["confidence"].to_numpy(float)
        for name, sign in BASELINES.items():
            score = sign * first[name].to_numpy(float)
            row = dataclasses.asdict(foretelling(score, confidence, share, trials))
            found.append({"degradation": degradation, "level": level, "score": name, "passes": 1, **row,
                          "brier": np.nan, "skill": np.nan, "n": len(first)})  # fmt: skip
        for predictor, own in here.groupby("predictor"):
            score, share, trials = (own[key].to_numpy(float) for key in ("predicted", "measured", "n_trials"))
            confidence = -own["confidence"].to_numpy(float)
            row = dataclasses.asdict(foretelling(score, confidence, share, trials))
            brier = brier_score(score, share, trials)
            mean = np.full(len(own), np.average(share, weights=trials))
            found.append({"degradation": degradation, "level": level, "score": predictor,
                          "passes": int(own["passes"].max()), **row, "brier": brier,
                          "skill": 1 - brier / brier_score(mean, share, trials), "n": len(own)})  # fmt: skip
    return pd.DataFrame(found, columns=COLUMNS)
