"""What goes wrong on another machine of a cluster reaches the user as one sentence; without a cluster."""

import errno
import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.exceptions import UserCodeException

from cnnsens_bench.datasets import Samples
from cnnsens_bench.engine.plan import Condition, Entrant, Sweep, plan
from cnnsens_bench.runtime import local, ray_pipeline
from cnnsens_bench.runtime.coordinator import Coordinator
from cnnsens_bench.runtime.executor import TaskExecutor
from cnnsens_bench.runtime.partition import NetworkGroup
from cnnsens_bench.runtime.plan_store import StoredPlan, stored_plan
from cnnsens_bench.store import new_attempt
from cnnsens_bench.utils import storage
from tests.conftest import TINY, tiny_checkpoint

SWEEP = Sweep("r", "d", (Entrant(TINY, "a", "none", "a"),), (Condition("flip_lr", (0.0,), 1),), batch_size=8)


class Actor:
    """The desk, as Ray would show it."""

    def __init__(self) -> None:
        self.coordinator = Coordinator()

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self.coordinator, name))


@pytest.fixture
def coordinator(monkeypatch: pytest.MonkeyPatch) -> Actor:
    monkeypatch.setattr(ray_pipeline.ray, "get", lambda value: value)
    return Actor()


@pytest.fixture
def attempt(tmp_path: Path) -> Path:
    found = new_attempt(tmp_path / "out")
    assert isinstance(found, Path)
    return found


def job_of(work: StoredPlan, sweep: Sweep = SWEEP) -> ray_pipeline.SharedWork:
    return ray_pipeline.SharedWork(sweep, work, [NetworkGroup((0,), 1)], 1, [sweep.reach(32)])


def told(coordinator: Actor, job: ray_pipeline.SharedWork) -> tuple[str, str] | None:
    with pytest.raises(UserCodeException):
        list(ray_pipeline._decoded(job, coordinator, np.array([0])))
    return coordinator.coordinator.failed()


def test_a_plugin_that_a_later_machine_lacks(samples: Samples, attempt: Path, coordinator: Actor) -> None:
    sweep = Sweep("r", "d", SWEEP.entrants, SWEEP.conditions, plugins=("no_such_plugin_here",))
    with stored_plan(sweep, plan(sweep, samples.table.head(3), None), attempt) as work:
        kind, sentence = told(coordinator, job_of(work, sweep)) or ("", "")
    assert kind == "UserError"
    assert sentence.startswith("plugin 'no_such_plugin_here' cannot be imported")


def test_a_plan_that_another_machine_does_not_see(samples: Samples, attempt: Path, coordinator: Actor) -> None:
    with stored_plan(SWEEP, plan(SWEEP, samples.table.head(3), None), attempt) as work:
        job = job_of(work)
    assert told(coordinator, job) == (
        "UserError",
        f"{work.folder} is not seen by the machine {socket.gethostname()}: output must lie on storage that all "
        "machines see, a shared folder or a URI",
    )


def test_parts_that_another_machine_does_not_see(samples: Samples, attempt: Path, coordinator: Actor) -> None:
    worker = ray_pipeline._RayWorker.__new__(ray_pipeline._RayWorker)
    worker.coordinator, worker.parts = coordinator, attempt
    crash_tracker = ray_pipeline._RemoteCrashTracker(coordinator)
    worker.executor = TaskExecutor(
        SWEEP, [NetworkGroup((0,), 1)], lambda _: tiny_checkpoint(input_size=32), attempt, "cpu", crash_tracker, ""
    )
    with stored_plan(SWEEP, plan(SWEEP, samples.table.head(3), None), attempt) as work:
        (block,) = ray_pipeline._decoded(job_of(work), coordinator, np.array([0]))
    attempt.rmdir()
    with pytest.raises(UserCodeException, match=f"{attempt} is not seen by the machine"):
        worker(block)
    assert (coordinator.coordinator.failed() or ("", ""))[0] == "UserError"
    attempt.mkdir()
    assert worker(block)["failures"].to_pylist() == [0]
    for loaded in worker.executor.workers.values():
        loaded.close()


def test_data_that_cannot_be_reached(
    samples: Samples, attempt: Path, coordinator: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(uri: str) -> bytes:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(storage, "_read", gone)
    monkeypatch.setattr(storage, "WAITS", ())
    with stored_plan(SWEEP, plan(SWEEP, samples.table.head(3), None), attempt) as work:
        kind, sentence = told(coordinator, job_of(work)) or ("", "")
    assert kind == "StorageError"
    assert sentence.endswith("cannot be read now (Stale file handle)")


def test_who_stops_a_run_does_not_wait_for_images_that_nobody_will_use(
    samples: Samples, attempt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the second piece of work only those that are being decoded are waited for: at most eight at a time."""
    decoded: list[str] = []
    stopping = threading.Event()

    def slow(row: dict, reach: object) -> str:
        decoded.append(row["image_id"])
        if len(decoded) > 16:
            stopping.wait(30)
        return "not read"

    monkeypatch.setattr(local, "decode_row", slow)
    sweep = Sweep("r", "d", SWEEP.entrants, SWEEP.conditions, batch_size=16)
    with stored_plan(sweep, plan(sweep, samples.table.head(32), None), attempt) as work:
        run = local.run_local(sweep, work, {"a": tiny_checkpoint(input_size=32)}, attempt, 1)
        next(run)
        threading.Timer(1.0, stopping.set).start()
        run.close()
    assert 16 <= len(decoded) <= 16 + 8


def test_the_ledger_of_a_uri_lies_in_the_cache(samples: Samples, tmp_path: Path) -> None:
    parts = new_attempt(storage.storage_path("memory://ledger/out"))
    with stored_plan(SWEEP, plan(SWEEP, samples.table.head(3), None), parts) as work:
        run = local.run_local(SWEEP, work, {"a": tiny_checkpoint(input_size=32)}, parts, 1, cache=tmp_path / "cache")
        next(run)
        assert list(tmp_path.glob("cache/outputs/*/begun.json"))
        run.close()
