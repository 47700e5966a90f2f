"""The gate fails entrants that are worse by more than the margin, and hardly ever those that are not."""

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import binom, binomtest

from cnnsens_bench import cli
from cnnsens_bench.config.compose import compose
from leaderboard.__main__ import main
from leaderboard.gate import check
from leaderboard.pairing import PairedBoard, PairedCondition
from leaderboard.significance import ALPHA, exchange_p, margin_p
from tests.conftest import TINY
from tests.leaderboard.made import sweep, write


def test_one_trial_is_mcnemar() -> None:
    for wins, losses in itertools.product((0, 1, 4, 30), (0, 2, 9, 45)):
        gains = np.repeat([1.0, -1.0, 0.0], [wins, losses, 20])
        wanted = binomtest(wins, wins + losses, alternative="less").pvalue if wins + losses else 1.0
        assert exchange_p(gains, np.ones(len(gains), int)) == pytest.approx(wanted)


@pytest.mark.parametrize("trials", [[3] * 7, [1, 2, 2, 3, 1, 3, 2]])
def test_the_exact_test_counts_every_exchange(trials: list[int]) -> None:
    """It equals the share of all sign patterns whose sum of gains is as low."""
    rng = np.random.default_rng(0)
    counts = np.array(trials)
    for _ in range(5):
        gains = rng.integers(-counts, counts + 1) / counts
        sums = [float(np.dot(signs, np.abs(gains))) for signs in itertools.product((-1, 1), repeat=len(counts))]
        wanted = np.mean([total <= gains.sum() + 1e-9 for total in sums])
        assert exchange_p(gains, counts) == pytest.approx(wanted)


def test_the_margin_shifts_the_test() -> None:
    gains = np.repeat([1.0, -1.0, 0.0], [40, 80, 1880])  # 2 points worse
    p = [margin_p(gains, margin) for margin in (0.0, 0.01, 0.02, 0.03)]
    assert p == sorted(p)
    assert p[0] < 0.001
    assert p[2] == pytest.approx(0.5, abs=0.01)
    assert margin_p(-gains, 0.0) == pytest.approx(1 - p[0])


def board(first: np.ndarray, second: np.ndarray) -> PairedBoard:
    """Return a board of hits of shape (conditions, images, trials)."""
    images, trials = np.arange(first.shape[1]), np.full(first.shape[1], first.shape[2])
    conditions = [
        PairedCondition("pepper", float(level), images, a.mean(1), b.mean(1), trials)
        for level, (a, b) in enumerate(zip(first, second, strict=True))
    ]
    return PairedBoard("p", "d", 0, 1, conditions, [])


ALIKE, UNLIKE = (0.15, 0.05), (0.9, 0.3)
"""Parameters of the beta distribution of the images' probabilities of being right, all with an accuracy of 75 %: two
networks, of which one is 5 points worse, disagree on 11 % of the images, or on 24 %."""


def simulated(
    rng: np.random.Generator, drop: float, shape: tuple[int, int, int], likeness: tuple[float, float] = ALIKE,
    margin: float = 0.01,
) -> bool:  # fmt: skip
    """Return whether the gate fails a network that is worse by `drop` under each condition."""
    p = rng.beta(*likeness, (1, shape[1], 1))
    checks = check([board(rng.random(shape) < p, rng.random(shape) < p * (1 - drop / 0.75))], margin)
    return any(one.outcome == "worse" for one in checks)


def test_simulated_pairs() -> None:
    rng = np.random.default_rng(0)
    assert not any(simulated(rng, 0.0, (4, 1000, 1)) for _ in range(25))
    assert all(simulated(rng, 0.05, (4, 1000, 1)) for _ in range(25))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1000, 1), (16, 1000, 1), (16, 300, 3)])
@pytest.mark.parametrize("likeness", [ALIKE, UNLIKE])
def test_equal_networks_hardly_ever_fail(shape: tuple[int, int, int], likeness: tuple[float, float]) -> None:
    rng = np.random.default_rng(1)
    assert sum(simulated(rng, 0.0, shape, likeness) for _ in range(200)) <= 0.05 * 200
    # Without a margin the probability is close to 5 %, of which 200 pairs may show more by chance.
    assert sum(simulated(rng, 0.0, shape, likeness, margin=0.0) for _ in range(200)) <= binom.ppf(0.999, 200, ALPHA)


@pytest.mark.slow
@pytest.mark.parametrize(("conditions", "likeness"), [(1, ALIKE), (4, UNLIKE), (16, UNLIKE)])
def test_five_points_are_caught(conditions: int, likeness: tuple[float, float]) -> None:
    rng = np.random.default_rng(2)
    assert sum(simulated(rng, 0.05, (conditions, 1000, 1), likeness) for _ in range(200)) >= 0.95 * 200


WORSE = {("gaussian_rgb", 4.0): 1, ("pepper", 0.04): 2, ("flip_lr", 0.0): 1}


def rows(model: str, wrong: dict[str, float], images: range, run_id: str = "r", seed: int = 0) -> pd.DataFrame:
    """Return predictions of a model that is wrong with these probabilities by degradation, else one in ten."""
    rng = np.random.default_rng(seed)
    found = sweep(run_id, "d", images, 0, (model,), ("none",), WORSE)
    of_rows = found["degradation"].map(lambda name: wrong.get(name, 0.1))
    missed = rng.random(len(found)) < of_rows
    return found.assign(prediction=found["label"] + missed)


IMAGES = range(10, 310)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of yesterday's network."""
    return write(tmp_path_factory.mktemp("before"), rows("lab/a", {}, IMAGES), {"r": "p"})


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of today's: one that is worse under pepper alone, under the same name, and one that is not worse."""
    made = [rows("lab/a", {"pepper": 0.4}, IMAGES, "s", 1), rows("lab/b", {}, IMAGES, "s", 2)]
    return write(tmp_path_factory.mktemp("after"), pd.concat(made), {"s": "p"})


def gate(before: Path, after: Path, second: str, *options: str) -> int:
    words = ["compare", "lab/a", second, "--against", str(before), "--db", str(after)]
    return main([*words, "--fail-below", "-2", *options])


def test_a_retrained_network_of_the_same_name_fails_where_it_is_worse(
    before: Path, after: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    junit, out = tmp_path / "gate.xml", tmp_path / "gate.json"
    assert gate(before, after, "lab/a", "--junit", str(junit), "--json", str(out)) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "Gate: accuracy of B may be at most 2 points worse than A's; 95 % confidence over 4 conditions" in printed
    assert "Worse under pepper p=0.04 (-" in printed
    assert "FAILED. Conditions: 1 worse, " in printed
    [found] = json.loads(out.read_text())
    assert (found["gate"]["failed"], found["gate"]["fail_below"], found["gate"]["tested"]) == (True, -2.0, 4)
    outcomes = {one["degradation"]: one["outcome"] for one in found["gate"]["checks"]}
    assert [name for name, outcome in outcomes.items() if outcome == "worse"] == ["pepper"]
    [suite] = ElementTree.parse(junit).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("4", "1")
    [failure] = [case for case in suite.iter("testcase") if case.find("failure") is not None]
    assert failure.get("name") == "pepper p=0.04"
    skipped = [case.get("name") for case in suite.iter("testcase") if case.find("skipped") is not None]
    assert len(skipped) == int(suite.get("skipped")) == list(outcomes.values()).count("undecided")


def test_a_network_that_is_not_worse_passes(before: Path, after: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate(before, after, "lab/b") == 0
    printed = capsys.readouterr().out
    assert "Passed. Conditions: 0 worse, " in printed
    assert gate(before, after, "lab/a", "--condition", "gaussian_rgb", "--condition", "undegraded") == 0
    printed = capsys.readouterr().out
    assert "over 2 conditions" in printed
    assert "pepper" not in printed


def test_label_change(before: Path, after: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A network whose labels change more often is worse, and the undegraded images tell nothing."""
    out = tmp_path / "gate.json"
    assert gate(before, after, "lab/a", "--measure", "label_change", "--json", str(out)) == 1
    [found] = json.loads(out.read_text())
    checks = {one["degradation"]: one for one in found["gate"]["checks"]}
    assert set(checks) == {"gaussian_rgb", "pepper", "flip_lr"}
    assert checks["pepper"]["outcome"] == "worse"
    difference = {one["degradation"]: one["difference"] for one in found["differences"]}
    assert all(one["gain"] == pytest.approx(difference[name]) for name, one in checks.items())
    assert "label change p_Δ of B may be at most 2 points worse" in " ".join(capsys.readouterr().out.split())


def test_images_that_only_one_has_are_left_out_and_said(
    before: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = rows("lab/a", {}, range(10, 60), "s", 3)
    few = few[(few["degradation"] != "flip_lr") | (few["image_id"] != "i010")]
    few = few[(few["degradation"] != "none") | (few["image_id"] != "i011")]
    path = write(tmp_path, few, {"s": "p"})
    assert gate(before, path, "lab/a") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "Left out, for only A has them: undegraded (251 images), flip_lr (251 images), gaussian_rgb σ=4 (250 images), "
        "pepper p=0.04 (250 images)."
    ) in printed
    assert "Not decided, which more images would change:" in printed
    assert gate(before, path, "lab/a", "--measure", "label_change") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "an entrant lacks their undegraded prediction: flip_lr (1 images), gaussian_rgb σ=4 (1 images)" in printed


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--fail-below", "1"], "--fail-below 1 is no margin: it takes a number of points from -100 to 0"),
        (["--fail-below", "nan"], "--fail-below nan is no margin"),
        (["--condition", "peper"], "--condition 'peper' is not measured: did you mean 'pepper'"),
        (["--junit", "nowhere/x.xml"], "nowhere/x.xml cannot be written (No such file or directory): choose another"),
    ],
)
def test_wrong_requests(
    before: Path, after: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gate(before, after, "lab/b", *words) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_wrong_databases(before: Path, after: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "lab/a", "lab/b", "--db", str(after), "--junit", "x.xml"]) == 2
    assert "add --fail-below" in capsys.readouterr().err
    assert gate(after, after.parent / ".." / after.parent.name / after.name, "lab/b") == 2
    assert "is named by --against and by --db" in capsys.readouterr().err
    assert gate(before, after, "lab/c") == 2
    assert "unknown entrant 'lab/c' in the database of --db" in capsys.readouterr().err
    other = write(tmp_path, rows("lab/a", {}, range(10, 20), "t"), {"t": "q"})
    assert gate(before, other, "lab/a") == 2
    assert "nothing to pair, unless both are run with the same suite and keys" in capsys.readouterr().err


def test_names_that_xml_cannot_hold(tmp_path: Path) -> None:
    name = "lab/<b>\x01\u202e&"
    made = [rows("lab/a", {}, range(10, 20)), rows(name, {}, range(10, 20))]
    path = write(tmp_path, pd.concat(made), {"r": "p"})
    junit = tmp_path / "gate.xml"
    assert main(["compare", "lab/a", name, "--db", str(path), "--fail-below", "0", "--junit", str(junit)]) == 0
    [suite] = ElementTree.parse(junit).getroot()
    assert suite.get("name") == r"lab/<b>\x01\u202e& against lab/a"


WORKFLOW = Path(__file__).parents[2] / "docs" / "howto" / "gate.md"


def steps(event: str) -> list[str]:
    """Return the commands that the workflow of the guide runs on an event."""
    [text] = re.findall(r"^```yaml\n(.*?)^```$", WORKFLOW.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    of_event = [f"github.event_name == '{event}'", None]
    return [
        step["run"]
        for step in yaml.safe_load(text)["jobs"]["gate"]["steps"]
        if step.get("if") in of_event
        if "run" in step
    ]


def test_the_workflow_compares_on_pull_requests_alone(
    before: Path, after: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys of its run exist, and its comparison reads the databases that the run and the cache have left."""
    monkeypatch.chdir(tmp_path)
    install, evaluate, keep = steps("push")
    assert steps("pull_request")[:2] == [install, evaluate]
    assert keep == "mv runs/candidate runs/main"
    program, command, *keys = shlex.split(evaluate.replace("$MODEL", "timm/resnet18"))
    assert (program, command) == ("cnnsens-bench", "run")
    config = compose(keys)
    for source, folder in ((before, config.output.replace("candidate", "main")), (after, config.output)):
        Path(folder).mkdir(parents=True)
        shutil.copy(source, Path(folder) / "results.duckdb")
    program, *words = shlex.split(steps("pull_request")[2].replace("$MODEL", "lab/a"))
    assert cli.main(words) == 1
    assert {"gate.json", "gate.xml"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.slow
def test_the_workflow_runs_whole(pictures: Path, checkpoint: Path, tmp_path: Path) -> None:
    """On the main branch it keeps its results; a pull request with the same network passes."""
    (tmp_path / "photos").symlink_to(pictures)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "programs").mkdir()
    for name, line in (("pip", "exit 0"), ("cnnsens-bench", f'exec "{sys.executable}" -m cnnsens_bench.cli "$@"')):
        program = tmp_path / "programs" / name
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
    environment = os.environ | {"MODEL": TINY, "PYTHONPATH": str(WORKFLOW.parents[2]), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{tmp_path / 'programs'}:{environment['PATH']}"

    def run(event: str, weights: Path) -> list[int]:
        shutil.copy(weights, tmp_path / "checkpoints" / "latest.pt")
        shutil.rmtree(tmp_path / "runs" / "candidate", ignore_errors=True)
        return [
            subprocess.run(["bash", "-ec", step], cwd=tmp_path, env=environment).returncode for step in steps(event)
        ]

    assert run("push", checkpoint) == [0, 0, 0]
    assert run("pull_request", checkpoint) == [0, 0, 0]
    found = json.loads((tmp_path / "gate.json").read_text())
    assert [one["tested"] for one in (board["gate"] for board in found)] == [4]
    assert all(one["difference"] == 0 for one in found[0]["differences"])
