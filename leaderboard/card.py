"""Writes the card of an entrant: what it does on degraded images, in Markdown and in the fields of model cards."""

import json
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import yaml

from cnnsens_bench.measures import measures
from cnnsens_bench.measures.failure_points import failure_text
from cnnsens_bench.utils.atomic import write_atomically
from cnnsens_bench.utils.errors import UserError
from leaderboard.conditions import condition_text
from leaderboard.entrant_facts import EntrantFacts, entrant_facts
from leaderboard.markdown import bullets, escaped, row
from leaderboard.model_index import CRITERIA, model_index
from leaderboard.read import read

CARD, INDEX = "README.md", "model-index.json"
MARKER = "written by: leaderboard card"
"""The comment by which a card is known, so that nothing else is overwritten."""
UNBROKEN = 1_000_000
"""A width at which YAML breaks no line."""


class PlainDumper(yaml.SafeDumper):
    """Writes a list again where it occurs a second time, instead of a reference to it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_card(paths: Sequence[Path], name: str, out: Path, url: str | None = None) -> tuple[Path, Path]:
    """Write the card of an entrant.

    Parameters
    ----------
    paths
        Results databases of runs.
    name
        The entrant, as `model` or `model:defense`.
    out
        The folder that gets `README.md` and `model-index.json`. It is made if it does not exist.
    url
        Where the results can be looked up.

    Returns
    -------
    tuple of Path
        The two files.

    Raises
    ------
    UserError
        Where there is no such entrant, or the folder has another README.md or cannot be written.
    """
    facts = entrant_facts(read(paths), name)
    metadata = model_index(name, facts, url)
    card, index = out / CARD, out / INDEX
    try:
        if card.exists() and MARKER not in card.read_text("utf-8", "replace"):
            raise UserError(f"{card} is there and was not written by this command: choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(card, card_text(name, facts, metadata))
        write_atomically(index, json.dumps(metadata, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}): choose another --out") from None
    return card, index


def card_text(name: str, facts: Sequence[EntrantFacts], metadata: dict[str, Any]) -> str:
    """Return the text of a card: the metadata as YAML between two lines of dashes, then Markdown.

    Parameters
    ----------
    name
        The entrant.
    facts
        What is known of it on each board.
    metadata
        What `model_index` returns.
    """
    front = yaml.dump(metadata, Dumper=PlainDumper, allow_unicode=True, sort_keys=False, width=UNBROKEN)
    boards = "\n".join(_template("card_board.md").substitute(_sections(one)) for one in facts)
    return _template("card.md").substitute(metadata=front, marker=MARKER, name=escaped(name), boards=boards.rstrip())


def _template(name: str) -> Template:
    return Template(resources.files("leaderboard").joinpath("templates", name).read_text(encoding="utf-8"))


def _sections(facts: EntrantFacts) -> dict[str, str]:
    """Return what stands in the place of each name of the board's template."""
    board, entrant = facts.board, facts.entrant
    size = f", input of {entrant['input_size']} pixels" if entrant["input_size"] else ""
    parameters = f", {entrant['parameters']:,} parameters" if entrant["parameters"] else ""
    weights = f", weights {entrant['weights'][:8]}" if entrant["weights"] else ""
    return {
        "title": f"{escaped(board['dataset'])}, protocol {escaped(board['protocol'])}",
        "summary": escaped(f"{entrant['images']} test images{size}{parameters}{weights}."),
        "measures": "\n".join(_measure_rows(facts)),
        "averaged": escaped(_averaged(facts)),
        "conditions": "\n".join(_condition_rows(facts)),
        "failure_points": _failure_points(facts),
        "untested": bullets([escaped(sentence) for sentence in _untested(facts)]),
        "terms": bullets(
            [f"{escaped(term)}: {escaped(text.rstrip('.'))}." for term, text in [*board["terms"], *_provenance(facts)]]
        ),
    }


def _measure_rows(facts: EntrantFacts) -> Iterator[str]:
    for name, (value, low, high) in facts.entrant["stats"].items():
        spec = measures[name]
        unit = f" ({spec.unit})" if spec.unit else ""
        interval = f"{spec.text(low)} – {spec.text(high)}" if low is not None and high is not None else "–"
        yield row([escaped(f"{spec.heading}{unit}"), spec.text(value), interval])


def _averaged(facts: EntrantFacts) -> str:
    """Say which conditions the means are over."""
    own = [condition_text(facts.board["conditions"][i]["degradation"], facts.board["conditions"][i]["level"])
           for i in facts.averaged]  # fmt: skip
    return f"Means and the worst condition are over {len(own)} degraded conditions: {', '.join(own) or 'none'}."


def _condition_rows(facts: EntrantFacts) -> Iterator[str]:
    for number, condition in enumerate(facts.board["conditions"]):
        if facts.images[number]:
            text = condition_text(condition["degradation"], condition["level"])
            shares = (_share(facts.entrant[kind][number]) for kind in ("accuracy", "change"))
            yield row([escaped(text), str(facts.images[number]), *(cell for cells in shares for cell in cells)])


def _share(interval: Sequence[float] | None) -> tuple[str, str]:
    if not interval:
        return "–", "–"
    value, low, high = (f"{100 * share:.1f}" for share in interval)
    return value, f"{low} – {high}"


def _failure_points(facts: EntrantFacts) -> str:
    """Return a table of the levels at which the entrant gives way, or a sentence where no degradation has levels."""
    points = facts.failure_points
    if points.empty:
        return "No degradation with levels was tested."
    lines = [row(["degradation", *CRITERIA.values()]), "|---|---:|---:|"]
    for (degradation, _), own in points.groupby(["degradation", "direction"], sort=False):
        texts = {
            one["criterion"]: failure_text(degradation, *(one[name] for name in ("level", "low", "high", "strongest")))
            for one in own.to_dict("records")
        }
        lines.append(row([escaped(degradation), *(escaped(texts[criterion]) for criterion in CRITERIA)]))
    return "\n".join(lines)


def _untested(facts: EntrantFacts) -> Iterator[str]:
    """Yield what the numbers leave out."""
    board, entrant = facts.board, facts.entrant
    texts = [condition_text(one["degradation"], one["level"]) for one in board["conditions"]]
    yield "Only the conditions of the table above were tested, on test images of this data set."
    if missing := [texts[number] for number in entrant["missing"]]:
        yield f"Other entrants of the board were tested under conditions that this one lacks: {', '.join(missing)}."
    if entrant["images"] < board["n_images"]:
        yield f"It lacks {board['n_images'] - entrant['images']} of the {board['n_images']} images of the board."
    if board["budget"]:
        share = f"{100 * entrant['share']:.1f} % of its degraded cells were evaluated. " if entrant["share"] else ""
        yield share + board["budget"]
    else:
        most = max(facts.images)
        if lacking := [
            f"{text} ({most - count})" for text, count in zip(texts, facts.images, strict=True) if 0 < count < most
        ]:
            yield f"Images that failed under a condition are left out there, so many of {most}: {', '.join(lacking)}."
    own = [one for one in board["failures"] if one["run"] in entrant["runs"]]
    for stage in sorted({one["stage"] for one in own}):
        count = sum(one["images"] for one in own if one["stage"] == stage)
        yield f"{count} images failed while they were processed (stage {stage})."
    for run in facts.runs:
        if run["status"] != "done":
            yield f"The run of {run['started']} UTC has the status {run['status']}."
    if absent := [measures[name].heading for name in ("ece", "nll", "top5") if name not in entrant["stats"]]:
        yield f"The database does not hold what these measures need: {', '.join(absent)}."


def _provenance(facts: EntrantFacts) -> Iterator[tuple[str, str]]:
    """Yield the terms that say where the numbers come from."""
    if facts.entrant["view"]:
        yield "View", str(facts.entrant["view"])
    if facts.entrant["outputs"]:
        yield "Outputs of this network", str(facts.entrant["outputs"])
    for run in facts.runs:
        details = [run["command"], run["commit"] and f"commit {run['commit']}", run["versions"], run["device"]]
        yield f"Run of {run['started']} UTC", "; ".join(filter(None, details)) or run["suite"]
