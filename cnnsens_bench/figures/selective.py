"""How well scores tell right predictions from wrong ones: the numbers of the risk–coverage figure, and the tables."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from cnnsens_bench.measures.selective import (
    SelectiveSkill,
    accuracy_threshold,
    image_weights,
    risk_coverage_curve,
    selective_skill,
)
from cnnsens_bench.store import Store
from cnnsens_bench.store.schema import SQL
from cnnsens_bench.utils.errors import UserError

CONFIDENCE = "confidence"
"""The score that the others are compared with: the largest probability, of the degraded image itself."""
COVERAGES = np.arange(1, 101) / 100
CONDITION = ["protocol", "dataset", "model", "defense", "degradation", "level", "score"]
SKILLS = [field.name for field in dataclasses.fields(SelectiveSkill)]
CURVE = ["coverage", "risk", "threshold"]
KEPT = ["threshold", "kept_undegraded", "kept", "kept_accuracy", "n_images"]


class SelectiveEntrant(NamedTuple):
    """A model with a defense that has predictions on a data set under a protocol."""

    protocol: str
    dataset: str
    model: str
    defense: str


class ScoredCondition(NamedTuple):
    """The predictions of an entrant under one condition that have a score.

    Parameters
    ----------
    key
        The values of the columns `CONDITION`.
    rows
        The predictions: image_id, wrong, confidence, and `value`, the score, higher where a prediction is more certain.
    undegraded
        The undegraded images that have the score: image_id, wrong, and `value`.
    """

    key: tuple[str | float, ...]
    rows: pd.DataFrame
    undegraded: pd.DataFrame


def choose_entrants(store: Store, **wanted: str | None) -> list[SelectiveEntrant]:
    """Return the entrants of a store.

    Parameters
    ----------
    store
        The results.
    **wanted
        The `protocol`, `dataset`, `model` and `defense` of the entrants; None where they can have any.

    Raises
    ------
    UserError
        If the store has no predictions, or none of the names together.
    """
    entrants = [
        SelectiveEntrant(*row) for row in store.query(SQL["selection_entrants"]).itertuples(index=False, name=None)
    ]
    if not entrants:
        raise UserError(f"{store.path} has no predictions yet: a run brings them, python -m cnnsens_bench.run")
    narrowed = ""
    for column, value in wanted.items():
        known = sorted({getattr(entrant, column) for entrant in entrants})
        if value is not None and value not in known:
            raise UserError(f"{store.path} has no {column} '{value}'{narrowed}: it has {', '.join(known)}")
        entrants = [entrant for entrant in entrants if value in (None, getattr(entrant, column))]
        narrowed += "" if value is None else f" of the {column} '{value}'"
    return entrants


def scored_conditions(store: Store, entrant: SelectiveEntrant) -> Iterator[ScoredCondition]:
    """Yield each condition of an entrant with each score that it has.

    The scores are `confidence`; `undegraded_confidence` and `margin`, which belong to the undegraded image and are the
    same under all conditions; and, by the name of each predictor, the label change that it expects under the condition,
    which counts as less certain where it is larger. The last two need a run with `sensitivity=on`.
    """
    rows = store.query(SQL["selection_rows"], [*entrant])
    margins = store.query(SQL["selection_margins"], [*entrant]).set_index("image_id")["margin"]
    predicted = {}
    if len(margins):
        expected = store.query(SQL["selection_predictions"], [*entrant])
        predicted = dict(iter(expected.groupby(["degradation", "level"])))
    undegraded = rows[rows["degradation"] == "none"]
    confident = undegraded.set_index("image_id")[CONFIDENCE]
    for (degradation, level), own in rows.groupby(["degradation", "level"]):
        per_image = {} if degradation == "none" else {"undegraded_confidence": confident}
        per_image |= {"margin": margins} if len(margins) else {}
        if (degradation, level) in predicted:
            for predictor, answers in predicted[degradation, level].groupby("predictor"):
                per_image[str(predictor)] = -answers.set_index("image_id")["predicted"]
        scores = {CONFIDENCE: (own[CONFIDENCE], undegraded[CONFIDENCE])}
        scores |= {
            name: (own["image_id"].map(values), undegraded["image_id"].map(values))
            for name, values in per_image.items()
        }
        for name, (values, before) in scores.items():
            tables = [
                table.assign(value=one).dropna(subset="value") for table, one in ((own, values), (undegraded, before))
            ]
            if len(tables[0]):
                yield ScoredCondition((*entrant, degradation, level, name), *tables)


def selective_table(
    store: Store, accuracy: float, coverage: float, resamples: int, **wanted: str | None
) -> pd.DataFrame:
    """Return how well each score tells right predictions from wrong ones, under each condition of each entrant.

    Parameters
    ----------
    store
        The results.
    accuracy
        The accuracy on undegraded images for which thresholds are chosen, in (0, 1].
    coverage
        The share of the predictions that is kept for `accuracy`, in (0, 1].
    resamples
        The largest number of bootstrap resamples; 0 for no intervals.
    **wanted
        As for `choose_entrants`.

    Returns
    -------
    pandas.DataFrame
        A row for each entrant, condition and score: the columns `CONDITION`, `SKILLS` and `KEPT`.

    Raises
    ------
    UserError
        As `choose_entrants`, and for shares that are not in (0, 1].
    """
    for name, share in (("accuracy", accuracy), ("coverage", coverage)):
        if not 0 < share <= 1:
            raise UserError(f"{name}={share!r} is not in (0, 1]: it is a share, such as 0.95")
    found = []
    for entrant in choose_entrants(store, **wanted):
        for condition in scored_conditions(store, entrant):
            rows = condition.rows
            wrong, image = rows["wrong"].to_numpy(bool), rows["image_id"].to_numpy()
            skill = selective_skill(
                rows["value"].to_numpy(), rows[CONFIDENCE].to_numpy(), image, wrong, coverage, resamples
            )
            found.append((*condition.key, *dataclasses.astuple(skill), *_kept(condition, accuracy)))
    return pd.DataFrame(found, columns=[*CONDITION, *SKILLS, *KEPT])


def _kept(condition: ScoredCondition, accuracy: float) -> tuple[float, float, float, float, int]:
    """Return the values of `KEPT`: the threshold of the undegraded images, and what it keeps."""
    before, rows = condition.undegraded, condition.rows
    number, weights = image_weights(rows["image_id"].to_numpy())
    n_images = int(number.max()) + 1
    if before.empty:
        return np.nan, np.nan, np.nan, np.nan, n_images
    values, wrong = before["value"].to_numpy(float), before["wrong"].to_numpy(bool)
    threshold, share = accuracy_threshold(values, wrong, np.ones(len(before)), accuracy)
    kept = weights * (rows["value"].to_numpy(float) >= threshold)
    right = np.sum(kept * ~rows["wrong"].to_numpy(bool))
    return (
        threshold,
        share,
        float(kept.sum() / weights.sum()),
        float(right / kept.sum()) if kept.any() else np.nan,
        n_images,
    )


def curve_table(store: Store, **wanted: str | None) -> pd.DataFrame:
    """Return the risk–coverage curves by each score under each condition of each entrant.

    Parameters
    ----------
    store
        The results.
    **wanted
        As for `choose_entrants`.

    Returns
    -------
    pandas.DataFrame
        The columns `CONDITION`, then for each `coverage` of 0.01, 0.02, …, 1: the `risk`, which is the error rate among
        the predictions that are kept, and the `threshold`, the lowest score among them.
    """
    tables = [entrant_curves(store, entrant) for entrant in choose_entrants(store, **wanted)]
    return pd.concat(tables, ignore_index=True)


def entrant_curves(store: Store, entrant: SelectiveEntrant) -> pd.DataFrame:
    """Return the rows of `curve_table` of one entrant."""
    tables = []
    for condition in scored_conditions(store, entrant):
        rows = condition.rows
        _, weights = image_weights(rows["image_id"].to_numpy())
        values, wrong = rows["value"].to_numpy(float), rows["wrong"].to_numpy(bool)
        risk, threshold = risk_coverage_curve(values, wrong, weights, COVERAGES)
        keys = dict(zip(CONDITION, condition.key, strict=True))
        tables.append(pd.DataFrame({**keys, "coverage": COVERAGES, "risk": risk, "threshold": threshold}))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*CONDITION, *CURVE])
