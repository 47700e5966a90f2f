"""MLflow: what a client finds after a run, and that nothing of it can stop a run."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cnnsens_bench.run import main
from cnnsens_bench.store import Store
from cnnsens_bench.tracking import step_of
from tests.conftest import TINY

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def words(pictures: Path, cache: Path, output: Path, *more: str) -> list[str]:
    return [
        "suite=quick", "dataset=folder", f"dataset.root={pictures}", f"cache={cache}", f"output={output}",
        "input_size=40", "trials=1", "training.epochs=2", "training.batch_size=8", "batch_size=8", "limit=6",
        f"models=[{{name: {TINY}, weights: random}},{{name: timm/test_efficientnet, weights: random}}]",
        "defenses=[none,gaussian_filter]",
        "degradations=[{name: gaussian_rgb, levels: [4, 64]},{name: pepper, levels: [0.04, 0.3]},flip_lr]", *more,
    ]  # fmt: skip


def runs_of(output: Path) -> list[Any]:
    client = mlflow.MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, max_results=100))


def of_kind(runs: list[Any], kind: str) -> list[Any]:
    return [run for run in runs if run.data.tags["kind"] == kind]


@pytest.fixture(scope="module")
def tracked(pictures: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("tracked")
    assert main(words(pictures, cache, output)) == 0
    return output


def test_a_client_finds_nested_runs_with_every_level(tracked: Path) -> None:
    runs = runs_of(tracked)
    (suite,) = of_kind(runs, "suite")
    assert suite.info.status == "FINISHED"
    assert suite.data.params["training.epochs"] == "2"
    evaluations, trainings = of_kind(runs, "evaluation"), of_kind(runs, "fine-tuning")
    assert (len(evaluations), len(trainings)) == (4, 2)
    assert all(r.data.tags["mlflow.parentRunId"] == suite.info.run_id for r in (*evaluations, *trainings))
    client = mlflow.MlflowClient(f"sqlite:///{tracked / 'mlflow.db'}")
    table = Store(tracked).query("FROM accuracy UNION ALL BY NAME SELECT *, 'change' AS kind FROM label_change")
    for run in evaluations:
        tags = run.data.tags
        assert tags["architecture"] in ("test_resnet", "test_efficientnet")
        assert (tags["dataset"], tags["suite"], tags["run_id"]) == ("folder", "quick", suite.data.tags["run_id"])
        assert run.data.params["training.lr_head"]
        own = table[(table["model"] == tags["model"]) & (table["defense"] == tags["defense"])]
        for view, rows in (("accuracy", own[own["kind"].isna()]), ("label_change", own[own["kind"] == "change"])):
            for degradation, scale in (("gaussian_rgb", 1), ("pepper", 1000), ("flip_lr", 1)):
                history = client.get_metric_history(run.info.run_id, f"{view}/{degradation}")
                logged = {point.step: point.value for point in history}
                expected = rows[rows["degradation"] == degradation].set_index("level")["value"]
                assert {step: logged[step] for step in (round(level * scale) for level in expected.index)} == {
                    round(level * scale): pytest.approx(value) for level, value in expected.items()
                }
        # The undegraded accuracy is where the curves begin.
        start = client.get_metric_history(run.info.run_id, "accuracy/pepper")[0]
        assert (start.step, start.value) == (0, run.data.metrics["accuracy"])
    losses = client.get_metric_history(trainings[0].info.run_id, "training/loss")
    assert len(losses) >= 4
    artifacts = {a.path for a in client.list_artifacts(suite.info.run_id)}
    figures = {a.path for a in client.list_artifacts(suite.info.run_id, "figures")}
    assert artifacts == {"config.yaml", "figures"}
    assert "figures/curves-none.png" in figures
    assert len(figures) == 2
    assert list((tracked / "mlartifacts").rglob("config.yaml"))


def test_the_same_command_makes_no_duplicates(tracked: Path, pictures: Path, cache: Path) -> None:
    before = {run.info.run_id for run in runs_of(tracked)}
    assert main(words(pictures, cache, tracked)) == 0
    assert {run.info.run_id for run in runs_of(tracked)} == before


def test_what_was_computed_since_replaces_what_was_logged(pictures: Path, cache: Path, tmp_path: Path) -> None:
    assert main(words(pictures, cache, tmp_path)) == 0
    store = Store(tmp_path)
    with store.connect() as connection:
        connection.execute("DELETE FROM predictions WHERE degradation = 'pepper' AND level = 0.3")
    (before, *_) = of_kind(runs_of(tmp_path), "evaluation")
    with store.connect() as connection:  # another outcome: what was right is wrong
        connection.execute("UPDATE predictions SET label = 99 WHERE degradation = 'none'")
    assert main(words(pictures, cache, tmp_path)) == 0
    evaluations = of_kind(runs_of(tmp_path), "evaluation")
    assert len(evaluations) == 4
    assert before.info.run_id not in {run.info.run_id for run in evaluations}
    assert all(run.data.metrics["accuracy"] == 0 for run in evaluations)


def test_off_means_no_file_and_no_import(pictures: Path, cache: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from cnnsens_bench.run import main; code = main(sys.argv[1:]); "
        "assert not [m for m in sys.modules if m.partition('.')[0] == 'mlflow']; sys.exit(code)"
    )
    command = [sys.executable, "-c", code, *words(pictures, cache, tmp_path, "tracking=off")]
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "nonsense://x", "sqlite:////proc/none/x.db"])
def test_a_server_that_cannot_be_reached_costs_one_warning(
    uri: str, pictures: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    assert main(words(pictures, cache, tmp_path, f"tracking.uri={uri}", "limit=2", "degradations=[flip_lr]")) == 0
    said = capsys.readouterr().out
    assert said.count("warning: MLflow cannot be reached") == 1
    assert f"at {uri}" in said
    assert "Traceback" not in said
    assert time.monotonic() - began < 60
    assert Store(tmp_path).query("SELECT status FROM runs")["status"].tolist() == ["done"]


def test_a_server_that_dies_during_a_run_costs_one_warning(
    pictures: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object, **__: object) -> None:
        raise ConnectionError("the server is gone")

    # After the suite's run has begun.
    monkeypatch.setattr("mlflow.MlflowClient.set_terminated", dies)
    assert main(words(pictures, cache, tmp_path, "limit=2", "degradations=[flip_lr]")) == 0
    assert capsys.readouterr().out.count("warning: MLflow cannot be reached") == 1


def test_a_stopped_run_is_marked(pictures: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("cnnsens_bench.experiment.runner.run_sweep", stop)
        assert main(words(pictures, cache, tmp_path, "limit=2")) == 130
    (suite,) = of_kind(runs_of(tmp_path), "suite")
    assert (suite.info.status, suite.data.tags["status"]) == ("KILLED", "interrupted")
    assert main(words(pictures, cache, tmp_path, "limit=2")) == 0
    (again,) = of_kind(runs_of(tmp_path), "suite")
    assert (again.info.run_id, again.info.status) == (suite.info.run_id, "FINISHED")


def test_steps_are_levels_or_their_thousandths() -> None:
    assert [step_of("gaussian_rgb", 16), step_of("pepper", 0.08), step_of("translation", 4)] == [16, 80, 4000]
    assert step_of("gaussian_rgb", 2.5) == 2500
    assert step_of("no_longer_registered", 3) == 3
