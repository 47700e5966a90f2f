"""A network whose loss diverges is marked, and the others are evaluated."""

from pathlib import Path

import pytest

from cnnsens_bench.run import main
from cnnsens_bench.store import Store
from tests.conftest import TINY

WILD = "training: {lr_head: 1.0e+30, lr_body: 1.0e+30, epochs: 3}"


def arguments(pictures: Path, folder: Path, models: str, *more: str) -> list[str]:
    return [
        "suite=quick", "dataset=folder", f"dataset.root={pictures}", f"cache={folder / 'cache'}",
        f"output={folder / 'out'}", "weights=random", "input_size=40", "trials=1", "training.epochs=1",
        "training.batch_size=8", "batch_size=8", "limit=3", "degradations=[flip_lr]", "defenses=[none,gaussian_filter]",
        f"models={models}", *more,
    ]  # fmt: skip


@pytest.mark.parametrize("cluster", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_the_other_networks_are_evaluated(
    cluster: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = f"[{{name: timm/test_efficientnet, {WILD}}},{TINY}]"
    assert main(arguments(pictures, tmp_path, models, f"cluster.engine={cluster}")) == 1
    said = capsys.readouterr().out
    assert said.count("timm/test_efficientnet is left out: training diverged (loss ") == 1
    assert "1 network was not trained (all are in the table failures):" in said
    assert "images were not computed" not in said
    store = Store(tmp_path / "out")
    (failure,) = store.query("FROM failures").to_dict("records")
    assert (failure["dataset"], failure["image_id"], failure["stage"]) == ("folder", "", "train")
    assert failure["error"].startswith("timm/test_efficientnet: training diverged (loss ")
    assert store.query("SELECT DISTINCT model, defense FROM predictions ORDER BY ALL")["model"].tolist() == [TINY, TINY]
    assert store.query("SELECT status FROM runs")["status"].tolist() == ["incomplete"]
    assert logged(tmp_path / "out") == {("suite", "FAILED"), ("fine-tuning", "FAILED"), ("fine-tuning", "FINISHED"),
                                        ("evaluation", "FINISHED")}  # fmt: skip


@pytest.mark.slow
def test_where_no_network_is_left_one_sentence_says_so(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(pictures, tmp_path, f"[{{name: {TINY}, {WILD}}}]")) == 1
    said = capsys.readouterr()
    assert said.out.count("no network is left to evaluate: every training diverged") == 1
    assert "Traceback" not in said.out + said.err
    assert Store(tmp_path / "out").query("SELECT status FROM runs")["status"].tolist() == ["incomplete"]
    # With another recipe the same output goes on.
    assert main(arguments(pictures, tmp_path, f"[{TINY}]")) == 0
    assert len(Store(tmp_path / "out").query("FROM leaderboard")) == 2


def logged(output: Path) -> set[tuple[str, str]]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return {(run.data.tags["kind"], run.info.status) for run in runs}
