"""Rankings under one condition: values equal the views', and ties those of single comparisons."""

import itertools
import json
from pathlib import Path

import pandas as pd
import pytest

from cnnsens_bench import open_results
from cnnsens_bench.camera.report import CameraReport, MixMember
from leaderboard.__main__ import main
from leaderboard.compare import comparisons, holm
from leaderboard.condition_ranking import mean_rankings, rankings_under
from leaderboard.page import data
from leaderboard.read import read
from tests.leaderboard.made import sweep, write

CONDITIONS = {("gaussian_rgb", 4.0): 3, ("pepper(0.02) + jpeg(80)", 0.0): 2}
MODELS = tuple(f"lab/{letter}" for letter in "abcde")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five networks, each more often wrong than the one before, and one that has a few of the images alone."""
    images = [number for number in range(120) if number != 7]
    rows = sweep("r", "d", images, 0, MODELS, ("none",), CONDITIONS)
    few = sweep("r", "d", range(10, 30), 1, ("lab/few",), ("none",), CONDITIONS)
    return write(tmp_path_factory.mktemp("store"), pd.concat([rows, few]), {"r": "p"})


@pytest.mark.parametrize(("measure", "sign"), [("accuracy", 1), ("label_change", -1)])
def test_values_and_ties(store: Path, measure: str, sign: int) -> None:
    [ranking] = rankings_under(read([store]), ["gaussian_rgb(4)"], measure)
    assert (ranking.protocol, ranking.dataset, ranking.condition) == ("p", "d", "gaussian_rgb σ=4")
    view = getattr(open_results(store), measure)
    view = view[view["degradation"] == "gaussian_rgb"].set_index("model")
    for one in ranking.entrants:
        wanted = view.loc[one.name, ["value", "low", "high", "n_images"]].tolist()
        assert [one.value, one.low, one.high, one.n_images] == pytest.approx(wanted)
    *ranked, last = ranking.entrants
    assert (last.name, last.rank) == ("lab/few", "–")
    assert [sign * one.value for one in ranked] == sorted((sign * one.value for one in ranked), reverse=True)


def test_ties_are_those_of_single_comparisons(store: Path) -> None:
    results = read([store])
    [ranking] = rankings_under(results, ["gaussian_rgb"])
    pairs = list(itertools.combinations(MODELS, 2))
    single = {}
    for pair in pairs:
        [differences] = comparisons(results, *pair).values()
        [single[pair]] = [one for one in differences if one.degradation == "gaussian_rgb"]
    sure = dict(zip(pairs, [p < 0.05 for p in holm([single[pair].p for pair in pairs])], strict=True))
    assert 0 < sum(sure.values()) < len(pairs)
    for one in ranking.entrants[:-1]:
        better = sum(sure[pair] and single[pair].difference * (1 if pair[0] == one.name else -1) < 0
                     for pair in pairs if one.name in pair)  # fmt: skip
        worse = sum(sure[pair] for pair in pairs if one.name in pair) - better
        assert (one.first, one.last) == (better + 1, len(MODELS) - worse)


def test_the_mean_is_ranked_as_on_the_page(store: Path) -> None:
    results = read([store])
    [ranking] = mean_rankings(results)
    [board] = data(results, "")["boards"]
    wanted = {one["model"]: one for one in board["entrants"]}
    for one in ranking.entrants:
        assert [one.value, one.low, one.high] == pytest.approx(
            wanted[one.name]["stats"]["mean_degraded_accuracy"], abs=1e-6
        )
        ranks = wanted[one.name]["ranks"].get("mean_degraded_accuracy")
        assert ([one.first, one.last] if ranks else None) == ranks


def test_accuracy_at_a_camera(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "camera.json"
    mix = [MixMember(degradation="pepper", level=0.02), MixMember(degradation="jpeg", level=80.0)]
    report = CameraReport(name="hall", photographs=3, measurements={}, levels={}, mix=mix)
    file.write_text(report.json_text())
    assert main(["rank", "--db", str(store), "--camera", str(file)]) == 0
    assert "protocol p: pepper(0.02) + jpeg(80)" in capsys.readouterr().out
    file.write_text(report.model_copy(update={"mix": mix[:1]}).json_text())
    assert main(["rank", "--db", str(store), "--camera", str(file)]) == 2
    assert f"(pepper(0.02)) is not measured: run with degradations=camera:{file}" in capsys.readouterr().err


def test_command_line(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ranking.json"
    assert main(["rank", "--db", str(store), "--condition", "pepper(0.02) + jpeg(80)", "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "protocol p: pepper(0.02) + jpeg(80)" in printed
    assert [one["name"] for one in json.loads(out.read_text())[0]["entrants"]][-1] == "lab/few"
    assert main(["rank", "--db", str(store)]) == 0
    assert "mean over 2 degraded conditions" in capsys.readouterr().out
    for words, sentence in (
        (["--condition", "gausian"], "--condition 'gausian' is not measured: did you mean 'gaussian_rgb"),
        (["--measure", "label_change"], "add --condition"),
        (
            ["--measure", "label_change", "--condition", "none"],
            "no entrant has a label change p_Δ under these conditions",
        ),
        (["--condition", "none", "--json", str(tmp_path / "no" / "x")], "choose another --json"),
    ):
        assert main(["rank", "--db", str(store), *words]) == 2
        assert sentence in capsys.readouterr().err
