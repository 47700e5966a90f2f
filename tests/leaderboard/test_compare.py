"""Paired comparisons equal those of SciPy, of Holm's correction by hand, and of plain pandas."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, false_discovery_control

from cnnsens_bench.measures import accuracy_gain
from cnnsens_bench.measures.intervals import clustered_share
from leaderboard.__main__ import main
from leaderboard.compare import comparisons, holm
from leaderboard.read import read
from tests.leaderboard.made import sweep, write

PAIR = ("torchvision/alexnet", "timm/c:median_filter(size=3)")


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return pd.concat([sweep("r1", "d", range(60), 0), sweep("r2", "d", range(20), 1)], ignore_index=True)


@pytest.fixture(scope="module")
def store(rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("store"), rows, {"r1": "p", "r2": "q"})


def test_differences_and_tests(store: Path, rows: pd.DataFrame) -> None:
    tables = comparisons(read([store]), *PAIR)
    assert set(tables) == {("p", "d"), ("q", "d")}
    for (protocol, _), differences in tables.items():
        own = rows[rows["run_id"] == {"p": "r1", "q": "r2"}[protocol]]
        own = own.assign(hit=own["prediction"] == own["label"])
        key = ["degradation", "level", "image_id", "trial"]
        first = own[(own["model"] == PAIR[0]) & (own["defense"] == "none")]
        second = own[(own["model"] == "timm/c") & (own["defense"] != "none")]
        pairs = first.merge(second, on=key, suffixes=("", "_second"))
        wanted_p = []
        assert {(d.degradation, d.level) for d in differences} == set(
            zip(pairs["degradation"], pairs["level"], strict=True)
        )
        for one in differences:
            own = pairs[(pairs["degradation"] == one.degradation) & (pairs["level"] == one.level)]
            gain = accuracy_gain(own["image_id"], own["hit"], own["hit_second"])
            assert (one.difference, one.low, one.high) == pytest.approx((gain.value, gain.low, gain.high))
            assert (one.n_images, one.n_trials) == (gain.n_images, gain.n_trials)
            assert one.first - one.second == pytest.approx(one.difference)
            net = own.groupby("image_id")["hit"].sum() - own.groupby("image_id")["hit_second"].sum()
            wins, losses = int((net > 0).sum()), int((net < 0).sum())
            assert (one.images_for_first, one.images_for_second) == (wins, losses)
            assert one.p == pytest.approx(binomtest(wins, wins + losses).pvalue if wins + losses else 1)
            if one.n_trials == 1:  # McNemar's discordant pairs
                assert wins == (own["hit"] & ~own["hit_second"]).sum()
            wanted_p.append(one.p)
            same = clustered_share(own["image_id"], own["prediction"] == own["prediction_second"])
            found = one.agreement, one.agreement_low, one.agreement_high
            assert found == pytest.approx((same.value, same.low, same.high))
        assert [one.p_holm for one in differences] == pytest.approx(by_hand(wanted_p))


def by_hand(p: list[float]) -> list[float]:
    """Correct by Holm's definition: a hypothesis is rejected at level α if every one with a smaller p-value is, each at
    α divided by the number of hypotheses left."""
    return [min(1, max((len(p) - sum(r < q for r in p)) * q for q in p if q <= own)) for own in p]


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.5]) == [0.5]
    assert holm([0.9, 0.9]) == [1, 1]
    p = np.random.default_rng(0).random(30) ** 3
    assert holm(list(p)) == pytest.approx(by_hand(list(p)))
    assert (np.array(holm(list(p))) >= false_discovery_control(p) - 1e-12).all()


def test_the_other_way_round(store: Path) -> None:
    there, back = comparisons(read([store]), *PAIR), comparisons(read([store]), *PAIR[::-1])
    for key, differences in there.items():
        for one, other in zip(differences, back[key], strict=True):
            assert (one.difference, one.p_holm) == pytest.approx((-other.difference, other.p_holm))


def test_command_line(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out.json"
    assert main(["compare", *PAIR, "--db", str(store), "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "undegraded" in printed
    assert "gaussian_rgb σ=4" in printed
    found = json.loads(out.read_text())
    assert [table["protocol"] for table in found] == ["p", "q"]
    assert len(found[0]["differences"]) == 4
    assert main(["compare", "timm/d", PAIR[1], "--db", str(store)]) == 2
    assert "unknown entrant 'timm/d': did you mean" in capsys.readouterr().err
    assert main(["compare", PAIR[0], PAIR[0], "--db", str(store)]) == 2
    assert "compared with itself" in capsys.readouterr().err


def test_what_is_left_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Conditions with other numbers of trials, and those that one entrant alone has, are named."""
    shared = {("gaussian_rgb", 4.0): 2, ("pepper", 0.04): 1}
    rows = pd.concat(
        [
            sweep("r", "d", range(10, 18), 0, ("timm/a",), ("none",), {**shared, ("flip_lr", 0.0): 1}),
            sweep("r", "d", range(10, 18), 1, ("timm/b",), ("none",), {**shared, ("gaussian_rgb", 4.0): 3}),
        ]
    )
    path, out = write(tmp_path, rows, {"r": "p"}), tmp_path / "out.json"
    assert main(["compare", "timm/a", "timm/b", "--db", str(path), "--json", str(out)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    (found,) = json.loads(out.read_text())
    assert found["left_out"] == [
        "Left out, for A has 2 and B 3 trials of an image: gaussian_rgb σ=4 (8 images).",
        "Left out, for only A was measured under it: flip_lr.",
    ]
    assert all(sentence in printed for sentence in found["left_out"])
    assert [one["degradation"] for one in found["differences"]] == ["none", "pepper"]
    assert main(["compare", "timm/a", "timm/b", "--db", str(path), "--json", str(tmp_path / "missing" / "x")]) == 2
    assert "choose another --json" in capsys.readouterr().err
