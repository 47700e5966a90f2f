"""The page: plain data of the boards, embedded in one self-contained file."""

import hashlib
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsens_bench.figures.style import architecture_styles
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import level_text
from leaderboard.aggregate import Board, boards
from leaderboard.provenance import command, protocol_words
from leaderboard.ranking import HIGHER_IS_BETTER, UNDEGRADED, BoardEntrant
from leaderboard.read import Results, read

DIGITS = 6


def build(paths: Sequence[Path], out: Path, reference: str) -> Path:
    """Write `<out>/index.html` of the databases; gives its path. Raises `UserError`."""
    results = read(paths)
    text = page(data(results, reference))
    file = out / "index.html"
    try:
        out.mkdir(parents=True, exist_ok=True)
        # A name of its own, then a rename: a reader never sees half a page.
        partial = file.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror}): choose another --out") from None
    return file


def page(content: dict[str, Any]) -> str:
    """The file's text. Every `<` of the data is escaped, so that no name can end its element."""
    escaped = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign, code in (
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u2028", "\\u2028"),
        ("\u2029", "\\u2029"),
    ):
        escaped = escaped.replace(sign, code)
    # Lone surrogates are no UTF-8.
    escaped = escaped.encode("utf-8", "replace").decode()
    scripts = "\n".join(_template(name) for name in ("state.js", "table.js", "charts.js", "page.js"))
    parts = {"/* style */": _template("page.css"), "/* data */": escaped, "/* script */": scripts}
    before, *rest = _split(_template("page.html"), list(parts))
    return before + "".join(parts[mark] + text for mark, text in zip(parts, rest, strict=True))


def data(results: Results, reference: str) -> dict[str, Any]:
    """All that the page shows, as JSON knows it."""
    used = {run_id for ids in results.run_ids.values() for run_id in ids}
    runs = {row["run_id"]: _run(row) for row in results.runs.to_dict("records") if row["run_id"] in used}
    return {
        "built": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "databases": _file_names(results.paths),
        "reference": reference,
        "higher": HIGHER_IS_BETTER,
        "undegraded": sorted(UNDEGRADED),
        "runs": runs,
        "boards": sorted(
            (_board(results, board, reference) for board in boards(results, reference)),
            key=lambda one: (-len(one["entrants"]), one["dataset"], one["protocol"]),
        ),
    }


def _board(results: Results, board: Board, reference: str) -> dict[str, Any]:
    members = results.entrants[results.entrants["board"] == board.board].set_index("entrant")
    looks = _looks(members, results.entrants)
    first = members.iloc[0]
    run_ids = sorted({run_id for entrant in members.index for run_id in results.run_ids[entrant]})
    runs = results.runs[results.runs["run_id"].isin(run_ids)]
    configs = [json.loads(config or "{}") for config in runs["config"]]
    levels = board.conditions
    degraded = levels[levels["degradation"] != "none"]
    counts = results.query("trials", board=board.board).set_index("condition")
    trials = [
        (row.degradation, level_text(row.degradation, row.level), int(counts["least"][i]), int(counts["most"][i]))
        for i, row in zip(degraded.index, degraded.itertuples(), strict=True)
    ]
    failed = results.failures[
        results.failures["run_id"].isin(run_ids) & (results.failures["dataset"] == first["dataset"])
    ]
    return {
        "id": _short(first["protocol"], first["dataset"]),
        "protocol": first["protocol"],
        "dataset": first["dataset"],
        "words": protocol_words(first["dataset"], configs, trials, len(board.images)),
        "has_reference": board.reference is not None,
        "device": board.device,
        "failures": [
            {"run": row["run_id"], "stage": row["stage"], "images": int(row["images"])}
            for row in failed.to_dict("records")
        ],
        "n_images": len(board.images),
        "conditions": [
            {"degradation": row["degradation"], "level": row["level"], "trials": int(row["trials"]),
             "text": level_text(row["degradation"], row["level"])}
            for row in levels.to_dict("records")
        ],
        "degradations": sorted(set(degraded["degradation"])),
        "ranked": [int(i) for i in board.ranked],
        "entrants": [
            _entrant(board, one, members.loc[one.entrant], results) | {"look": looks[one.entrant]}
            for one in board.entrants
        ],
    }  # fmt: skip


def _looks(members: pd.DataFrame, every: pd.DataFrame) -> dict[int, list[int]]:
    """Of each entrant of a board its place among colours and its dash. An architecture's place is the same on every
    board; its entrants differ in their dashes. Where a board is of one architecture, each entrant has a place."""
    ordered = members.assign(defended=members["defense"] != "none").sort_values(["defended", "defense", "name"])
    if members["architecture"].nunique() == 1:
        return {int(entrant): [place, 0] for place, entrant in enumerate(ordered.index)}
    styles = architecture_styles(every["architecture"].fillna("").unique())
    dashes = ordered.fillna({"architecture": ""}).groupby("architecture").cumcount()
    return {
        int(entrant): [styles[row["architecture"] or ""].position, int(dashes[entrant])]
        for entrant, row in ordered.fillna({"architecture": ""}).iterrows()
    }


def _entrant(board: Board, one: BoardEntrant, row: pd.Series, results: Results) -> dict[str, Any]:
    image_ids, classes = (board.images[name].tolist() for name in ("image_id", "class_name"))
    conditions = range(len(board.conditions))
    return {
        "id": _short(row["dataset"], row["model"], row["defense"], row["weights"]),
        "model": row["name"],
        "network": row["model"],
        "architecture": _text(row["architecture"]),
        "defense": row["defense"],
        "weights": _text(row["weights_sha256"]),
        "parameters": _whole(row["num_parameters"]),
        "input_size": _whole(row["input_size"]),
        "images": one.n_images,
        "reference": one.entrant == board.reference,
        "comparable": one.comparable,
        "same_images": one.same_images,
        "device": one.device,
        "same_device": one.same_device,
        "missing": [i for i in conditions if i not in one.conditions],
        "relative_of": one.degradations_of,
        "stats": {name: _numbers(value) for name, value in one.stats.items()},
        "ranks": {name: list(places) for name, places in one.ranks.items()},
        "worst": _whole(one.worst),
        "accuracy": [_numbers(one.accuracy[i]) if i in one.accuracy else None for i in conditions],
        "change": [_numbers(one.label_change[i]) if i in one.label_change else None for i in conditions],
        "by_degradation": {name: _numbers(values) for name, values in one.by_degradation.items()},
        "fragile": [[image_ids[i], _text(classes[i]), round(share, DIGITS)] for i, share in one.fragile],
        "runs": results.run_ids[one.entrant],
    }


def _run(row: dict[str, Any]) -> dict[str, Any]:
    config, environment = (json.loads(row[name] or "{}") for name in ("config", "environment"))
    told = ("python", "torch", "torchvision", "timm", "cnnsens_bench")
    return {
        "suite": row["suite"],
        "status": row["status"],
        "started": row["started_at"],
        "command": command(row["suite"], config),
        "commit": _text(environment.get("commit")),
        "device": _text(environment.get("device")),
        "versions": ", ".join(f"{name} {environment[name]}" for name in told if environment.get(name)),
    }


def _file_names(paths: Sequence[Path]) -> list[str]:
    """With the folder's name where several have one: a page should not tell where its maker keeps files."""
    names = [path.name for path in paths]
    return [f"{path.resolve().parent.name}/{path.name}" if names.count(path.name) > 1 else path.name for path in paths]


def _numbers(values: tuple[float, ...]) -> list[float | None]:
    return [None if math.isnan(value) else round(float(value), DIGITS) for value in values]


def _whole(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _short(*names: str) -> str:
    """Of a board or an entrant in the page's address: the same in every build."""
    return hashlib.sha256("\0".join(names).encode("utf-8", "replace")).hexdigest()[:8]


def _template(name: str) -> str:
    return resources.files("leaderboard").joinpath("templates", name).read_text(encoding="utf-8")


def _split(text: str, marks: list[str]) -> list[str]:
    """The parts of `text` around each mark, which come in this order."""
    parts = []
    for mark in marks:
        before, _, text = text.partition(mark)
        parts.append(before)
    return [*parts, text]
