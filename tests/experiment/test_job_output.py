"""The output folder of a Ray job: its results outlive the uploaded folder that it runs in."""

from pathlib import Path

import pytest

from cnnsens_bench.config.schema import Config
from cnnsens_bench.experiment.resolve import resolve_output


@pytest.fixture
def uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working folder as Ray unpacks it, and work in it."""
    folder = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0123"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CNNSENS_STORAGE", raising=False)
    return folder


def test_relative_outputs_of_a_job_outlive_it(uploaded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_output(Config(suite="paper")).output == str(tmp_path / "home/runs/paper")
    monkeypatch.setenv("CNNSENS_STORAGE", "/shared")
    assert resolve_output(Config(suite="paper")).output == "/shared/runs/paper"
    assert resolve_output(Config(suite="paper", output="../mine")).output == "/mine"
    assert resolve_output(Config(suite="paper")).run_id == Config(suite="paper").run_id


@pytest.mark.parametrize("output", ["/data/runs", "s3://bucket/runs", "~/runs"])
def test_other_outputs_stay(output: str, uploaded: Path) -> None:
    assert resolve_output(Config(output=output)).output == output


def test_nothing_changes_elsewhere(uploaded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a job without --working-dir
    assert resolve_output(Config()) == Config()
    monkeypatch.chdir(uploaded)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR")
    assert resolve_output(Config()) == Config()
