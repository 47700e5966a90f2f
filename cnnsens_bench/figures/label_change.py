"""How well each score foretells that a label will change: the numbers behind the figure and the table."""

import dataclasses

import numpy as np
import pandas as pd

from cnnsens_bench.measures.skill import PredictionSkill, brier_score, prediction_skill

BASELINES = {"confidence": -1, "entropy": 1, "margin": -1}
"""What needs no gradient → the sign with which it grows with the chance of a change."""
COLUMNS = [
    "degradation",
    "level",
    "score",
    "passes",
    *(f.name for f in dataclasses.fields(PredictionSkill)),
    "brier",
    "skill",
    "n",
]
FEWEST = 5
"""Changes, and constancies, below which a ranking of images says nothing."""


def label_change_check(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the view `predicted_label_change`, of one model → a row per degradation × level × score.

    Columns: degradation, level, score, passes (1 for the baselines), auroc, low, high, gain, gain_low, gain_high (AUROC
    over confidence, paired; see `prediction_skill`), brier and skill (1 − Brier score over that of the mean p_Δ;
    both NaN for the baselines, which are no probabilities), n. The event is the change of an (image, trial).
    Conditions with fewer than `FEWEST` of either kind are left out.
    """
    found = []
    for (degradation, level), here in table.groupby(["degradation", "level"]):
        own = {str(name): rows.sort_values("image_id") for name, rows in here.groupby("predictor")}
        most = max(len(rows) for rows in own.values())
        # A predictor that saw fewer images (a run broke off) is not to be compared with the others.
        own = {name: rows for name, rows in own.items() if len(rows) == most}
        first = next(iter(own.values()))
        share, trials = first["measured"].to_numpy(), first["n_trials"].to_numpy()
        events = (share * trials).sum()
        if min(events, trials.sum() - events) < FEWEST:
            continue
        scores = {name: sign * first[name].to_numpy(float) for name, sign in BASELINES.items()}
        scores |= {name: rows["predicted"].to_numpy(float) for name, rows in own.items()}
        mean = brier_score(np.full(most, np.average(share, weights=trials)), share, trials)
        for name, result in prediction_skill(scores, "confidence", share, trials).items():
            brier = brier_score(scores[name], share, trials) if name in own else np.nan
            passes = int(own[name]["passes"].max()) if name in own else 1
            row = {"degradation": degradation, "level": level, "score": name, "passes": passes}
            found.append({**row, **dataclasses.asdict(result), "brier": brier, "skill": 1 - brier / mean, "n": most})
    return pd.DataFrame(found, columns=COLUMNS)
