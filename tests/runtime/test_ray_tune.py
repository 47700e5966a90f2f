"""The search as users run it: whole, killed and resumed, with trials that diverge, and in several processes."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray

from cnnsens_bench import tune
from cnnsens_bench.run import main as run
from tests.conftest import TINY


def words(pictures: Path, cache: Path, output: Path, *more: str) -> list[str]:
    return [
        "dataset=folder", f"dataset.root={pictures}", f"cache={cache}", f"output={output}", "input_size=40",
        f"model={TINY}", "weights=random", "training.epochs=2", "training.batch_size=8", "batch_size=8",
        "training.lr_body=5e-3", "training.lr_head=5e-3", "search.trials=3", "search.epochs=[1,2]",
        "tracking=off", *more,
    ]  # fmt: skip


def record(output: Path) -> list[dict]:
    return [json.loads(text) for file in output.glob("search/*/trials.jsonl") for text in file.read_text().splitlines()]


@pytest.fixture(scope="module", autouse=True)
def _no_ray_left() -> object:
    yield
    ray.shutdown()


def test_a_search_ends_with_recipes_and_a_checkpoint_that_run_uses(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert tune.main(words(pictures, tmp_path / "cache", output, "tracking=on")) == 0
    said = capsys.readouterr().out
    assert said.count("  trial ") == 3
    assert_tracked(output)
    trials = record(output)
    assert trials[0]["number"] == 1
    assert (trials[0]["recipe"]["lr_head"], trials[0]["recipe"]["epochs"], trials[0]["status"]) == (5e-3, 2, "done")
    done = [trial["metrics"]["objective"] for trial in trials if trial["status"] == "done"]
    assert f"objective {max(done):.4f}" in (output / "recipes.yaml").read_text()
    assert max(done) >= trials[0]["metrics"]["objective"]
    assert not list((tmp_path / "cache" / "canvases").iterdir())
    # The same command again searches nothing and trains nothing.
    assert tune.main(words(pictures, tmp_path / "cache", output)) == 0
    said = capsys.readouterr().out
    assert "  trial " not in said
    assert "checkpoint from the cache" in said
    # `run` with the file finds the checkpoint; so does `run` that may search itself.
    sweep = words(pictures, tmp_path / "cache", tmp_path / "run", "degradations=[flip_lr]", "limit=3")
    assert run([*sweep, f"recipe={output / 'recipes.yaml'}"]) == 0
    assert "checkpoint from the cache" in capsys.readouterr().out
    own = words(pictures, tmp_path / "cache", output, "degradations=[flip_lr]", "limit=3", "recipe=search")
    assert run(own) == 0
    said = capsys.readouterr().out
    assert "  trial " not in said
    assert "checkpoint from the cache" in said
    assert len(list((tmp_path / "cache" / "checkpoints").iterdir())) == 1


def assert_tracked(output: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    (suite,) = (run for run in runs if run.data.tags["kind"] == "suite")
    nested = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == suite.info.run_id]
    assert sorted(run.data.tags["kind"] for run in nested) == ["fine-tuning", "trial", "trial", "trial"]
    by_number = {run.info.run_name.split()[1]: run for run in nested if run.data.tags["kind"] == "trial"}
    for trial in record(output):
        run = by_number[str(trial["number"])]
        assert run.data.tags["trial_status"] == trial["status"]
        assert run.data.metrics["search/objective"] == pytest.approx(trial["metrics"]["objective"])
        assert float(run.data.params["training.lr_body"]) == trial["recipe"]["lr_body"]
        assert {"validation/none", "validation/pepper", "validation/gaussian_rgb"} <= run.data.metrics.keys()


@pytest.mark.slow
def test_a_killed_search_goes_on_without_losing_trials(pictures: Path, tmp_path: Path) -> None:
    arguments = words(pictures, tmp_path / "cache", tmp_path / "out", "search.trials=5", "search.grace=1")
    command = [sys.executable, "-m", "cnnsens_bench.tune", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while process.poll() is None and len(record(tmp_path / "out")) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    assert process.poll() is None, "the search was over before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = record(tmp_path / "out")
    assert 2 <= len(before) < 5
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert f"was interrupted after {len(before)} of 5 trials: resume=true" in again.stderr
    after = subprocess.run([*command, "resume=true"], capture_output=True, text=True, check=False)
    assert after.returncode == 0, after.stderr[-2000:]
    assert f"{len(before)} of 5 trials have ended" in after.stdout
    assert after.stdout.count("  trial ") == 5 - len(before)
    trials = record(tmp_path / "out")
    assert trials[: len(before)] == before
    assert {trial["number"] for trial in trials} == {1, 2, 3, 4, 5}


@pytest.mark.slow
def test_a_trial_that_diverges_is_marked_and_the_search_goes_on(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without Optuna the search is random, and the given recipe still comes first.
    monkeypatch.setattr("cnnsens_bench.runtime.ray_tune.has_optuna", lambda: False)
    # Rates from the given recipe's up to 1e30 times them.
    arguments = words(pictures, tmp_path / "cache", tmp_path / "out", "search.rate_factor=1e30", "search.trials=4")
    assert tune.main(arguments) == 0
    said = capsys.readouterr().out
    trials = record(tmp_path / "out")
    assert (trials[0]["number"], trials[0]["recipe"]["lr_head"], trials[0]["status"]) == (1, 5e-3, "done")
    diverged = [trial for trial in trials if trial["status"] == "diverged"]
    assert diverged, [trial["status"] for trial in trials]
    assert len(trials) == 4
    assert all(trial["metrics"]["objective"] == 0 and "diverged" in trial["error"] for trial in diverged)
    assert "diverged (training diverged (loss" in said


@pytest.mark.slow
def test_a_trial_in_two_processes(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = words(pictures, tmp_path / "cache", tmp_path / "out", "search.workers_per_trial=2", "search.trials=2")
    assert tune.main(arguments) == 0
    assert [trial["status"] in ("done", "stopped") for trial in record(tmp_path / "out")] == [True, True]


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("search.trials=0", "search.trials is 0: it must be at least 1"),
        ("search.validation=1", "search.validation is 1.0"),
        ("search.undegraded_weight=2", "search.undegraded_weight is 2.0"),
        ("search.epochs=[5,2]", "search.epochs is"),
        ("search.input_dropout=[0,1]", "search.input_dropout is"),
        ("search.gpus_per_trial=1.5", "search.gpus_per_trial is 1.5: it must be a share of one GPU, or a whole"),
        ("search.degradations=[peper]", "unknown degradation 'peper': did you mean 'pepper'"),
        ("search.trails=3", "unknown config key 'search.trails': did you mean 'search.trials'"),
        ("training.epochs=0", "training.epochs is 0 for"),
        ("model=timm/test_resnett", "unknown model"),
        ("model=", "model '' lacks its source"),
        ("recipe=/nowhere.yaml", "recipe: there is no file /nowhere.yaml"),
    ],
)
def test_wrong_requests(
    word: str, sentence: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune.main([*words(pictures, tmp_path / "cache", tmp_path / "out"), word]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1


def test_help_says_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert tune.main(["--help"]) == 0
    said = capsys.readouterr().out
    for expected in ("cnnsens_bench.tune", "search.trials=16", "resume=false", "recipes.yaml", "suite=quick"):
        assert expected in said
