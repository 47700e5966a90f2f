"""Whole runs with scores: killed, spread over Ray, in parts, and extended, they hold the same scores to the bit."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from cnnsens_bench.run import main
from cnnsens_bench.store import Store
from tests.conftest import TINY

TABLES = (
    "SELECT * EXCLUDE (run_id) FROM predictions ORDER BY ALL",
    "SELECT * EXCLUDE (run_id) FROM sensitivity ORDER BY ALL",
    "SELECT * EXCLUDE (run_id) FROM sensitivity_predictions ORDER BY ALL",
)
PREDICTORS = "clamped_gradient,'noisy_gradients(copies=2)','sampling(copies=3)',cubature"


def words(pictures: Path, cache: Path, output: Path, *more: str) -> list[str]:
    return [
        "suite=sensitivity", "dataset=folder", f"dataset.root={pictures}", f"cache={cache}", f"output={output}",
        "input_size=40", "trials=4", f"models=[{{name: {TINY}, weights: random}}]", "training.epochs=3",
        "training.batch_size=8", "batch_size=4", "defenses=[none,median_filter]", "tracking=off",
        f"sensitivity.predictors=[{PREDICTORS}]", "cluster.threads=1", *more,
    ]  # fmt: skip


def tables(output: Path) -> list[pd.DataFrame]:
    return [Store(output).query(question) for question in TABLES]


def same(output: Path, whole: Path) -> None:
    for one, other in zip(tables(output), tables(whole), strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def whole(pictures: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole")
    assert main(words(pictures, cache, output)) == 0
    return output


def test_a_whole_run(whole: Path) -> None:
    images = Store(whole).query("FROM images")
    _, scores, predicted = tables(whole)
    assert len(scores) == len(images) * 2 * 3
    # Two levels of Gaussian noise for three predictors, two of pepper for two, two of translation for one.
    assert len(predicted) == len(images) * 2 * 3 * (2 * 3 + 2 * 2 + 2)
    assert scores.notna().all().all()
    assert predicted.notna().all().all()
    assert (predicted["deviation"] >= 0).all()
    check = Store(whole).query("FROM sensitivity_check")
    assert len(check) == 2 * 2 * 6
    assert (check["n"] == len(images)).all()
    assert {file.name.partition("-")[0] for file in (whole / "figures").glob("*.png")} >= {"fig5", "fig6", "predictors"}


@pytest.mark.slow
def test_the_same_command_again_computes_nothing(
    whole: Path, pictures: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tables(whole)
    everything = len(before[0]) + (len(before[1]) + len(before[2])) // 3
    assert main(words(pictures, cache, whole)) == 0
    assert f"{everything} of {everything} evaluations are in the store" in capsys.readouterr().out
    for one, other in zip(tables(whole), before, strict=True):
        pd.testing.assert_frame_equal(one, other)


@pytest.mark.slow
def test_more_of_the_same_adds_only_what_is_new(whole: Path, pictures: Path, cache: Path, tmp_path: Path) -> None:
    """A run without scores, then one of few images with one predictor, then the whole one."""
    assert main(words(pictures, cache, tmp_path, "sensitivity=off")) == 0
    assert not len(tables(tmp_path)[1])
    assert main(words(pictures, cache, tmp_path, "sensitivity.predictors=[cubature]", "limit=5")) == 0
    assert len(tables(tmp_path)[1]) == 5 * 2 * 3
    assert main(words(pictures, cache, tmp_path)) == 0
    same(tmp_path, whole)


@pytest.mark.slow
def test_a_killed_run_goes_on(whole: Path, pictures: Path, cache: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cnnsens_bench.run", *words(pictures, cache, tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 90
    while process.poll() is None and time.monotonic() < until:
        if list(tmp_path.glob("parts/*/sensitivity-*.parquet")):
            break
        time.sleep(0.01)
    assert process.poll() is None, "the run was over before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert main(words(pictures, cache, tmp_path)) == 0
    same(tmp_path, whole)


@pytest.mark.slow
def test_ray_gives_the_same_scores(whole: Path, pictures: Path, cache: Path, tmp_path: Path) -> None:
    assert main(words(pictures, cache, tmp_path, "cluster.engine=ray", "cluster.workers=2")) == 0
    same(tmp_path, whole)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("sensitivity.predictors=[oracle]", "unknown predictor 'oracle'"),
        ("sensitivity.enabled=perhaps", "config key 'sensitivity.enabled'"),
        ("sensitivity.predictor=[cubature]", "unknown config key 'sensitivity.predictor': did you mean"),
    ],
)
def test_wrong_requests_are_one_sentence(
    more: str, sentence: str, pictures: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(pictures, cache, tmp_path, more)) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def test_a_filter_without_a_gradient_is_refused(
    pictures: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "opaque.py").write_text(
        "import torch\nfrom cnnsens_bench.defenses import defense\n\n@defense('opaque')\ndef opaque():\n"
        "    return lambda pixels: torch.from_numpy(pixels.detach().numpy() * 0.5)\n"
    )
    monkeypatch.chdir(tmp_path)
    request = words(pictures, cache, tmp_path / "out", "plugins=[opaque]", "defenses=[none,opaque]")
    assert main(request) == 2
    assert "defense 'opaque' gives no gradient" in capsys.readouterr().err
