"""Figures at the end of a run: one that fails is named and changes the exit code, and everything else is done."""

from pathlib import Path

import pytest

from cnnsens_bench.experiment import runner
from cnnsens_bench.figures.catalogue import FIGURES
from cnnsens_bench.run import main
from cnnsens_bench.store import Store
from tests.test_hostile import request


def fail(*_: object) -> None:
    raise RuntimeError("no ink")


def test_a_figure_that_fails_ends_in_exit_code_1(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FIGURES, "fig2", fail)
    # fig6 has nothing to show, since there are no scores: that is no failure.
    words = request(pictures, tmp_path, "figures=[fig2,fig6,table1]")
    assert main(words) == 1
    said = capsys.readouterr().out
    assert "fig2 is not drawn (RuntimeError: no ink)" in said
    assert "fig6 is not drawn: " in said
    drawn = sorted(path.name for path in (tmp_path / "out" / "figures").iterdir())
    assert drawn == ["table1.csv", "table1.pdf", "table1.png"]
    assert Store(tmp_path / "out").query("SELECT status FROM runs")["status"].tolist() == ["done"]
    monkeypatch.undo()
    assert main([*words, "figures=[fig6,table1]"]) == 0


def test_a_report_of_sensitivity_that_fails_ends_in_exit_code_1(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "sensitivity_report", fail)
    noise = "degradations=[{name: gaussian_rgb, levels: [4]}]"
    assert main(request(pictures, tmp_path, noise, "sensitivity=on")) == 1
    assert "the report of sensitivity failed (RuntimeError: no ink)" in capsys.readouterr().out
    assert Store(tmp_path / "out").query("SELECT status FROM runs")["status"].tolist() == ["done"]
