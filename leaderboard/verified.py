"""Marks the entrants of a page of which a sample was computed again, by reports of `cnnsens-bench verify --json`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from cnnsens_bench.utils.errors import UserError, first_line


class VerifiedEntrant(BaseModel):
    """What a report says of one entrant: how many of its sampled rows agreed, differed and were not computed."""

    protocol: str
    dataset: str
    model: str
    defense: str
    weights_sha256: str
    total: int
    sampled: int
    agreed: int
    differed: int
    not_recomputed: int


class VerificationReport(BaseModel):
    """A report of `cnnsens-bench verify`; keys that are not needed here are ignored."""

    format: Literal["cnnsens_bench verification"]
    format_version: Literal[1]
    created: str
    entrants: list[VerifiedEntrant]


def mark_verified(content: dict[str, Any], reports: Sequence[Path]) -> None:
    """Set `recomputed` of each entrant of a page's data.

    Parameters
    ----------
    content
        What `page.data` returns. An entrant gets the numbers `sampled` and `total` of rows and the day `created` of the
        last report in which its whole sample agrees, and None where there is none or rows differ in any report.
    reports
        Reports in JSON. They are believed: only those of one's own verification should be given.

    Raises
    ------
    UserError
        Where a file is not such a report.
    """
    found: dict[tuple[str, ...], list[tuple[str, VerifiedEntrant]]] = {}
    for report in map(_read, reports):
        for one in report.entrants:
            key = (one.protocol, one.dataset, one.model, one.defense, one.weights_sha256)
            found.setdefault(key, []).append((report.created, one))
    for board in content["boards"]:
        for entrant in board["entrants"]:
            key = (
                board["protocol"],
                board["dataset"],
                entrant["network"],
                entrant["defense"],
                entrant["weights"] or "",
            )
            entrant["recomputed"] = _recomputed(sorted(found.get(key, []), key=lambda pair: pair[0]))


def _recomputed(reports: list[tuple[str, VerifiedEntrant]]) -> dict[str, Any] | None:
    if any(one.differed for _, one in reports):
        return None
    whole = [(created, one) for created, one in reports if one.agreed == one.sampled > 0]
    if not whole:
        return None
    created, one = whole[-1]
    return {"sampled": one.sampled, "total": one.total, "created": created[:10]}


def _read(file: Path) -> VerificationReport:
    try:
        return VerificationReport.model_validate(json.loads(file.read_bytes()))
    except OSError as error:
        raise UserError(f"--verified {file} cannot be read ({error.strerror})") from None
    except (ValidationError, ValueError) as error:
        reason = first_line(error, 120)
        raise UserError(f"--verified {file} is no report of cnnsens-bench verify --json ({reason})") from None
