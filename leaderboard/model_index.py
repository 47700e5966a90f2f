"""Writes the results of an entrant in the fields that the model cards of Hugging Face have for evaluation results."""

import math
import re
from collections.abc import Iterator
from typing import Any

from cnnsens_bench.measures import measures
from cnnsens_bench.measures.failure_points import failure_text
from cnnsens_bench.utils.formatting import plain
from leaderboard.conditions import condition_text
from leaderboard.entrant_facts import EntrantFacts

Metric = dict[str, Any]
HUB = re.compile(r"(?:hf://datasets/)?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?(?:/.*)?")
"""A data set of the hub, as `dataset.options.hf` and `dataset.root` name it, with its revision."""
DIGITS = 6
"""The significant digits of levels."""
TASK = {"type": "image-classification", "name": "Image Classification"}
HEADINGS = {"accuracy": "Accuracy", "label_change": "Label change p_Δ"}
CRITERIA = {"half_accuracy": "accuracy halfway to chance", "label_change": "p_Δ passes 10 %"}
KINDS = {"percent": "share", "decimal": "nats", "count": "count", "significant": "images per second"}
"""By the notation of a measure: the unit of its value."""


def model_index(name: str, facts: list[EntrantFacts], url: str | None = None) -> dict[str, Any]:
    """Return the metadata of a model card, in types that JSON and YAML have.

    Parameters
    ----------
    name
        The entrant.
    facts
        What is known of it on each board.
    url
        Where the results can be looked up.

    Returns
    -------
    dict
        `tags` and `model-index`, with a result for each board. Shares are in [0, 1].
    """
    results = []
    for one in facts:
        result = {"task": TASK, "dataset": _dataset(one), "metrics": list(_metrics(one))}
        results.append(result | ({"source": {"name": "cnnsens_bench", "url": url}} if url else {}))
    return {"tags": ["image-classification", "robustness"], "model-index": [{"name": plain(name), "results": results}]}


def _dataset(facts: EntrantFacts) -> dict[str, Any]:
    board, config = facts.board, (facts.configs or [{}])[0]
    dataset = config.get("dataset") or {}
    options = (dataset.get("options") or {}) if isinstance(dataset, dict) else {}
    root = str(dataset.get("root") or "") if isinstance(dataset, dict) else ""
    hub = HUB.fullmatch(str(options.get("hf") or (root if root.startswith("hf://") else "")))
    found = {"name": plain(board["dataset"]), "type": hub[1] if hub else plain(board["dataset"])}
    if hub and options.get("config"):
        found["config"] = plain(options["config"])
    found["split"] = "test"
    if hub and hub[2]:
        found["revision"] = hub[2]
    return found | {"args": {"protocol": board["protocol"], "images": facts.entrant["images"]}}


def _metrics(facts: EntrantFacts) -> Iterator[Metric]:
    board, entrant = facts.board, facts.entrant
    averaged = [condition_text(**_key(board, number)) for number in facts.averaged]
    for name in sorted(entrant["stats"], key=lambda name: name != "accuracy"):  # the others keep their order
        spec, (value, *bounds) = measures[name], entrant["stats"][name]
        arguments: dict[str, Any] = {"unit": KINDS[spec.notation]}
        if spec.ranked_among == "comparable":
            arguments["conditions"] = averaged
        yield _metric(name, spec.heading, (int(value) if spec.notation == "count" else value, *bounds), arguments)
    for kind, column in (("accuracy", "accuracy"), ("label_change", "change")):
        for number, interval in enumerate(entrant[column]):
            key = _key(board, number)
            if interval and key["degradation"] != "none":
                heading = f"{HEADINGS[kind]} under {condition_text(**key)}"
                arguments = key | {"trials": board["conditions"][number]["trials"], "images": facts.images[number]}
                yield _metric(kind, heading, interval, arguments)
    for point in facts.failure_points.to_dict("records"):
        if not math.isnan(point["level"]):
            text = failure_text(point["degradation"], *(point[name] for name in ("level", "low", "high", "strongest")))
            value = text if math.isinf(point["level"]) else _rounded(point["level"])
            heading = f"Failure point of {point['degradation']}: {CRITERIA[point['criterion']]}"
            arguments = {name: point[name] for name in ("degradation", "direction", "criterion")}
            arguments["threshold"] = _rounded(point["threshold"])
            bounds = (_rounded(point["low"]), _rounded(point["high"]))
            yield _metric("failure_point", heading, (value, *bounds), arguments)


def _key(board: dict[str, Any], number: int) -> dict[str, Any]:
    condition = board["conditions"][number]
    return {"degradation": condition["degradation"], "level": float(condition["level"])}


def _rounded(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")


def _metric(kind: str, heading: str, interval: Any, arguments: dict[str, Any]) -> Metric:
    """Return a metric; bounds that are not known or not finite are left out."""
    value, low, high = interval
    bounds = {
        name: bound for name, bound in (("low", low), ("high", high)) if bound is not None and math.isfinite(bound)
    }
    own = {name: plain(text) if isinstance(text, str) else text for name, text in arguments.items()}
    return {"type": kind, "value": value, "name": plain(heading), "args": own | bounds}
