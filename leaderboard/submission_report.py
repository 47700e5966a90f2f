"""Says of a submission what was checked, and what only a computation can tell."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cnnsens_bench.store.submission.transfer import CheckedSubmission, check_submission

CHECKED = (
    "checked: the files and their SHA-256; columns, types and ranges; names; that labels agree, that no row comes "
    "twice and that every image has its undegraded row; and that the card says what the tables hold"
)
NOT_CHECKED = "not checked: that networks made these predictions, and that they are of the images that the names say"
PUBLIC = ("auto", "random")
"""Values of `weights` that need no file of the submitter."""


def submission_report(folder: Path) -> str:
    """Check a submission, and return what was checked in it and what was not.

    Parameters
    ----------
    folder
        The submission.

    Returns
    -------
    str
        Some lines for a person.

    Raises
    ------
    UserError
        At the first fault, as `check_submission` does.
    """
    return "\n".join(_lines(folder, check_submission(folder)))


def _lines(folder: Path, submission: CheckedSubmission) -> Iterator[str]:
    card = submission.card
    rows = card.files["predictions.parquet"].rows
    datasets = ", ".join(dict.fromkeys(one.dataset for one in card.protocols))
    author = f", by {card.by}" if card.by else ""
    yield f"{folder} is good: {rows} predictions of {len(card.entrants)} entrants on {datasets}{author}"
    yield CHECKED
    yield NOT_CHECKED
    own = {model: sentence for model in dict.fromkeys(one.model for one in card.entrants)
           if (sentence := _own_part(model, submission))}  # fmt: skip
    computable = len({one.model for one in card.entrants} - set(own))
    if computable:
        networks = "1 network" if computable == 1 else f"{computable} networks"
        yield f"  {networks} can be computed again by others: cnnsens-bench verify {folder}"
    yield from (f"  {model}: {sentence}" for model, sentence in own.items())


def _own_part(model: str, submission: CheckedSubmission) -> str:
    """Say what only the submitter has of a network; "" where others can compute it."""
    for config in map(json.loads, submission.configs):
        models = config.get("models")
        for entry in models if isinstance(models, list) else []:
            own: Mapping[str, Any] = entry if isinstance(entry, dict) else {"name": entry}
            if own.get("name") == model:
                return _reason(own, config)
    return "the config of its run does not name it, so nobody else can compute it"


def _reason(own: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    trainings = [part for part in (config.get("training"), own.get("training")) if isinstance(part, dict)]
    epochs = next((part["epochs"] for part in reversed(trainings) if "epochs" in part), None)
    if own.get("weights", config.get("weights", "auto")) not in PUBLIC or str(own["name"]).startswith("python/"):
        return "its weights or its code are a file of the submitter, so nobody else can compute it"
    if config.get("fine_tune") == "always" and epochs:
        return "it was fine-tuned, so only those who have its checkpoint in their cache can compute it"
    return ""
