"""How well each score predicts that a label changes: the numbers of the figure and of the tables."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pandas as pd

from cnnsens_bench.measures.skill import PredictionSkill, brier_score, prediction_skill

BASELINES = {"confidence": -1, "entropy": 1, "margin": -1}
"""The scores that need no gradient, and the sign with which each grows with the chance of a change."""
SKILLS = [field.name for field in dataclasses.fields(PredictionSkill)]
COLUMNS = ["degradation", "level", "score", "passes", *SKILLS, "brier", "skill", "n"]
FEWEST = 5
"""The least number of changed and of unchanged labels with which a ranking of images has a meaning."""


def label_change_check(table: pd.DataFrame) -> pd.DataFrame:
    """Compare predicted with measured label changes.

    The event is the change of the label of an image in a trial.

    Parameters
    ----------
    table
        Rows of the view `predicted_label_change`, of one model.

    Returns
    -------
    pandas.DataFrame
        A row for each degradation, level and score, without conditions that have fewer than `FEWEST` changed or
        unchanged labels. Its columns are:

        - `passes`: the cost of the score in forward and backward passes; 1 for the baselines.
        - `auroc`, `low`, `high`, `gain`, `gain_low`, `gain_high`: the area under the ROC curve and what it has more
          than that of confidence, with paired intervals.
        - `brier`, `skill`: the Brier score, and 1 less its ratio to that of the mean p_Δ; NaN for the baselines, which
          are no probabilities.
        - `n`: the number of images.
    """
    found: list[dict[str, object]] = []
    for (degradation, level), rows in table.groupby(["degradation", "level"]):
        condition = {"degradation": degradation, "level": level}
        found += [condition | row for row in _check_condition(rows)]
    return pd.DataFrame(found, columns=COLUMNS)


def _check_condition(rows: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Yield a row for each score under one degradation and level, or nothing where labels hardly change."""
    by_predictor = {str(name): own.sort_values("image_id") for name, own in rows.groupby("predictor")}
    count = max(len(own) for own in by_predictor.values())
    # A predictor with fewer images, after an interrupted run, cannot be compared with the others.
    by_predictor = {name: own for name, own in by_predictor.items() if len(own) == count}
    first = next(iter(by_predictor.values()))
    share, trials = first["measured"].to_numpy(), first["n_trials"].to_numpy()
    changes = (share * trials).sum()
    if min(changes, trials.sum() - changes) < FEWEST:
        return
    scores = {name: sign * first[name].to_numpy(float) for name, sign in BASELINES.items()}
    scores |= {name: own["predicted"].to_numpy(float) for name, own in by_predictor.items()}
    brier_of_mean = brier_score(np.full(count, np.average(share, weights=trials)), share, trials)
    for name, result in prediction_skill(scores, "confidence", share, trials).items():
        brier = brier_score(scores[name], share, trials) if name in by_predictor else np.nan
        passes = int(by_predictor[name]["passes"].max()) if name in by_predictor else 1
        measures = {**dataclasses.asdict(result), "brier": brier, "skill": 1 - brier / brier_of_mean, "n": count}
        yield {"score": name, "passes": passes, **measures}
