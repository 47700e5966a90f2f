"""The file `results.json` beside a database: what its views say of runs and entrants, for programs without DuckDB.

The classes below are its schema, which is published as `results.schema.json` in this folder.
"""

import json
from datetime import UTC, datetime
from importlib import resources
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from cnnsens_bench import __version__
from cnnsens_bench.store.database import Store
from cnnsens_bench.store.schema import SCHEMA_VERSION, SQL
from cnnsens_bench.store.submission.redact import public_json

RESULTS_FILE = "results.json"
SCHEMA_FILE = "results.schema.json"
DIGITS = 9
"""Decimals of numbers: sums over images differ beyond them from query to query."""
ENTRANT = ["protocol", "dataset", "model", "defense"]

Share = Annotated[Annotated[float, Field(ge=0, le=1)] | None, Field(description="null where it is not known")]


class _Record(BaseModel):
    """An object of the file, with exactly these keys."""

    model_config = ConfigDict(extra="forbid")


class ConditionRecord(_Record):
    """One condition of an entrant. Shares are of (image, trial); low and high bound their 95 % intervals."""

    degradation: str = Field(description="the name of the degradation; none for the undegraded images")
    level: float
    n_images: int
    n_trials: int
    accuracy: Share
    accuracy_low: Share
    accuracy_high: Share
    label_change: Share
    label_change_low: Share
    label_change_high: Share


class EntrantRecord(_Record):
    """A model with a defense on a board. Means are over the levels of a degradation, then over degradations."""

    model: str
    architecture: str | None
    defense: str
    weights_sha256: str | None
    num_parameters: int | None
    input_size: int | None = Field(description="the side of the network's input in pixels")
    n_images: int
    n_conditions: int = Field(description="the number of degraded conditions")
    evaluated_share: Share
    accuracy: Share = Field(description="the accuracy on undegraded images")
    accuracy_low: Share
    accuracy_high: Share
    mean_degraded_accuracy: Share
    mean_label_change: Share
    worst_degradation: str | None
    worst_level: float | None
    worst_accuracy: Share
    images_per_second: float | None = Field(description="through the defense's filter and the network alone")
    device: str | None
    threads: int | None
    runs: list[str] = Field(description="the run_id of each run that made its predictions")
    conditions: list[ConditionRecord]


class BoardRecord(_Record):
    """The entrants of one protocol on one data set; only these can be compared. The best mean accuracy comes first."""

    protocol: str
    dataset: str
    entrants: list[EntrantRecord]


class RunRecord(_Record):
    """A run. Folders of the machine are left out of its config and environment."""

    run_id: str
    suite: str
    study: str | None
    protocol: str
    status: Literal["running", "done", "incomplete", "interrupted"]
    started_at: datetime
    finished_at: datetime | None
    failed_images: int
    environment: dict[str, str | None]
    config: dict[str, Any]


class ResultsRecord(_Record):
    """The results of a database of cnnsens_bench."""

    model_config = ConfigDict(extra="forbid", title="cnnsens_bench results")

    format: Literal["cnnsens_bench results"] = "cnnsens_bench results"
    format_version: Literal[1] = 1
    schema_version: int = Field(SCHEMA_VERSION, description="the version of the database's tables")
    program_version: str = __version__
    created: datetime
    runs: list[RunRecord]
    boards: list[BoardRecord]


def results_json(store: Store) -> bytes:
    """Return the content of `results.json` for a database.

    Parameters
    ----------
    store
        The database, which must be open for questions.

    Returns
    -------
    bytes
        JSON in UTF-8 that follows `results.schema.json`. It is computed from the views and holds no single prediction.
    """
    conditions = _records(store.query(SQL["conditions_of_results"]))
    by_entrant: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in conditions:
        by_entrant.setdefault(_taken(row, ENTRANT), []).append(row)
    boards: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in _records(store.query(SQL["entrants_of_results"])):
        key = _taken(row, ENTRANT)
        row |= {"model": key[2], "defense": key[3], "runs": list(row["runs"])}
        boards.setdefault(key[:2], []).append(row | {"conditions": by_entrant.get(key, [])})
    content = ResultsRecord.model_validate(
        {
            "created": datetime.now(UTC).replace(microsecond=0),
            "runs": [_run(row) for row in _records(store.query(SQL["runs_of_results"]))],
            "boards": [{"protocol": one[0], "dataset": one[1], "entrants": rows} for one, rows in boards.items()],
        }
    )
    return content.model_dump_json().encode() + b"\n"


def results_schema() -> str:
    """Return the text of the published JSON schema, `results.schema.json`."""
    return resources.files("cnnsens_bench.store").joinpath(SCHEMA_FILE).read_text("utf-8")


def current_schema() -> str:
    """Return the JSON schema of the classes of this file, which a test compares with the published one."""
    schema = ResultsRecord.model_json_schema(mode="serialization")
    del schema["properties"]["program_version"]["default"]
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=1) + "\n"


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as dictionaries in which nothing is NaN, and numbers have `DIGITS` decimals."""
    rows: list[dict[str, Any]] = []
    for found in table.to_dict("records"):
        row: dict[str, Any] = {}
        for column, value in found.items():
            known = isinstance(value, np.ndarray) or not pd.isna(value)
            row[str(column)] = round(value, DIGITS) if known and isinstance(value, float) else value if known else None
        rows.append(row)
    return rows


def _taken(row: dict[str, Any], names: list[str]) -> tuple[str, ...]:
    """Remove columns from a row, and return their values."""
    return tuple(row.pop(name) for name in names)


def _run(row: dict[str, Any]) -> dict[str, Any]:
    config, environment = (json.loads(public_json(row[name] or "{}")) for name in ("config", "environment"))
    return row | {"config": config, "environment": environment, "study": config.get("study")}
