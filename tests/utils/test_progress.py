"""What a user sees of the progress when more units are computed than planned."""

import io

import pytest
from rich.console import Console

from cnnsens_bench.utils import progress as progress_module
from cnnsens_bench.utils.progress import StageProgress, stage_progress


def test_units_that_are_computed_again_never_pass_100_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "PLAIN_EVERY", -1.0)
    out = io.StringIO()
    with stage_progress(Console(file=out, width=100), "sweep", 200, "evaluations") as progress:
        progress.advance(150)
        progress.advance(100)
    _, second, last = out.getvalue().splitlines()
    assert "sweep: 100 % (200/200)" in second
    assert ", 0 s left" in second
    assert last.startswith("sweep: 250 evaluations in 0 s")


def test_a_bar_never_passes_100_percent_of_a_total_that_is_set_later() -> None:
    out = io.StringIO()
    with stage_progress(Console(file=out, force_terminal=True, width=120), "fine-tune", 0, "steps") as progress:
        progress.total = 20
        progress.advance(25)
    assert "20/20" in out.getvalue()
    assert "25/" not in out.getvalue()


def test_a_stage_without_units_is_complete() -> None:
    assert "100 % (0/0)" in StageProgress(Console(file=io.StringIO()), "sweep", 0, "evaluations").line()
