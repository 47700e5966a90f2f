"""Versions of the page: which are kept, what they say of changes, the feed, and the badge of verified entrants."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from cnnsens_bench.utils.errors import UserError
from leaderboard.__main__ import main
from leaderboard.history import ATOM, compare_standings, feed, next_version, standings, versions
from leaderboard.page import build, data
from leaderboard.read import read
from leaderboard.verified import mark_verified
from tests.leaderboard.made import sweep, write

HOSTILE = "timm/</script>\x1b\u202e&b"


def database(folder: Path, models: list[str], seed: int = 0) -> Path:
    rows = sweep("r", "birds", range(6), seed, models=models, defenses=("none",))
    return write(folder, rows, {"r": "p"})


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return a database of two networks, and one of one of these and a new one."""
    top = tmp_path_factory.mktemp("databases")
    models = ["torchvision/alexnet", "timm/b"], [HOSTILE, "torchvision/alexnet"]
    return [database(top / str(number), some, number) for number, some in enumerate(models)]


def embedded(page: Path) -> dict[str, Any]:
    text = page.read_text(encoding="utf-8")
    return json.loads(text.partition('id="data">')[2].partition("</script>")[0])


def test_versions_are_kept_where_numbers_differ(databases: list[Path], tmp_path: Path) -> None:
    first, second = databases
    out = tmp_path / "site"
    build([first], out, "torchvision/alexnet", history=True)
    assert embedded(out / "index.html")["changes"] is None
    build([first], out, "torchvision/alexnet", history=True)
    (day,) = versions(out)
    (out / "beside.csv").write_text("1")
    (out / ".git").mkdir()
    build([second], out, "torchvision/alexnet", history=True)
    changes = embedded(out / "index.html")["changes"]
    assert (changes["since"], changes["versions"]) == (day.name, [day.name, f"{day.name}.2"])
    kinds = {(one["kind"], one["model"]) for one in changes["entries"]}
    assert {("new", HOSTILE), ("gone", "timm/b")} <= kinds
    assert ("new", "torchvision/alexnet") not in kinds
    build([second], out, "torchvision/alexnet", history=True)  # nothing is new, and the last changes stay
    assert embedded(out / "index.html")["changes"] == changes
    kept = out / "versions" / f"{day.name}.2"
    assert sorted(path.name for path in kept.iterdir()) == ["beside.csv", "data", "index.html", "version.json"]
    assert embedded(out / "versions" / day.name / "index.html")["changes"] is None
    entries = ElementTree.parse(out / "feed.xml").getroot().findall(f"{{{ATOM}}}entry")
    titles = [entry.findtext(f"{{{ATOM}}}title") for entry in entries]
    assert titles[1] == f"{day.name}: 2 entrants"
    assert str(titles[0]).startswith(f"{day.name}.2: 1 new")
    text = entries[0].findtext(f"{{{ATOM}}}content")
    assert "timm/</script>\\x1b\\u202e&b on birds is new: rank 1" in str(text)
    assert "timm/b on birds is no longer there" in str(text)
    assert len({entry.findtext(f"{{{ATOM}}}id") for entry in entries}) == 2


def test_without_history_nothing_is_kept(databases: list[Path], tmp_path: Path) -> None:
    build(databases[:1], tmp_path, "torchvision/alexnet")
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "data"}
    assert embedded(tmp_path / "index.html")["changes"] is None


def board(**entrants: tuple[list[int] | None, float | None]) -> list[dict[str, Any]]:
    rows = [{"id": m, "model": m, "defense": "none", "rank": rank, "value": value}
            for m, (rank, value) in entrants.items()]  # fmt: skip
    return [{"id": "b", "dataset": "d", "protocol": "p", "entrants": rows}]


def test_changes_are_told() -> None:
    before = board(a=([1, 1], 0.9), g=([1, 8], 0.9), b=([2, 3], 0.5), c=([2, 3], 0.4), d=(None, None), e=([4, 4], 0.1))
    after = board(a=([2, 2], 0.9), g=([1, 9], 0.9), b=([2, 3], 0.52), c=([2, 3], 0.4), d=([3, 3], 0.4), f=(None, 0.3))
    found = {one["model"]: (one["kind"], one["text"]) for one in compare_standings(before, after)}
    assert found == {
        "f": ("new", "is new: no rank, 30.0 % mean degraded accuracy"),
        "a": ("rank", "moved from rank 1 to rank 2"),
        "d": ("rank", "moved from no rank to rank 3"),
        "b": ("value", "went from 50.0 to 52.0 % mean degraded accuracy"),
        "e": ("gone", "is no longer there"),
    }
    assert compare_standings(before, before) == []


def test_many_changes_are_counted(databases: list[Path], tmp_path: Path) -> None:
    content = {"boards": []}
    version, is_new = next_version(content, tmp_path)
    assert is_new
    changes = [{"kind": "new", "dataset": "d", "model": str(i), "defense": "x", "text": "is new"} for i in range(60)]
    root = ElementTree.fromstring(feed([type(version)(**vars(version) | {"changes": changes})]))
    text = str(root.find(f"{{{ATOM}}}entry").findtext(f"{{{ATOM}}}content"))  # type: ignore[union-attr]
    assert text.count("\n") == 50
    assert text.endswith("and 10 more changes")
    assert text.startswith("0 with x on d is new")


def test_a_record_that_cannot_be_read_is_named(databases: list[Path], tmp_path: Path) -> None:
    record = tmp_path / "versions" / "2026-01-02" / "version.json"
    record.parent.mkdir(parents=True)
    for text in ("{", "[]", '{"format": "other"}', '{"format": "cnnsens_bench version", "format_version": 1}'):
        record.write_text(text)
        with pytest.raises(UserError, match=r"version\.json is no record of a version: remove its folder"):
            build(databases[:1], tmp_path, "torchvision/alexnet", history=True)
    (tmp_path / "versions" / "mine").mkdir()
    record.unlink()
    build(databases[:1], tmp_path, "torchvision/alexnet", history=True)
    assert len(versions(tmp_path)) == 1


def report(file: Path, **changes: Any) -> Path:
    one = {"protocol": "p", "dataset": "birds", "model": "timm/b", "defense": "none", "total": 60, "sampled": 50}
    one |= {"weights_sha256": "wtimm/bnone", "agreed": 50, "differed": 0, "not_recomputed": 0, "reason": ""} | changes
    content = {"format": "cnnsens_bench verification", "format_version": 1, "created": "2026-03-01T10:00:00+00:00"}
    file.write_text(json.dumps(content | {"entrants": [one]}))
    return file


def test_only_what_agrees_wholly_has_the_badge(databases: list[Path], tmp_path: Path) -> None:
    content = data(read(databases[:1]), "torchvision/alexnet")

    def badges(*reports: Path) -> dict[str, Any]:
        mark_verified(content, reports)
        return {one["model"]: one["recomputed"] for one in content["boards"][0]["entrants"]}

    good = report(tmp_path / "good.json")
    badge = {"sampled": 50, "total": 60, "created": "2026-03-01"}
    assert badges() == {"torchvision/alexnet": None, "timm/b": None}
    assert badges(good) == {"torchvision/alexnet": None, "timm/b": badge}
    for changes in (
        {"agreed": 49, "differed": 1}, {"agreed": 49, "not_recomputed": 1}, {"agreed": 0, "sampled": 0},
        {"weights_sha256": "other"}, {"protocol": "q"}, {"dataset": "pets"}, {"defense": "x"},
    ):  # fmt: skip
        assert badges(report(tmp_path / "other.json", **changes))["timm/b"] is None, changes
    differing = report(tmp_path / "other.json", agreed=49, differed=1)
    assert badges(good, differing)["timm/b"] is None
    for text in ("", "[]", "{}"):
        (tmp_path / "wrong.json").write_text(text)
        with pytest.raises(UserError, match=r"wrong\.json is no report of cnnsens-bench verify"):
            badges(tmp_path / "wrong.json")


def test_the_command_takes_reports_and_keeps_versions(
    databases: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["build", "--db", str(databases[0]), "--out", str(tmp_path / "site")]
    assert main([*words, "--verified", str(report(tmp_path / "r.json")), "--history"]) == 0
    (one,) = [one for one in embedded(tmp_path / "site" / "index.html")["boards"][0]["entrants"] if one["recomputed"]]
    assert one["model"] == "timm/b"
    assert (tmp_path / "site" / "feed.xml").is_file()
    assert main([*words, "--verified", str(tmp_path / "absent.json")]) == 2
    assert "absent.json cannot be read" in capsys.readouterr().err


def test_standings_are_those_of_the_page(databases: list[Path]) -> None:
    content = data(read(databases[:1]), "torchvision/alexnet")
    (one,) = standings(content)
    ranks = {entrant["model"]: entrant["rank"] for entrant in one["entrants"]}
    assert ranks == {e["model"]: e["ranks"]["mean_degraded_accuracy"] for e in content["boards"][0]["entrants"]}
