"""The repository template, and `check`: a good submission lands on the page, bad ones are refused."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from cnnsens_bench.store.submission.transfer import Selection, export
from leaderboard.__main__ import main
from leaderboard.repository import FILES
from tests.conftest import TINY
from tests.leaderboard.made import sweep, write
from tests.store.submissions import made
from tests.store.test_submission_check import recard, tampered

ROOT = Path(__file__).parents[2]


def checked(folder: Path, capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    assert main(["check", str(folder)]) == code
    said = capsys.readouterr()
    return said.err if code else said.out


def test_check_says_what_it_could_not_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(made(tmp_path / "made"), tmp_path / "submission", Selection(), by="A. Name")
    before = sorted(tmp_path.rglob("*"))
    said = checked(tmp_path / "submission", capsys).splitlines()
    rows = json.loads((tmp_path / "submission" / "card.json").read_text())["files"]["predictions.parquet"]["rows"]
    assert said[0].endswith(f"submission is good: {rows} predictions of 8 entrants on birds, pets, by A. Name")
    assert said[1].startswith("checked: the files and their SHA-256")
    assert said[2].startswith("not checked: that networks made these predictions")
    own = "its weights or its code are a file of the submitter, so nobody else can compute it"
    assert said[3:] == [
        "  timm/b: the config of its run does not name it, so nobody else can compute it",
        f"  torchvision/alexnet: {own}",
    ]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"models": ["timm/b"]}, "1 network can be computed again by others: cnnsens-bench verify"),
        ({"models": [{"name": "timm/b", "weights": "random"}], "weights": "/w.pt"}, "1 network can be computed again"),
        ({"models": ["timm/b"], "weights": "<folder>/w.pt"}, "timm/b: its weights or its code are a file"),
        ({"models": ["timm/b"], "fine_tune": "always", "training": {"epochs": 3}}, "timm/b: it was fine-tuned"),
        (
            {
                "models": [{"name": "timm/b", "training": {"epochs": 0}}],
                "fine_tune": "always",
                "training": {"epochs": 3},
            },
            "1 network can be computed again",
        ),
        ({"models": 3}, "timm/b: the config of its run does not name it"),
    ],
)
def test_check_knows_which_networks_are_public(
    config: dict, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = sweep("r", "birds", range(5), 0, models=["timm/b"], defenses=("none",))
    with_images = write(tmp_path / "made", rows, {"r": "p"}, config=config)
    with duckdb.connect(str(with_images)) as connection:
        connection.execute("UPDATE images SET label = substr(image_id, 2)::INTEGER % 5, uri = '/x.jpg'")
    export(with_images, tmp_path / "submission", Selection())
    assert sentence in checked(tmp_path / "submission", capsys)


def test_check_refuses_names_that_cannot_be_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = sweep("r", "birds", range(5), 0, models=["timm/b\u200b"], defenses=("none",))
    export(write(tmp_path / "made", rows, {"r": "p"}), tmp_path / "submission", Selection())
    said = checked(tmp_path / "submission", capsys, 2)
    assert "entrants[0].model: 'timm/b\\u200b' has characters that cannot be seen" in said
    assert said.count("\n") == 1
    assert "there is no folder" in checked(tmp_path / "absent", capsys, 2)


def test_the_template_is_written_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "board"
    assert main(["template", str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == set(FILES.values())
    assert not any("@" in (folder / name).read_text() for name in ("requirements.txt", "README.md"))
    source = ROOT / "leaderboard" / "repository_template"
    assert {path.name for path in source.iterdir() if path.is_file()} == set(FILES)
    assert list((tmp_path / "new").iterdir()) == [folder]
    assert main(["template", str(folder)]) == 2
    assert "exists: name a new folder" in capsys.readouterr().err


def step(repository: Path, *words: str, code: int = 0, **variables: str) -> str:
    """Run a step of the repository as its workflow does, and return what it says."""
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | variables
    command = [sys.executable, "steps.py", *words]
    together: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    ended = subprocess.run(command, cwd=repository, env=os.environ | own, check=False, **together)
    said = ended.stdout
    assert ended.returncode == code, said
    assert "Traceback" not in said
    return said


def embedded(page: Path) -> dict[str, Any]:
    return json.loads(page.read_text("utf-8").partition('id="data">')[2].partition("</script>")[0])


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def sql(table: str, change: str) -> Callable[[Path], object]:
    return lambda folder: tampered(folder, table, change)


def card(**changes: Any) -> Callable[[Path], object]:
    return lambda folder: recard(folder, lambda content: content.update(changes))


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no-card": (without("card.json"), "has no card.json"),
    "no-table": (without("images.parquet"), "images.parquet: card.json names it, but it is missing"),
    "more-files": (lambda folder: (folder / "run.sh").write_text("rm"), "run.sh: card.json does not name it"),
    "damaged": (
        lambda folder: (folder / "runs.parquet").write_bytes(b"PAR1" * 9), "runs.parquet: it has not the"
    ),
    "another-format": (card(format_version=9), "its format_version is 9, this program reads 1"),
    "claims-more": (sql("predictions", "DELETE FROM t WHERE trial = 1"), "its entrants are not those of the tables"),
    "out-of-range": (sql("predictions", "UPDATE t SET confidence = 1.5"), "column confidence: it must be from 0 to 1"),
    "repeated": (sql("predictions", "INSERT INTO t FROM t WHERE rowid = 3"), "there are two rows for"),
    "no-undegraded": (
        sql("predictions", "DELETE FROM t WHERE degradation = 'none'"), "degraded rows and no undegraded one of"
    ),
    "other-labels": (sql("predictions", "UPDATE t SET label = label + 1 WHERE rowid = 5"), "column label: it is not"),
    "paths": (sql("images", "UPDATE t SET uri = '/etc/passwd'"), "cells are absolute paths or URIs"),
    "hidden-name": (card(by="A\u202e. Name"), "by: 'A\\u202e. Name' has characters that cannot be seen"),
    "no name!": (lambda folder: None, "a submission is a folder whose name has letters"),
}  # fmt: skip


@pytest.mark.slow
def test_the_steps_run_whole(tmp_path: Path) -> None:
    """A good submission lands on the page, bad ones are refused, a tampered row is caught, and changes are told."""
    repository = tmp_path / "board"
    assert main(["template", str(repository)]) == 0
    proposed = tmp_path / "proposed" / "submissions"
    proposed.mkdir(parents=True)
    for name, model in (("first", TINY), ("second", "timm/test_efficientnet")):
        words = [
            "suite=quick", "input_size=48", "limit=4", "trials=2", "training.epochs=0", "tracking=off",
            "degradations=[{name: pepper, levels: [0.1]},flip_lr]", "defenses=[none]",
            f"models=[{{name: {model}, weights: random}}]",
        ]  # fmt: skip
        call = [sys.executable, "-m", "cnnsens_bench.run", *words, f"output={tmp_path / name}"]
        subprocess.run(call, check=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True)
        export(tmp_path / name / "results.duckdb", tmp_path / f"{name}-submission", Selection(), by="A. Name")
    good = tmp_path / "first-submission"

    shutil.copytree(good, proposed / "first")
    said = step(repository, "check", str(proposed))
    assert "good submissions: 1, refused: 0" in said
    assert "1 of 1 entrants agree" in said
    for name, (spoil, _) in BAD.items():
        spoil(Path(shutil.copytree(good, proposed / name)))
    tampered(
        Path(shutil.copytree(good, proposed / "tampered")), "predictions",
        "UPDATE t SET prediction = (prediction + 1) % 2, confidence = 0.9 WHERE rowid = "
        "(SELECT max(rowid) FROM t WHERE degradation = 'pepper')",
    )  # fmt: skip
    (tmp_path / "proposed" / "verified").mkdir()
    (tmp_path / "proposed" / "verified" / "first-0.json").write_text("{}")
    said = step(repository, "check", str(proposed), code=1)
    parts = {part.partition("\n")[0]: part for part in said.split("--- ")[1:]}
    for name, (_, sentence) in BAD.items():
        assert sentence in parts[name], name
        assert parts[name].count("error: ") >= 1
    assert "differs: " in parts["tampered"]
    assert f"good submissions: 1, refused: {len(BAD) + 2}" in said
    assert "reports are written by the workflow alone" in said

    # Merged, with one that is bad: the page has the good one, and keeps the badge.
    shutil.copytree(good, repository / "submissions" / "first")
    shutil.copytree(proposed / "tampered", repository / "submissions" / "tampered")
    said = step(repository, "publish", code=1)
    assert "good submissions: 1, refused: 1\n  tampered" in said
    content = embedded(repository / "site" / "index.html")
    (entrant,) = content["boards"][0]["entrants"]
    assert (entrant["model"], entrant["recomputed"]["sampled"]) == (TINY, entrant["recomputed"]["total"])
    assert content["changes"] is None
    assert len(list((repository / "verified").iterdir())) == 1

    shutil.rmtree(repository / "submissions" / "tampered")
    shutil.copytree(tmp_path / "second-submission", repository / "submissions" / "second")
    said = step(repository, "publish")
    assert "good submissions: 2, refused: 0" in said
    assert said.count("rows agree") == 1  # the first one has a report
    content = embedded(repository / "site" / "index.html")
    assert ("new", "timm/test_efficientnet") in {(one["kind"], one["model"]) for one in content["changes"]["entries"]}
    assert all(one["recomputed"] for one in content["boards"][0]["entrants"])
    assert len(list((repository / "site" / "versions").iterdir())) == 2
    assert "timm/test_efficientnet" in (repository / "site" / "feed.xml").read_text("utf-8")
    assert "there is no folder absent" in step(repository, "check", "absent", code=2)
    assert step(repository, "build", code=2).strip().startswith("The steps of this leaderboard")
