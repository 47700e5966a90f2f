"""Submissions: what is exported is imported as it was, and nothing else is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from cnnsens_bench.store import Store
from cnnsens_bench.store.read import results
from cnnsens_bench.store.schema import SQL
from cnnsens_bench.store.submission.card import digest
from cnnsens_bench.store.submission.transfer import Selection, TransferCounts, export, import_submission
from cnnsens_bench.utils.errors import UserError
from leaderboard.__main__ import main
from leaderboard.page import data
from leaderboard.read import read
from tests.leaderboard.made import DEFENSES, HOSTILE, sweep, write
from tests.store.scored import score_rows, sweep_rows
from tests.store.submissions import CONFIG, IMAGES, everything, made, scored


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("original"))


@pytest.fixture(scope="module")
def exported(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "submission"
    assert main(["export", "--db", str(original), "--out", str(out), "--by", "me & <b>", "--note", "“first”"]) == 0
    return out


def shown(*paths: Path) -> dict[str, Any]:
    """Return what the page shows of databases, without its date and their paths."""
    content = data(read(paths), "torchvision/alexnet")
    return {key: value for key, value in content.items() if key not in ("built", "databases")}


def test_a_round_trip_shows_the_same_page(original: Path, exported: Path, tmp_path: Path, capsys: Any) -> None:
    board = tmp_path / "new" / "board.duckdb"
    assert main(["import", str(exported), "--db", str(board)]) == 0
    assert shown(board) == shown(original)
    original_rows, back = everything(original), everything(board)
    assert back["predictions"] == original_rows["predictions"]
    assert (back["models"], back["speed"]) == (original_rows["models"], original_rows["speed"])
    count = len(original_rows["predictions"])
    assert f"{count} of {count} predictions were new, of 8 entrants" in capsys.readouterr().out
    assert main(["import", str(exported), "--db", str(board)]) == 0
    assert f"0 of {count} predictions were new" in capsys.readouterr().out
    assert everything(board) == back


def test_the_card_says_what_is_there(original: Path, exported: Path) -> None:
    card = json.loads((exported / "card.json").read_text(encoding="utf-8"))
    assert (card["by"], card["note"]) == ("me & <b>", "“first”")
    rows = everything(original)
    assert {name: said["rows"] for name, said in card["files"].items()} == {
        f"{name}.parquet": len(rows[name]) for name in ("failures", "images", "models", "predictions", "runs", "speed")
    }
    assert [(one["protocol"], one["dataset"], one["test_images"]) for one in card["protocols"]] == [
        ("p1", "birds", 7),
        ("p2", "pets", 7),
    ]
    assert sum(one["predictions"] for one in card["entrants"]) == len(rows["predictions"])
    assert {one["weights_sha256"] for one in card["entrants"] if one["model"] == "timm/b"} == {
        f"wtimm/b{defense}" for defense in DEFENSES
    }


def test_nothing_of_the_makers_machine_leaves(exported: Path, tmp_path: Path) -> None:
    import_submission(exported, tmp_path / "b.duckdb")
    text = json.dumps(everything(tmp_path / "b.duckdb"))
    assert "/home" not in text
    assert "maker" not in text
    assert "maker" not in (exported / "card.json").read_text()
    for kept in ("<folder>/i001.jpg", "<folder>/i090.jpg: the image cannot be read", "<folder>/alexnet.pth"):
        assert kept in text


def test_a_part_of_a_database(original: Path, tmp_path: Path) -> None:
    out, board = tmp_path / "submission", tmp_path / "board.duckdb"
    export(original, out, Selection(datasets=["birds"], models=["timm/b"], protocols=["p1"]))
    import_submission(out, board)
    found = results(board).query("SELECT DISTINCT protocol, dataset, model, defense FROM leaderboard ORDER BY ALL")
    assert found.to_numpy().tolist() == [["p1", "birds", "timm/b", defense] for defense in sorted(DEFENSES)]
    whole = tmp_path / "whole"
    export(original, whole, Selection())
    assert import_submission(whole, board).new == moved(whole) - moved(out)
    assert sorted(everything(board)["predictions"]) == everything(original)["predictions"]


def moved(folder: Path) -> int:
    return int(json.loads((folder / "card.json").read_text())["files"]["predictions.parquet"]["rows"])


def test_merged_with_a_second_database(original: Path, exported: Path, tmp_path: Path) -> None:
    rows = sweep("r3", "birds", IMAGES, 5, models=["timm/d"])
    second = write(tmp_path / "second", rows, {"r3": "p1"}, config=CONFIG)
    both = shown(original, second)
    import_submission(exported, second)
    assert shown(second)["boards"] == both["boards"]


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    name = "data & <b>set</b>\n\u202eabc'; DROP TABLE runs; --"
    path = write(tmp_path / "a", sweep("r", name, range(4), 0, models=HOSTILE, defenses=("none",)), {"r": "p'\"\n"})
    export(path, tmp_path / "submission", Selection(datasets=[name]))
    import_submission(tmp_path / "submission", tmp_path / "b.duckdb")
    assert everything(tmp_path / "b.duckdb") == everything(path) | {"parts": []}


def test_scores_and_an_old_database(tmp_path: Path) -> None:
    store, scores = scored(tmp_path / "a"), score_rows()
    export(store.path, tmp_path / "new", Selection())
    board = tmp_path / "board.duckdb"
    for _ in range(2):
        import_submission(tmp_path / "new", board)
        pd.testing.assert_frame_equal(
            results(board).query("FROM sensitivity_predictions ORDER BY ALL"),
            store.query("FROM sensitivity_predictions ORDER BY ALL"),
        )
    with duckdb.connect(str(store.path)) as connection:
        connection.execute("ALTER TABLE sensitivity DROP COLUMN entropy; DROP TABLE sensitivity_predictions")
    export(store.path, tmp_path / "old", Selection())
    import_submission(tmp_path / "old", tmp_path / "old.duckdb")
    brought = everything(tmp_path / "old.duckdb")
    assert len(brought["sensitivity"]) == len(scores)
    assert brought["sensitivity_predictions"] == []
    assert import_submission(tmp_path / "new", store.path) == TransferCounts(len(sweep_rows()), 0, 1)
    assert len(everything(store.path)["sensitivity_predictions"]) == len(scores)


def test_a_table_that_the_schema_gains_goes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = "CREATE TABLE IF NOT EXISTS pace (run_id VARCHAR NOT NULL, model VARCHAR NOT NULL, per_s DOUBLE);"
    monkeypatch.setitem(SQL, "schema", f"{more}\n{SQL['schema']}")
    path = made(tmp_path / "a")
    with duckdb.connect(str(path)) as connection:
        connection.execute("INSERT INTO pace VALUES ('r1', 'timm/b', 9.5), ('r1', 'gone', 1), ('r2', 'timm/b', 8.5)")
    export(path, tmp_path / "submission", Selection(protocols=["p1"]))
    for _ in range(2):
        import_submission(tmp_path / "submission", tmp_path / "b.duckdb")
        assert results(tmp_path / "b.duckdb").query("FROM pace").to_dict("records") == [
            {"run_id": "r1", "model": "timm/b", "per_s": 9.5}
        ]


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


def refused(folder: Path, sentence: str, board: Path) -> None:
    before = everything(board)
    with pytest.raises(UserError, match=sentence):
        import_submission(folder, board)
    assert everything(board) == before


def test_destinations_that_disagree(exported: Path, original: Path, tmp_path: Path) -> None:
    for change, sentence in (
        ("UPDATE models SET weights_sha256 = 'v'", r"models.parquet: the destination holds other weights under .* on"),
        (
            "UPDATE images SET label = 9 WHERE image_id = 'i003' AND dataset = 'pets'",
            r"images.parquet: the destination holds another label of i003 of pets",
        ),
        ("UPDATE runs SET protocol = 'p9' WHERE run_id = 'r1'", r"the run r1 has protocol p9 there and p1 here"),
    ):
        other = tmp_path / "other.duckdb"
        shutil.copy(original, other)
        with duckdb.connect(str(other)) as connection:
            connection.execute(change)
        refused(exported, sentence, other)


def test_databases_that_are_none(exported: Path, tmp_path: Path, original: Path) -> None:
    foreign = tmp_path / "foreign.duckdb"
    with duckdb.connect(str(foreign)) as connection:
        connection.execute("CREATE TABLE birds (i INTEGER)")
    with pytest.raises(UserError, match="has no table 'failures'"):
        import_submission(exported, foreign)
    with duckdb.connect(str(foreign)) as connection:
        assert connection.execute("SHOW TABLES").fetchall() == [("birds",)]
    text = tmp_path / "text.duckdb"
    text.write_text("no database" * 100)
    for call in (lambda: import_submission(exported, text), lambda: export(text, tmp_path / "out", Selection())):
        with pytest.raises(UserError, match="is not a DuckDB database"):
            call()
    with pytest.raises(UserError, match=r"ends in \.duckdb"):
        import_submission(exported, tmp_path / "board.db")
    with pytest.raises(UserError, match="choose another --db"):
        import_submission(exported, text / "board.duckdb")
    store = Store(tmp_path / "empty")
    store.open()
    with pytest.raises(UserError, match="has no predictions yet"):
        export(store.path, tmp_path / "out", Selection())
    with pytest.raises(UserError, match=r"no predictions of model 'timm/bb'.*timm/b"):
        export(original, tmp_path / "out", Selection(models=["timm/bb"]))
    with pytest.raises(UserError, match="no predictions of these together"):
        export(original, tmp_path / "out", Selection(datasets=["birds"], protocols=["p2"]))
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("")
    with pytest.raises(UserError, match="exists: choose another --out"):
        export(original, tmp_path / "out", Selection())


def test_what_an_import_would_refuse_is_not_exported(tmp_path: Path) -> None:
    path = write(tmp_path / "a", sweep("r", "d", range(9), 0), {"r": "p"})
    with pytest.raises(UserError, match=r"would refuse: predictions\.parquet: there are degraded rows"):
        export(path, tmp_path / "out", Selection())
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a"]
