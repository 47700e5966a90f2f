"""What the page has for a decision equals the Python API: failure points, selective accuracy, accuracy at a camera."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cnnsens_bench import open_results
from cnnsens_bench.camera.report import CameraReport, Measurement, MixMember
from leaderboard import decisions, read
from leaderboard.__main__ import main
from leaderboard.aggregate import boards
from leaderboard.camera import add_camera
from leaderboard.condition_ranking import rankings_under
from leaderboard.decisions import add_decisions
from leaderboard.failure_points import entrant_failure_points
from leaderboard.page import data
from tests.leaderboard.budgeted import chosen, made
from tests.leaderboard.made import sweep, write

CONDITIONS = {
    **{("gaussian_rgb", level): 2 for level in (2.0, 8.0, 32.0)},
    **{("jpeg", level): 1 for level in (10.0, 60.0)},
    **{("white_balance", level): 1 for level in (-2000.0, 1000.0)},
    ("flip_lr", 0.0): 1,
    ("pepper", 0.04): 2,
    ("gaussian_rgb(8) + jpeg(60)", 0.0): 2,
}
MIX = [MixMember(degradation="gaussian_rgb", level=8.0), MixMember(degradation="jpeg", level=60.0)]
LEVELS = {"gaussian_rgb": Measurement(value=7.0, low=6.0, high=9.0), "jpeg": Measurement(value=55.0)}
REPORT = CameraReport(name="</script>hall", photographs=9, measurements={}, levels=LEVELS, mix=MIX)
NONE_WHOLE = "No database has the confidences of a whole condition of this board."


def degrading(rows: pd.DataFrame) -> pd.DataFrame:
    """Make strong levels wrong, so that there are failure points; the last model never gives way."""
    strong = (
        (rows["level"] == 32) | (rows["level"] == 10) | (rows["level"] == -2000) | (rows["degradation"] == "pepper")
    )
    odd = rows["image_id"].str[1:].astype(int) % 4 > 0
    wrong = strong & odd & (rows["model"] != "timm/b")
    return rows.assign(prediction=rows["prediction"].where(~wrong, (rows["label"] + 1) % 5))


def whole(folder: Path) -> Path:
    few = sweep("r1", "d", range(12), 5, ("timm/few",), ("none",), CONDITIONS)
    rows = pd.concat([sweep("r1", "d", range(24), 0, conditions=CONDITIONS), few], ignore_index=True)
    return write(folder, degrading(rows), {"r1": "p"})


def on_a_budget(folder: Path) -> Path:
    rows = pd.concat([chosen(made("r1", number, model), 0.4) for number, model in enumerate(("timm/a", "timm/b"))])
    return write(folder, rows, {"r1": "p"}, config={"budget": 0.4, "trials": 3})


def decided(path: Path, **others: Path) -> dict[str, Any]:
    """Return the data of a page with its decisions."""
    results = read.read([path, *others.values()])
    found = boards(results, "torchvision/alexnet")
    content = data(results, "torchvision/alexnet", found)
    add_decisions(content, results, found)
    return content


def shown_levels(levels: list[float | None] | None, sweep: list) -> list[float]:
    """Return level, low and high of the page, infinite beyond the strongest level; NaN where there are none."""
    beyond = -np.inf if sweep[1] == "falling" else np.inf
    return [np.nan] * 3 if levels is None else [beyond if level is None else level for level in levels[:3]]


@pytest.mark.parametrize("database", [whole, on_a_budget])
def test_numbers_equal_the_python_api(database: Any, tmp_path: Path) -> None:
    path = database(tmp_path)
    [board] = decided(path)["boards"]
    results = open_results(path)
    points = results.failure_points().set_index(["model", "defense", "criterion", "degradation", "direction"])
    selection = results.confidence_selection.set_index(["model", "defense", "degradation", "level"])
    seen, unlike = 0, set()
    for one in board["entrants"]:
        entrant = one["model"], one["defense"]
        for criterion, every in one["failure_points"].items():
            for levels, sweep_of in zip(every, board["decisions"]["sweeps"], strict=True):
                key = (*entrant, criterion, *sweep_of[:2])
                if key not in points.index:
                    assert levels is None
                    continue
                wanted = points.loc[key]
                assert shown_levels(levels, sweep_of) == pytest.approx(
                    wanted[["level", "low", "high"]].tolist(), rel=1e-3, nan_ok=True
                )
                assert (levels or [])[3:] in ([], [wanted["strongest"]])
                seen += 1
                unlike.add(str(shown_levels(levels, sweep_of)[0]))
        for condition, found in zip(board["conditions"], one["selective"], strict=True):
            key = (*entrant, condition["degradation"], condition["level"])
            assert (found is None) == (key not in selection.index)
            if found:
                assert found == pytest.approx(selection.loc[key, ["aurc", "accuracy_at_90"]].tolist(), abs=6e-5)
    assert seen == len(points)
    assert len(unlike) > 5
    assert board["decisions"]["unselected"] is None


def test_selective_accuracy_is_left_out_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = sweep("r1", "d", range(6), 0, ("timm/b",))
    path = write(tmp_path / "none", rows.assign(confidence=np.nan), {"r1": "p"})
    [board] = decided(path)["boards"]
    assert board["decisions"]["unselected"] == NONE_WHOLE
    # Of a condition whose predictions lie in two databases, nothing that needs them all at once is known.
    first, second = rows["image_id"] < "i003", rows["image_id"] >= "i003"
    halves = [write(tmp_path / name, rows[own], {"r1": "p"}) for name, own in (("a", first), ("b", second))]
    [board] = decided(halves[0], other=halves[1])["boards"]
    assert board["decisions"]["unselected"] == NONE_WHOLE
    assert {str(found) for one in board["entrants"] for found in one["selective"]} == {"None"}
    # What both have counts once.
    every = write(tmp_path / "c", rows, {"r1": "p"})
    [board], [alone] = decided(every, other=halves[0])["boards"], decided(every)["boards"]
    assert [one["selective"] for one in board["entrants"]] == [one["selective"] for one in alone["entrants"]]
    monkeypatch.setattr(read, "MOST_SORTED", 10)
    monkeypatch.setattr(decisions, "LARGE", 9)
    [board] = decided(every)["boards"]
    assert "million predictions; the view confidence_selection" in board["decisions"]["unselected"]
    assert board["decisions"]["resamples"] == 200


def test_accuracy_at_the_camera_is_that_of_its_mix(tmp_path: Path) -> None:
    path = whole(tmp_path)
    results = read.read([path])
    found = boards(results, "torchvision/alexnet")
    content = data(results, "torchvision/alexnet", found)
    add_camera(content, results, found, REPORT)
    assert content["camera"]["levels"] == {"gaussian_rgb": [7.0, 6.0, 9.0], "jpeg": [55.0, 55.0, 55.0]}
    [board] = content["boards"]
    view = open_results(path).accuracy.set_index(["degradation", "model", "defense"]).loc[REPORT.expression]
    assert board["conditions"][board["camera"]]["degradation"] == REPORT.expression
    [ranking] = rankings_under(results, [REPORT.expression])
    ranks = {one.name: one for one in ranking.entrants}
    for one in board["entrants"]:
        wanted = view.loc[(one["model"], one["defense"])]
        assert one["stats"]["camera_accuracy"] == pytest.approx(wanted[["value", "low", "high"]].tolist(), abs=2e-6)
        name = one["model"] if one["defense"] == "none" else f"{one['model']}:{one['defense']}"
        ranked = [ranks[name].first, ranks[name].last]
        assert one["ranks"].get("camera_accuracy", [None, None]) == ranked
    assert [column["name"] for column in content["columns"]].count("camera_accuracy") == 1
    # A mix of one member is a level of its degradation; one that is not measured has no column.
    for mix, condition in ((MIX[1:], "jpeg"), ([MixMember(degradation="pepper", level=0.5)], None), ([], None)):
        content = data(results, "torchvision/alexnet", found)
        add_camera(content, results, found, REPORT.model_copy(update={"mix": mix}))
        at = content["boards"][0]["camera"]
        assert (at is not None and content["boards"][0]["conditions"][at]["degradation"]) == (condition or False)
        assert any(column["name"] == "camera_accuracy" for column in content["columns"]) == bool(condition)


def test_a_file_that_is_none_of_a_camera_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, sweep("r1", "d", range(4), 0, ("timm/b",), ("none",)), {"r1": "p"})
    file = tmp_path / "camera.json"
    file.write_text(json.dumps({"name": "x"}))
    assert main(["build", "--db", str(path), "--out", str(tmp_path / "site"), "--camera", str(file)]) == 2
    assert "is no file of a camera" in capsys.readouterr().err
    assert not (tmp_path / "site" / "index.html").exists()


def test_images_without_labels_have_failure_points_of_changed_labels_alone() -> None:
    levels = [("none", 0.0), ("pepper", 0.1), ("pepper", 0.2)]
    conditions = pd.DataFrame(levels, columns=["degradation", "level"])
    cells = pd.MultiIndex.from_product([range(4), range(3)], names=["image", "condition"]).to_frame(index=False)
    shares = cells.assign(label=np.nan, trials=1, hit=np.nan, top5=np.nan, nll=np.nan)
    shares["changed"] = shares["condition"].map({0: np.nan, 1: 0.0, 2: 0.2})
    found = entrant_failure_points(shares, conditions, 4).set_index("criterion")["level"]
    assert np.isnan(found["half_accuracy"])
    assert found["label_change"] == pytest.approx(0.1 * 2**0.5)
    assert entrant_failure_points(shares.head(0), conditions, 4).empty
