"""Keeps the versions of a page in `versions/<day>` beside it, with what changed between them and an Atom feed."""

import json
import re
import shutil
import uuid
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cnnsens_bench.utils.atomic import write_atomically
from cnnsens_bench.utils.errors import UserError

VERSIONS, RECORD, FEED = "versions", "version.json", "feed.xml"
FORMAT = "cnnsens_bench version"
FORMAT_VERSION = 1
MEASURE = "mean_degraded_accuracy"
"""The measure whose ranks and values are compared."""
LEAST = 5e-4
"""The smallest change of the measure that is told where no rank has changed."""
MOST_ENTRIES = 50
"""The most changes that an entry of the feed lists."""
ATOM = "http://www.w3.org/2005/Atom"
NAME = re.compile(r"(\d{4}-\d{2}-\d{2})(?:\.(\d+))?")

Entry = dict[str, str]
"""One change: `kind` (new, gone, rank or value), `dataset`, `model`, `defense`, and a `text` without these names."""


@dataclass(frozen=True)
class Version:
    """A version of a page.

    Attributes
    ----------
    name
        Its folder below `versions`, which is the day when it was built.
    built
        The time when it was built, in ISO 8601.
    since
        The name of the version before; None for the first one.
    changes
        What is other than in that version.
    boards
        The standings, as `standings` returns them.
    """

    name: str
    built: str
    since: str | None
    changes: list[Entry]
    boards: list[dict[str, Any]]


def standings(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what versions are compared by: the rank and value of each entrant, for each board.

    Parameters
    ----------
    content
        What `page.data` returns.
    """
    boards = []
    for board in content["boards"]:
        entrants = [
            {key: one[key] for key in ("id", "model", "defense")}
            | {"rank": one["ranks"].get(MEASURE), "value": (one["stats"].get(MEASURE) or [None])[0]}
            for one in board["entrants"]
        ]
        known = {key: board[key] for key in ("id", "dataset", "protocol")}
        boards.append({**known, "entrants": sorted(entrants, key=lambda one: str(one["id"]))})
    return sorted(boards, key=lambda one: str(one["id"]))


def compare_standings(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[Entry]:
    """Return what has changed from one version to the next: new entrants first, then ranks, values and those gone.

    Parameters
    ----------
    before, after
        Standings of two versions.
    """
    old, new = _by_entrant(before), _by_entrant(after)
    found: dict[str, list[Entry]] = {"new": [], "rank": [], "value": [], "gone": []}
    for key, (dataset, one) in {**old, **new}.items():
        names = {"dataset": dataset, "model": one["model"], "defense": one["defense"]}
        if key not in new:
            found["gone"].append({"kind": "gone", **names, "text": "is no longer there"})
        elif key not in old:
            found["new"].append({"kind": "new", **names, "text": f"is new: {_standing(one)}"})
        else:
            known = old[key][1]
            value, last = one["value"], known["value"]
            # More entrants alone make the last rank that an interval allows larger: the first one tells of a move.
            if (one["rank"] or [None])[0] != (known["rank"] or [None])[0]:
                text = f"moved from {_rank(known['rank'])} to {_rank(one['rank'])}"
                found["rank"].append({"kind": "rank", **names, "text": text})
            elif value is not None and last is not None and abs(value - last) >= LEAST:
                text = f"went from {100 * last:.1f} to {100 * value:.1f} % mean degraded accuracy"
                found["value"].append({"kind": "value", **names, "text": text})
    return [entry for entries in found.values() for entry in entries]


def next_version(content: dict[str, Any], out: Path) -> tuple[Version, bool]:
    """Return the version that a page's data make, and whether it is another one than the last.

    Parameters
    ----------
    content
        What `page.data` returns.
    out
        The folder of the page. Earlier versions are in its folder `versions`.

    Raises
    ------
    UserError
        Where the record of an earlier version cannot be read.
    """
    kept, boards = versions(out), standings(content)
    last = kept[-1] if kept else None
    if last and last.boards == boards:
        return last, False
    now = datetime.now(UTC)
    day = now.strftime("%Y-%m-%d")
    same_day = [_order(one.name)[1] for one in kept if one.name.startswith(day)]
    name = f"{day}.{max(same_day) + 1}" if same_day else day
    changes = compare_standings(last.boards, boards) if last else []
    return Version(name, now.isoformat(timespec="seconds"), last.name if last else None, changes, boards), True


def shown_changes(version: Version, out: Path) -> dict[str, Any] | None:
    """Return what the page shows of a version: what changed, and the names of all versions; None for the first one."""
    if version.since is None:
        return None
    names = [one.name for one in versions(out)]
    return {"since": version.since, "entries": version.changes, "versions": sorted({*names, version.name}, key=_order)}


def keep_version(version: Version, out: Path) -> None:
    """Copy the page and the files beside it to the folder of a version, and write the feed of all versions.

    Raises
    ------
    UserError
        Where these cannot be written.
    """
    folder = out / VERSIONS / version.name
    try:
        shutil.copytree(out, folder, ignore=_not_of_the_page)
        record = {"format": FORMAT, "format_version": FORMAT_VERSION, **vars(version)}
        write_atomically(folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        write_atomically(out / FEED, feed(versions(out)))
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}): choose another --out") from None


def versions(out: Path) -> list[Version]:
    """Return the versions that are kept, the oldest first. Raise `UserError` for a record that cannot be read."""
    found = []
    for file in (out / VERSIONS).glob(f"*/{RECORD}"):
        if not NAME.fullmatch(file.parent.name):
            continue
        try:
            record = json.loads(file.read_bytes())
            if (record.pop("format"), record.pop("format_version")) != (FORMAT, FORMAT_VERSION):
                raise ValueError
            found.append(Version(**record))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            raise UserError(
                f"{file} is no record of a version: remove its folder, or build without --history"
            ) from None
    return sorted(found, key=lambda version: _order(version.name))


def feed(kept: list[Version]) -> bytes:
    """Return an Atom feed (RFC 4287) with an entry for each version, the newest first.

    Parameters
    ----------
    kept
        The versions, the oldest first, at least one.
    """
    identity = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps([kept[0].built, kept[0].boards]))
    root = ElementTree.Element("feed", xmlns=ATOM)
    _add(root, "id", f"urn:uuid:{identity}")
    _add(root, "title", "Robustness leaderboard")
    _add(root, "updated", kept[-1].built)
    _add(ElementTree.SubElement(root, "author"), "name", "cnnsens_bench")
    for version in reversed(kept):
        entry = ElementTree.SubElement(root, "entry")
        _add(entry, "id", f"urn:uuid:{uuid.uuid5(identity, version.name)}")
        _add(entry, "title", f"{version.name}: {_title(version)}")
        _add(entry, "updated", version.built)
        ElementTree.SubElement(entry, "link", href=f"{VERSIONS}/{version.name}/index.html")
        lines = [f"{_name(one)} on {one['dataset']} {one['text']}" for one in version.changes[:MOST_ENTRIES]]
        if len(version.changes) > MOST_ENTRIES:
            lines.append(f"and {len(version.changes) - MOST_ENTRIES} more changes")
        _add(entry, "content", "\n".join(lines) or _title(version))
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _title(version: Version) -> str:
    """Count the changes of a version by their kinds, or the entrants of the first one."""
    counts = {kind: sum(one["kind"] == kind for one in version.changes) for kind in ("new", "rank", "value", "gone")}
    names = {"new": "new", "rank": "in another rank", "value": "with other values", "gone": "gone"}
    parts = [f"{count} {names[kind]}" for kind, count in counts.items() if count]
    entrants = sum(len(board["entrants"]) for board in version.boards)
    return ", ".join(parts) or f"{entrants} entrants"


def _by_entrant(boards: list[dict[str, Any]]) -> dict[tuple[str, str], tuple[str, dict[str, Any]]]:
    return {(board["id"], one["id"]): (board["dataset"], one) for board in boards for one in board["entrants"]}


def _rank(rank: list[int] | None) -> str:
    if not rank:
        return "no rank"
    return f"rank {rank[0]}" if rank[0] == rank[1] else f"rank {rank[0]}–{rank[1]}"


def _standing(one: dict[str, Any]) -> str:
    value = "" if one["value"] is None else f", {100 * one['value']:.1f} % mean degraded accuracy"
    return _rank(one["rank"]) + value


def _name(entry: Entry) -> str:
    return entry["model"] if entry["defense"] == "none" else f"{entry['model']} with {entry['defense']}"


def _order(name: str) -> tuple[str, int]:
    """Return what the names of versions are sorted by: the day and the number within the day."""
    found = NAME.fullmatch(name)
    return (found[1], int(found[2] or 1)) if found else (name, 0)


def _not_of_the_page(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name in (VERSIONS, FEED) or name.startswith(".")]


def _add(parent: ElementTree.Element, tag: str, text: str) -> None:
    # XML has no control characters, which names may contain.
    shown = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
    ElementTree.SubElement(parent, tag).text = shown
