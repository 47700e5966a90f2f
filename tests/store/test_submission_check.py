"""Submissions that somebody tampered with: each is refused in one sentence and leaves nothing."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from cnnsens_bench.store.submission.card import digest
from cnnsens_bench.store.submission.transfer import Selection, export, import_submission
from cnnsens_bench.utils.errors import UserError
from tests.store.submissions import made, scored


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported")
    export(made(out / "original"), out / "submission", Selection())
    return out / "submission"


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """Return a copy to tamper with."""
    return Path(shutil.copytree(exported, tmp_path / "submission"))


def tampered(folder: Path, table: str, change: str) -> None:
    """Rewrite a table by `change` (SQL over the table t), and correct what the card says of the file."""
    path, new = folder / f"{table}.parquet", folder / "new"
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t AS FROM read_parquet(?)", [str(path)])
        connection.execute(change)
        connection.execute("COPY t TO ? (FORMAT parquet)", [str(new)])
        rows = connection.execute("SELECT count(*) FROM t").fetchall()[0][0]
    new.replace(path)
    said = {"rows": rows, "bytes": path.stat().st_size, "sha256": digest(path)}
    recard(folder, lambda card: card["files"].update({path.name: said}))


def recard(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "card.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    change(card)
    path.write_text(json.dumps(card), encoding="utf-8")


def refused(folder: Path, sentence: str) -> None:
    """Check that the import is refused with this sentence, in one line, and leaves nothing."""
    board = folder.parent / "board.duckdb"
    with pytest.raises(UserError, match=sentence) as caught:
        import_submission(folder, board)
    assert len(str(caught.value).splitlines()) == 1
    assert not list(folder.parent.glob("board*"))


DEEP = """('{"a":' || repeat('[', 500) || repeat(']', 500) || '}')"""
TAMPERED = {
    "UPDATE t SET confidence = 1.5": "predictions.parquet, row 1, column confidence",
    "UPDATE t SET confidence = 'nan' WHERE rowid = 20": "predictions.parquet, row 21, column confidence",
    "UPDATE t SET true_probability = -0.1 WHERE rowid = 20": "row 21, column true_probability",
    "UPDATE t SET true_probability = NULL WHERE rowid = 20": "row 21, column true_probability",
    "UPDATE t SET reference_logit = 'inf' WHERE rowid = 20": "row 21, column reference_logit",
    "UPDATE t SET reference_probability = 2 WHERE rowid = 20": "row 21, column reference_probability",
    "UPDATE t SET true_rank = 0 WHERE rowid = 20": "row 21, column true_rank",
    "UPDATE t SET trial = -1 WHERE rowid = 20": "row 21, column trial",
    "UPDATE t SET prediction = -1 WHERE rowid = 20": "row 21, column prediction",
    "UPDATE t SET prediction = NULL WHERE rowid = 20": "row 21, column prediction",
    "UPDATE t SET level = 'nan' WHERE rowid = 20": "row 21, column level",
    "UPDATE t SET trial = 1 WHERE degradation = 'none'": "column degradation: the undegraded image",
    "UPDATE t SET label = label + 1 WHERE rowid = 20": "column label: it is not the one that the image has elsewhere",
    "UPDATE t SET label = label + 1": "column label: it is not the one that the image has elsewhere",
    "UPDATE t SET degradation = repeat('x', 5000) WHERE rowid = 20": "column degradation: 1 cells have more than",
    "UPDATE t SET degradation = '/etc/x' WHERE rowid = 20": "column degradation: 1 cells are absolute paths",
    "UPDATE t SET dataset = NULL WHERE rowid = 20": "column dataset: 1 cells are empty",
    "INSERT INTO t FROM t WHERE rowid = 20": "there are two rows for: i",
    "DELETE FROM t WHERE degradation = 'none' AND image_id = 'i001'": "no undegraded one of: i001",
    "UPDATE t SET run_id = 'r9' WHERE rowid = 20": "runs.parquet has not the run of a row: r9",
    "UPDATE t SET model = 'timm/z' WHERE rowid = 20": "models.parquet has not the model of a row: timm/z",
    "UPDATE t SET image_id = 'i999' WHERE rowid = 20": "images.parquet has not the image of a row: i999",
    "DELETE FROM t WHERE run_id = 'r1'": "runs.parquet: no prediction is of the run: r1",
    "DELETE FROM t WHERE image_id = 'i001'": "images.parquet: no prediction is of the image: i001",
    "DELETE FROM t WHERE model = 'timm/b'": "models.parquet: no prediction is of the model: timm/b",
    "ALTER TABLE t DROP COLUMN trial": "predictions.parquet, column trial: it is missing",
    "ALTER TABLE t ADD COLUMN more INTEGER": "column more: the table 'predictions' has no such column",
    "ALTER TABLE t ALTER level TYPE VARCHAR": "column level: its type is VARCHAR, not DOUBLE",
    "DELETE FROM t WHERE degradation = 'pepper'": "card.json: its protocols are not those of the tables: entry 1",
    "DELETE FROM t WHERE trial = 2": "card.json: its entrants are not those of the tables: entry 1",
}


@pytest.mark.parametrize(("change", "sentence"), TAMPERED.items())
def test_predictions_that_no_run_writes(folder: Path, change: str, sentence: str) -> None:
    tampered(folder, "predictions", change)
    refused(folder, re.escape(sentence))


@pytest.mark.parametrize(
    ("table", "change", "sentence"),
    [
        ("runs", "UPDATE t SET config = '[1]'", "runs.parquet, row 1, column config: it is JSON, but no object"),
        ("runs", "UPDATE t SET config = DEEP", "runs.parquet, row 1, column config: it is not JSON"),
        ("runs", """UPDATE t SET environment = '{"a": {}}'""", "column environment: its values must be texts"),
        ("runs", """UPDATE t SET environment = '{"a": NaN}'""", "column environment: it is not JSON"),
        ("runs", "UPDATE t SET schema_version = 2", "row 1, column schema_version: it must be 1"),
        ("runs", "UPDATE t SET suite = '${oc.env:HOME}'", "row 1, column suite: it is no name of a suite"),
        ("runs", "UPDATE t SET status = 'best'", "row 1, column status"),
        ("runs", "UPDATE t SET protocol = 'p3'", "there are two rows for|card.json: its protocols are not those"),
        ("runs", "INSERT INTO t FROM t LIMIT 1", "runs.parquet: 1 rows have the run_id of another row"),
        ("images", "UPDATE t SET uri = 'http://host/x.jpg'", "row 1, column uri: it must be <folder>/name"),
        ("images", "UPDATE t SET uri = '/etc/passwd'", "column uri: 14 cells are absolute paths"),
        ("images", "UPDATE t SET box_x = 'inf' WHERE rowid = 3", "column box_x: 1 cells are not finite"),
        ("images", "UPDATE t SET width = 0", "row 1, columns width, height"),
        ("models", "UPDATE t SET weights_sha256 = NULL", "row 1, column weights_sha256"),
        ("models", "UPDATE t SET weights_sha256 = 'other'", "card.json: its entrants are not those of the tables"),
        ("models", "UPDATE t SET input_size = -1", "row 1, column input_size"),
        ("images", "UPDATE t SET box_y = 1e300", "column box_y: 14 cells are not finite, or beyond"),
        ("speed", "UPDATE t SET seconds = -1", "speed.parquet, row 1, column seconds: it must be 0 or more"),
        ("speed", "UPDATE t SET model = 'timm/z'", "models.parquet has not the model of a row: timm/z"),
        ("failures", "UPDATE t SET run_id = 'r9'", "runs.parquet has not the run of a row: r9"),
        ("failures", "UPDATE t SET error = '/home/x'", "column error: 1 cells are absolute paths"),
    ],
)  # fmt: skip
def test_other_tables_that_no_run_writes(folder: Path, table: str, change: str, sentence: str) -> None:
    tampered(folder, table, change.replace("DEEP", DEEP))
    refused(folder, sentence)


def test_scores_that_no_run_writes(tmp_path: Path) -> None:
    store = scored(tmp_path / "store")
    for table, change, sentence in (
        ("sensitivity", "UPDATE t SET grad_sq_norm = -1", "row 1, column grad_sq_norm: it must be 0 or more"),
        ("sensitivity", "UPDATE t SET image_id = 'i999' WHERE rowid = 3", "images.parquet has not the image of a row"),
        ("sensitivity", "UPDATE t SET pepper_sum = 1e200", "column pepper_sum: 120 cells are not finite, or beyond"),
        ("sensitivity_predictions", "UPDATE t SET deviation = -1", "row 1, column deviation: it must be 0 or more"),
    ):
        shutil.rmtree(tmp_path / "submission", ignore_errors=True)
        export(store.path, tmp_path / "submission", Selection())
        tampered(tmp_path / "submission", table, change)
        refused(tmp_path / "submission", sentence)


def test_files_that_do_not_belong(folder: Path, exported: Path) -> None:
    def anew() -> None:
        shutil.rmtree(folder)
        shutil.copytree(exported, folder)

    (folder / "more.txt").write_text("")
    refused(folder, r"more.txt: card.json does not name it")
    anew()
    (folder / "images.parquet").unlink()
    refused(folder, r"images.parquet: card.json names it, but it is missing")
    anew()
    (folder / "images.parquet").rename(folder.parent / "elsewhere.parquet")
    (folder / "images.parquet").symlink_to(folder.parent / "elsewhere.parquet")
    refused(folder, r"images.parquet: it is a link")
    anew()
    (folder / "deeper").mkdir()
    refused(folder, r"deeper: it is a link, a folder or a device")
    anew()
    bytes_ = (folder / "models.parquet").read_bytes()
    (folder / "models.parquet").write_bytes(bytes_[:-9] + b"x" + bytes_[-8:])
    refused(folder, r"models.parquet: its SHA-256 is not the one in card.json")
    anew()
    with (folder / "models.parquet").open("ab") as file:
        file.write(b"x")
    refused(folder, r"models.parquet: it has not the \d+ bytes")
    recard(
        folder,
        lambda card: card["files"]["models.parquet"].update(
            bytes=len(bytes_) + 1, sha256=digest(folder / "models.parquet")
        ),
    )
    refused(folder, r"models.parquet: it is not Parquet that can be read")
    anew()
    recard(folder, lambda card: card["files"]["models.parquet"].update(rows=1))
    refused(folder, r"models.parquet: it has 8 rows, card.json says 1")
    anew()
    for name in ("../runs.parquet", "/etc/passwd", "parts.parquet", "runs.PARQUET"):
        recard(folder, lambda card, name=name: card["files"].update({name: card["files"]["runs.parquet"]}))
        refused(folder, r"card.json: files: '.*' is not a table of a submission")
        anew()
    recard(folder, lambda card: card["files"].pop("models.parquet"))
    refused(folder, r"card.json: files: models.parquet is missing")
    shutil.rmtree(folder)
    refused(folder, r"there is no folder")
    folder.mkdir()
    refused(folder, r"has no card.json")


def test_a_bomb_is_refused_unread(folder: Path) -> None:
    tampered(folder, "failures", "INSERT INTO t SELECT 'r1', 'd', 'i', 's', NULL FROM range(300000)")
    refused(folder, r"failures.parquet: it unpacks to far more than its size")
