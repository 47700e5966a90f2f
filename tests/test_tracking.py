"""What a client of MLflow finds after a run, and that no fault of MLflow can stop a run."""

import dataclasses
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest

from cnnsens_bench.datasets import Samples
from cnnsens_bench.experiment.tracked_results import step_of
from cnnsens_bench.models import load_checkpoint
from cnnsens_bench.run import main
from cnnsens_bench.store import Store
from cnnsens_bench.training.recipe import Recipe
from tests.conftest import TINY


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def arguments(pictures: Path, cache: Path, output: Path, *more: str) -> list[str]:
    return [
        "suite=quick", "dataset=folder", f"dataset.root={pictures}", f"cache={cache}", f"output={output}",
        "input_size=40", "trials=1", "training.epochs=2", "training.batch_size=8", "batch_size=8", "limit=6",
        f"models=[{{name: {TINY}, weights: random}},{{name: timm/test_efficientnet, weights: random}}]",
        "defenses=[none,gaussian_filter]",
        "degradations=[{name: gaussian_rgb, levels: [4, 64]},{name: pepper, levels: [0.04, 0.3]},flip_lr]", *more,
    ]  # fmt: skip


def client_of(output: Path) -> Any:
    return mlflow.MlflowClient(f"sqlite:///{output / 'mlflow.db'}")


def experiments_of(output: Path) -> list[str]:
    return [experiment.experiment_id for experiment in client_of(output).search_experiments()]


def runs_of(output: Path) -> list[Any]:
    return list(client_of(output).search_runs(experiments_of(output), max_results=100))


def models_of(output: Path) -> list[Any]:
    return list(client_of(output).search_logged_models(experiments_of(output)))


def of_kind(runs: list[Any], kind: str) -> list[Any]:
    return [run for run in runs if run.data.tags["kind"] == kind]


@pytest.fixture(scope="module")
def tracked(pictures: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("tracked")
    assert main(arguments(pictures, cache, output)) == 0
    return output


def test_a_client_finds_nested_runs_with_every_level(tracked: Path) -> None:
    runs = runs_of(tracked)
    (suite,) = of_kind(runs, "suite")
    assert suite.info.status == "FINISHED"
    assert suite.data.params["training.epochs"] == "2"
    evaluations, trainings = of_kind(runs, "evaluation"), of_kind(runs, "fine-tuning")
    assert (len(evaluations), len(trainings)) == (4, 2)
    assert all(r.data.tags["mlflow.parentRunId"] == suite.info.run_id for r in (*evaluations, *trainings))
    client = client_of(tracked)
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
    assert figures == {
        "figures/curves-none.png", "figures/curves-gaussian_filter_size_3__sigma_0_5.png",
        "figures/defenses-timm_test_resnet.png", "figures/defenses-timm_test_efficientnet.png",
    }  # fmt: skip
    assert list((tracked / "mlartifacts").rglob("config.yaml"))


def test_runs_have_the_data_set_as_input(tracked: Path, samples: Samples) -> None:
    contexts = {}
    for run in runs_of(tracked):
        (given,) = run.inputs.dataset_inputs
        assert (given.dataset.name, given.dataset.digest) == ("folder", samples.fingerprint()[:36])
        contexts.setdefault(run.data.tags["kind"], set()).update(tag.value for tag in given.tags)
    assert contexts == {"suite": {"evaluation"}, "evaluation": {"evaluation"}, "fine-tuning": {"training"}}


def test_trained_networks_are_logged_models_with_metrics(tracked: Path, samples: Samples) -> None:
    runs = {run.info.run_id: run for run in runs_of(tracked)}
    models = models_of(tracked)
    assert sorted(model.name for model in models) == [
        "test_efficientnet, gaussian_filter(3, 0_5)", "test_efficientnet, none",
        "test_resnet, gaussian_filter(3, 0_5)", "test_resnet, none",
    ]  # fmt: skip
    digests = Store(tracked).query("FROM models").set_index(["model", "defense"])["weights_sha256"]
    for model in models:
        assert model.status == "READY"
        tags = model.tags
        assert tags["weights_sha256"] == digests[tags["model"], tags["defense"]]
        assert load_checkpoint(Path(tags["checkpoint"])).digest() == tags["weights_sha256"]
        trained_by = runs[model.source_run_id]
        assert (trained_by.data.tags["kind"], trained_by.data.tags["model"]) == ("fine-tuning", tags["model"])
        assert model.model_id in {output.model_id for output in trained_by.outputs.model_outputs}
        assert model.params["training.epochs"] == "2"
        (run_id,) = {metric.run_id for metric in model.metrics}
        evaluation = runs[run_id]
        assert (evaluation.data.tags["kind"], evaluation.data.tags["defense"]) == ("evaluation", tags["defense"])
        evaluated = client_of(tracked).get_run(run_id).inputs.model_inputs
        assert [given.model_id for given in evaluated] == [model.model_id]
        assert {metric.key for metric in model.metrics} == set(evaluation.data.metrics)
        (dataset,) = {(metric.dataset_name, metric.dataset_digest) for metric in model.metrics}
        assert dataset == ("folder", samples.fingerprint()[:36])
    # The weights themselves stay where they are.
    assert {file.suffix for file in (tracked / "mlartifacts").rglob("*") if file.is_file()} == {".png", ".yaml"}


@pytest.mark.slow
def test_fine_tunings_have_their_recipe_and_their_defense(pictures: Path, cache: Path, tmp_path: Path) -> None:
    one = f"models=[{{name: {TINY}, weights: random}}]"
    defenses = "defenses=[none,input_dropout,input_dropout+gaussian_filter]"
    more = ("limit=2", "degradations=[flip_lr]", "training.lr_body=2e-3", one, defenses)
    assert main(arguments(pictures, cache, tmp_path, *more)) == 0
    runs = {run.data.tags["defense"]: run for run in of_kind(runs_of(tmp_path), "fine-tuning")}
    assert set(runs) == {"none", "input_dropout(p=0.1)"}
    recipe = Recipe(epochs=2, batch_size=8, lr_body=2e-3, min_area=0.6)
    for run, dropout in ((runs["none"], 0.0), (runs["input_dropout(p=0.1)"], 0.1)):
        expected = dataclasses.asdict(dataclasses.replace(recipe, input_dropout=dropout))
        assert run.data.params == {
            **{f"training.{key}": str(value) for key, value in expected.items()},
            "model": TINY, "weights": "random", "input_size": "40", "seed": "0",
        }  # fmt: skip


def test_the_same_command_makes_no_duplicates(tracked: Path, pictures: Path, cache: Path) -> None:
    before = {run.info.run_id for run in runs_of(tracked)}, {model.model_id for model in models_of(tracked)}
    assert main(arguments(pictures, cache, tracked)) == 0
    assert ({run.info.run_id for run in runs_of(tracked)}, {model.model_id for model in models_of(tracked)}) == before
    assert all(len(run.inputs.dataset_inputs) == 1 for run in runs_of(tracked))


@pytest.mark.slow
def test_what_was_computed_since_replaces_what_was_logged(pictures: Path, cache: Path, tmp_path: Path) -> None:
    assert main(arguments(pictures, cache, tmp_path)) == 0
    store = Store(tmp_path)
    with store.connect() as connection:
        connection.execute("DELETE FROM predictions WHERE degradation = 'pepper' AND level = 0.3")
    (before, *_) = of_kind(runs_of(tmp_path), "evaluation")
    with store.connect() as connection:  # another outcome: what was right is wrong
        connection.execute("UPDATE predictions SET label = 99 WHERE degradation = 'none'")
    assert main(arguments(pictures, cache, tmp_path)) == 0
    evaluations = of_kind(runs_of(tmp_path), "evaluation")
    assert len(evaluations) == 4
    assert before.info.run_id not in {run.info.run_id for run in evaluations}
    assert all(run.data.metrics["accuracy"] == 0 for run in evaluations)
    # A logged model has the metrics of its last evaluation alone.
    models = models_of(tmp_path)
    assert len(models) == 4
    assert all([m.value for m in model.metrics if m.key == "accuracy"] == [0.0] for model in models)


@pytest.mark.slow
def test_off_means_no_file_and_no_import(pictures: Path, cache: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from cnnsens_bench.run import main; code = main(sys.argv[1:]); "
        "assert not [m for m in sys.modules if m.partition('.')[0] == 'mlflow']; sys.exit(code)"
    )
    command = [sys.executable, "-c", code, *arguments(pictures, cache, tmp_path, "tracking=off", "limit=2")]
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "nonsense://x", "sqlite:////proc/none/x.db"])
def test_a_server_that_cannot_be_reached_costs_one_warning(
    uri: str, pictures: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    assert main(arguments(pictures, cache, tmp_path, f"tracking.uri={uri}", "limit=2", "degradations=[flip_lr]")) == 0
    said = capsys.readouterr().out
    assert said.count("warning: MLflow cannot be reached") == 1
    assert f"at {uri}" in said
    assert "Traceback" not in said
    assert time.monotonic() - began < 60
    assert Store(tmp_path).query("SELECT status FROM runs")["status"].tolist() == ["done"]


@pytest.mark.slow
def test_a_server_that_dies_during_a_run_costs_one_warning(
    pictures: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object, **__: object) -> None:
        raise ConnectionError("the server is gone")

    # After the suite's run has begun.
    monkeypatch.setattr("mlflow.MlflowClient.set_terminated", dies)
    assert main(arguments(pictures, cache, tmp_path, "limit=2", "degradations=[flip_lr]")) == 0
    assert capsys.readouterr().out.count("warning: MLflow cannot be reached") == 1


@pytest.mark.slow
def test_a_stopped_run_is_marked(pictures: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("cnnsens_bench.experiment.runner.run_sweep", stop)
        assert main(arguments(pictures, cache, tmp_path, "limit=2")) == 130
    (suite,) = of_kind(runs_of(tmp_path), "suite")
    assert (suite.info.status, suite.data.tags["status"]) == ("KILLED", "interrupted")
    assert main(arguments(pictures, cache, tmp_path, "limit=2")) == 0
    (again,) = of_kind(runs_of(tmp_path), "suite")
    assert (again.info.run_id, again.info.status) == (suite.info.run_id, "FINISHED")


def test_steps_are_levels_or_their_thousandths() -> None:
    assert [step_of("gaussian_rgb", 16), step_of("pepper", 0.08), step_of("translation", 4)] == [16, 80, 4000]
    assert step_of("gaussian_rgb", 2.5) == 2500
    assert step_of("no_longer_registered", 3) == 3
