"""A disk that fills while workers write: one sentence, exit code 1, and the same command goes on."""

import os
from pathlib import Path

import pandas as pd
import pytest

from cnnsens_bench.run import main
from cnnsens_bench.store import Store
from tests.experiment.test_s3_run import words
from tests.test_run import ROWS


def test_a_disk_that_fills_while_parts_are_written(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output, cache = tmp_path / "out", tmp_path / "cache"
    request = words(str(pictures), str(output), cache, "training.epochs=0", "limit=4")
    fsync, calls = os.fsync, [0]

    def fills(handle: int) -> None:
        calls[0] += "/parts/" in os.readlink(f"/proc/self/fd/{handle}")
        if calls[0] > 2:
            raise OSError(28, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fills)
        assert main(request) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {output}/")
    assert said.endswith("(No space left on device): what was computed is kept, the same command goes on\n")
    assert said.count("\n") == 1
    assert main(request) == 0
    assert "resuming: " in capsys.readouterr().out
    undisturbed = tmp_path / "undisturbed"
    assert main(words(str(pictures), str(undisturbed), cache, "training.epochs=0", "limit=4")) == 0
    pd.testing.assert_frame_equal(Store(output).query(ROWS), Store(undisturbed).query(ROWS))
