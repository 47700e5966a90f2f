"""Writes the web page: the data of the boards, embedded in one file. What lies beside it is written by `beside.py`."""

import json
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsens_bench.camera.report import read_report
from cnnsens_bench.figures.style import architecture_styles
from cnnsens_bench.measures import measures
from cnnsens_bench.utils.atomic import write_atomically
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import level_text
from cnnsens_bench.utils.sql import statements
from leaderboard.aggregate import Board, boards
from leaderboard.beside import write_beside
from leaderboard.board_summary import board_summary
from leaderboard.budget import budget_text
from leaderboard.camera import add_camera
from leaderboard.decisions import add_decisions
from leaderboard.folding import fold
from leaderboard.gallery import take_up_gallery
from leaderboard.history import keep_version, next_version, shown_changes
from leaderboard.ids import board_id, entrant_id
from leaderboard.outcomes import build_key
from leaderboard.provenance import Matching, command, protocol_terms, reference_text
from leaderboard.ranking import BoardEntrant
from leaderboard.read import LoadedResults, read
from leaderboard.tradeoff import family, undefended
from leaderboard.verified import mark_verified

DIGITS = 6
"""Decimals of the numbers in the page's data."""
ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}
"""How JSON inside HTML writes the characters that could end its element or a line."""


SCRIPTS = (
    "state.js",
    "table.js",
    "charts.js",
    "tradeoff.js",
    "decisions.js",
    "outcomes.js",
    "compare.js",
    "boards.js",
    "numbers.js",
    "pictures.js",
    "page.js",
    "changes.js",
)
"""The templates that make the page's script, in their order."""


def build(
    paths: Sequence[Path],
    out: Path,
    reference: str,
    verified: Sequence[Path] = (),
    history: bool = False,
    camera: Path | None = None,
    pictures: Path | None = None,
) -> Path:
    """Write the page of some databases.

    Parameters
    ----------
    paths
        Results databases of runs.
    out
        The folder of the page, which is made if it does not exist.
    reference
        What mCE is relative to: a model, or published error rates such as `published:alexnet`.
    verified
        Reports of `cnnsens-bench verify --json`, which give entrants the badge "recomputed".
    history
        Whether the page is kept in `<out>/versions` where its numbers differ from the last version's, and shows what
        has changed.
    pictures
        The folder of a gallery of images, which is copied to `<out>/pictures`; None for the one that is there, if any.

    Returns
    -------
    Path
        The page, `<out>/index.html`. What it loads when it is asked to lies in `<out>/data`.

    Raises
    ------
    UserError
        Where a database or the camera's file cannot be read, or the page cannot be written.
    """
    report = read_report(camera) if camera else None
    results = read(paths)
    found = boards(results, reference)
    content = data(results, reference, found)
    mark_verified(content, verified)
    add_decisions(content, results, found)
    add_camera(content, results, found, report)
    content["board_summary"] = board_summary(results, found)
    version, is_another = next_version(content, out) if history else (None, False)
    file = out / "index.html"
    try:
        content["pictures"] = take_up_gallery(pictures, out)
        text = page(fold(content | {"changes": shown_changes(version, out) if version else None}))
        write_beside(results, found, out / "data")
        write_atomically(file, text)
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror}): choose another --out") from None
    if version and is_another:
        keep_version(version, out)
    return file


def page(content: dict[str, Any]) -> str:
    """Return the text of the page.

    Parameters
    ----------
    content
        What `data` returns, folded or not. Every `<`, `>` and `&` of it is escaped, so that no name can end the element
        it is in.

    Returns
    -------
    str
        HTML that needs no network, and no other file until the reader compares two entrants or comes to the images.
    """
    escaped = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(ESCAPES)
    # UTF-8 cannot encode lone surrogates, which a name may contain.
    escaped = escaped.encode("utf-8", "replace").decode()
    scripts = "\n".join(_template(name) for name in SCRIPTS)
    inserted = {"style": _template("page.css"), "data": escaped, "script": scripts}
    return re.sub(r"/\* (style|data|script) \*/", lambda mark: inserted[mark[1]], _template("page.html"))


def data(results: LoadedResults, reference: str, found: Sequence[Board] | None = None) -> dict[str, Any]:
    """Return everything that the page shows, in the types of JSON.

    Parameters
    ----------
    results
        What the databases hold.
    reference
        As in `build`.
    found
        The boards, where they are computed already.

    Returns
    -------
    dict
        The measures (`columns`), runs, statements that make tables of the rows (`sql`), and boards; boards with most
        entrants come first.
    """
    used = {run_id for ids in results.run_ids.values() for run_id in ids}
    runs = {row["run_id"]: _run(row) for row in results.runs.to_dict("records") if row["run_id"] in used}
    return {
        "built": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "databases": _file_names(results.paths),
        "reference": reference,
        "columns": [
            {key: value for key, value in vars(spec).items() if key not in ("function", "ratios", "resampled")}
            for spec in measures.values()
        ],
        "runs": runs,
        "sql": {name[5:]: text for name, text in statements("leaderboard").items() if name.startswith("page_")},
        "boards": sorted(
            (_board(results, board, reference) for board in (found or boards(results, reference))),
            key=lambda one: (-len(one["entrants"]), one["dataset"], one["protocol"]),
        ),
    }


def _board(results: LoadedResults, board: Board, reference: str) -> dict[str, Any]:
    members = results.entrants[results.entrants["board"] == board.board].set_index("entrant")
    looks = _looks(members, results.entrants)
    ids = {entrant: entrant_id(row) for entrant, row in members.iterrows()}
    without_defense = undefended(members)
    first = members.iloc[0]
    run_ids = sorted({run_id for entrant in members.index for run_id in results.run_ids[entrant]})
    runs = results.runs[results.runs["run_id"].isin(run_ids)]
    configs = [json.loads(config or "{}") for config in runs["config"]]
    texts = [level_text(row.degradation, row.level) for row in board.conditions.itertuples()]
    conditions = board.conditions.assign(text=texts)
    budgeted = board.board in results.budgeted
    shares = results.query("evaluated_shares", board=board.board).set_index("entrant") if budgeted else None
    counts = results.query("planned_trials" if budgeted else "trials", board=board.board).set_index("condition")
    degraded = conditions.join(counts)[conditions["degradation"] != "none"]
    trials = list(degraded[["degradation", "text", "least", "most"]].itertuples(index=False, name=None))
    matchings = dict.fromkeys(filter(None, (_matching(row) for _, row in members.iterrows())))
    failures = results.failures.rename(columns={"run_id": "run"})
    failures = failures[failures["run"].isin(run_ids) & (failures["dataset"] == first["dataset"])]
    return {
        "id": board_id(first["protocol"], first["dataset"]),
        "key": build_key(board.conditions, board.images),
        "protocol": first["protocol"],
        "dataset": first["dataset"],
        "terms": protocol_terms(first["dataset"], configs, trials, len(board.images), matchings),
        "budget": budget_text(shares) if shares is not None else None,
        "has_reference": board.reference is not None or board.published is not None,
        "reference": reference_text(board.published, board.reference is not None, reference, matchings),
        "published": board.published.network if board.published else None,
        "device": board.device,
        "failures": failures[["run", "stage", "images"]].to_dict("records"),
        "n_images": len(board.images),
        "conditions": conditions.to_dict("records"),
        "degradations": sorted(set(degraded["degradation"])),
        "ranked": [int(i) for i in board.ranked],
        "entrants": [
            _entrant(board, one, members.loc[one.entrant], results)
            | {"look": looks[one.entrant], "share": _share(shares, one.entrant)}
            | {"undefended": ids.get(without_defense.get(one.entrant))}
            for one in board.entrants
        ],
    }


def _looks(members: pd.DataFrame, every: pd.DataFrame) -> dict[int, list[int]]:
    """Return the index of each entrant's colour and marker, and that of its dash pattern.

    An architecture has the same colour on every board, and its entrants differ in their dashes. On a board of a single
    architecture, each entrant has its own colour.
    """
    ordered = members.assign(defended=members["defense"] != "none").sort_values(["defended", "defense", "name"])
    ordered = ordered.fillna({"architecture": ""})
    if members["architecture"].nunique() == 1:
        return {int(entrant): [colour, 0] for colour, entrant in enumerate(ordered.index)}
    styles = architecture_styles(every["architecture"].fillna("").unique())
    dashes = ordered.groupby("architecture").cumcount()
    return {
        int(entrant): [styles[architecture].position, int(dashes[entrant])]
        for entrant, architecture in ordered["architecture"].items()
    }


def _entrant(board: Board, one: BoardEntrant, row: pd.Series, results: LoadedResults) -> dict[str, Any]:
    image_ids, classes = (board.images[name].tolist() for name in ("image_id", "class_name"))
    conditions = range(len(board.conditions))
    return {
        "id": entrant_id(row),
        "model": row["name"],
        "network": row["model"],
        "architecture": _text(row["architecture"]),
        "family": family(_text(row["architecture"])),
        "defense": row["defense"],
        "weights": _text(row["weights_sha256"]),
        "parameters": _whole(row["num_parameters"]),
        "input_size": _whole(row["input_size"]),
        "view": _text(row["view"]),
        "outputs": matching.sentence() if (matching := _matching(row)) else None,
        "images": one.n_images,
        "reference": one.entrant == board.reference,
        "comparable": one.comparable,
        "same_images": one.same_images,
        "device": one.device,
        "same_device": one.same_device,
        "missing": [i for i in conditions if i not in one.conditions],
        "relative_of": one.degradations_of,
        "stats": {name: _numbers(value) for name, value in one.stats.items()},
        "ranks": {name: list(ranks) for name, ranks in one.ranks.items()},
        "of_images": {name: _numbers(value) for name, value in one.of_images.items()},
        "worst": _whole(one.worst),
        "accuracy": [_numbers(one.accuracy[i]) if i in one.accuracy else None for i in conditions],
        "change": [_numbers(one.label_change[i]) if i in one.label_change else None for i in conditions],
        "by_degradation": {name: _numbers(values) for name, values in one.by_degradation.items()},
        "fragile": [[image_ids[i], _text(classes[i]), round(share, DIGITS)] for i, share in one.fragile],
        "runs": results.run_ids[one.entrant],
    }


def _share(shares: pd.DataFrame | None, entrant: int) -> float | None:
    """Return the share of an entrant's degraded cells that was evaluated; None on a board without a budget."""
    if shares is None or entrant not in shares.index:
        return None
    return round(float(shares.loc[entrant, "share"]), DIGITS)


def _matching(row: pd.Series) -> Matching | None:
    """Return how an entrant's outputs and the classes were matched; None where the database does not say it."""
    if pd.isna(row["outputs"]) or pd.isna(row["classes"]):
        return None
    return Matching(int(row["classes"]), int(row["outputs"]), _text(row["matched_by"]))


def _run(row: dict[str, Any]) -> dict[str, Any]:
    config, environment = (json.loads(row[name] or "{}") for name in ("config", "environment"))
    shown = ("python", "torch", "torchvision", "timm", "cnnsens_bench")
    return {
        "suite": row["suite"],
        "status": row["status"],
        "started": row["started_at"],
        "command": command(row["suite"], config),
        "commit": _text(environment.get("commit")),
        "device": _text(environment.get("device")),
        "versions": ", ".join(f"{name} {environment[name]}" for name in shown if environment.get(name)),
    }


def _file_names(paths: Sequence[Path]) -> list[str]:
    """Return the names of the files, with their folders' names where they are equal, but never whole paths.

    A page must not tell where its author keeps files.
    """
    names = [path.name for path in paths]
    return [f"{path.resolve().parent.name}/{path.name}" if names.count(path.name) > 1 else path.name for path in paths]


def _numbers(values: tuple[float, ...]) -> list[float | None]:
    return [None if math.isnan(value) else round(float(value), DIGITS) for value in values]


def _whole(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _template(name: str) -> str:
    return resources.files("leaderboard").joinpath("templates", name).read_text(encoding="utf-8")
