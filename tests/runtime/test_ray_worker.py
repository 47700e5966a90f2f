"""How a worker of a cluster reports its progress."""

from types import SimpleNamespace

import pytest

from cnnsens_bench.runtime import ray_worker
from cnnsens_bench.runtime.ray_worker import CoordinatorReporter


def test_progress_is_sent_now_and_then_and_whole_at_the_end_of_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    count = SimpleNamespace(remote=lambda task, done: sent.append((task, done)))
    seconds = [100.0]
    monkeypatch.setattr(ray_worker.time, "monotonic", lambda: seconds[0])
    reporter = CoordinatorReporter(SimpleNamespace(count=count))
    for task in (7, 8):
        reporter.begin(task)
        for _ in range(10):
            reporter.evaluations(32)
            seconds[0] += 0.125
        reporter.send()
        reporter.send()  # there is nothing more to send
    assert sent == [(7, 32), (7, 160), (7, 288), (7, 320), (8, 160), (8, 288), (8, 320)]
