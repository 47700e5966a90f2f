"""Where a machine is lost for good, a run that waits for it in vain goes on with those that are left."""

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import ray

from cnnsens_bench.run import main
from cnnsens_bench.runtime import cluster
from cnnsens_bench.store import Store
from cnnsens_bench.utils.reporter import Reporter
from tests.conftest import TINY
from tests.test_run import ROWS, words


@pytest.mark.slow
def test_a_run_that_waits_in_vain_begins_a_new_round(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second machine is only named, and no news comes while the first one starts its worker."""
    asked: list[int] = []

    def machines() -> set[str]:
        asked.append(1)
        return {"here", "lost"} if len(asked) == 1 else {"here"}

    monkeypatch.setattr(cluster, "alive_nodes", machines)
    monkeypatch.setattr(cluster, "PATIENCE", 2.0)
    request = ("training.epochs=0", f"models=[{{name: {TINY}, weights: random}}]", "defenses=[none]",
               "cluster.threads=1", "tracking=off", "limit=8")  # fmt: skip
    ray.shutdown()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of `nohup … &` in a script
    try:
        over = ("cluster.engine=ray", "cluster.workers=1")
        assert main(words(pictures, tmp_path / "cache", tmp_path / "there", *request, *over)) == 0
    finally:
        signal.signal(signal.SIGINT, before)
        ray.shutdown()
    said = capsys.readouterr().out
    assert said.count("note: the cluster has lost a machine") == 1
    assert main(words(pictures, tmp_path / "cache", tmp_path / "here", *request)) == 0
    one, other = (Store(tmp_path / name).query(ROWS) for name in ("here", "there"))
    pd.testing.assert_frame_equal(other, one)


def test_only_a_driver_that_waits_for_an_outcome_is_interrupted() -> None:
    monitor = cluster.SweepMonitor(None, Reporter())

    def outcomes() -> Iterator[int]:
        yield 1
        time.sleep(60)

    before = signal.signal(cluster.WAKE, signal.default_int_handler)
    try:
        waited = monitor.outcomes(outcomes())
        assert next(waited) == 1
        assert not monitor.interrupt()  # the driver does something else
        assert not monitor.stalled
        threading.Timer(0.2, monitor.interrupt).start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            next(waited)
        assert time.monotonic() - began < 30
        assert monitor.stalled
        assert not monitor.waiting
    finally:
        signal.signal(cluster.WAKE, before)
