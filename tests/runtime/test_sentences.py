"""What goes wrong on another machine of a cluster reaches the user as one sentence. No cluster is started."""

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
from cnnsens_bench.engine.plan import plan
from cnnsens_bench.engine.sweep import Condition, Entrant, Sweep
from cnnsens_bench.runtime import local, ray_worker
from cnnsens_bench.runtime.coordinator import Coordinator
from cnnsens_bench.runtime.partition import NetworkGroup
from cnnsens_bench.runtime.plan_store import StoredPlan, stored_plan
from cnnsens_bench.runtime.resources import ExecutionOptions
from cnnsens_bench.store import new_attempt
from cnnsens_bench.utils import reading, storage
from tests.conftest import TINY, tiny_checkpoint

SWEEP = Sweep("r", "d", (Entrant(TINY, "a", "none", "a"),), (Condition("flip_lr", (0.0,), 1),), batch_size=8)


class Actor:
    """The coordinator, as Ray shows an actor."""

    def __init__(self) -> None:
        self.coordinator = Coordinator()

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self.coordinator, name))


@pytest.fixture
def coordinator(monkeypatch: pytest.MonkeyPatch) -> Actor:
    monkeypatch.setattr(ray_worker.ray, "get", lambda value: value)
    # The real one starts a cluster.
    monkeypatch.setattr(ray_worker.ray, "get_runtime_context", lambda: SimpleNamespace(get_actor_id=lambda: None))
    return Actor()


@pytest.fixture
def attempt(tmp_path: Path) -> Path:
    found = new_attempt(tmp_path / "out")
    assert isinstance(found, Path)
    return found


def work_of(stored: StoredPlan, coordinator: Actor, parts: Path, sweep: Sweep = SWEEP) -> ray_worker.SharedWork:
    checkpoints = {"a": tiny_checkpoint(input_size=32).to_bytes()}
    groups, reaches = [NetworkGroup((0,), 1)], [sweep.reach(32)]
    return ray_worker.SharedWork(sweep, stored, groups, 1, reaches, checkpoints, parts, 1e9, coordinator)


def fault_of(work: ray_worker.SharedWork) -> tuple[str, str] | None:
    with pytest.raises(UserCodeException):
        list(ray_worker.decoded_tasks(work, np.array([0])))
    return work.coordinator.coordinator.failed()


def test_a_plugin_that_a_later_machine_lacks(samples: Samples, attempt: Path, coordinator: Actor) -> None:
    sweep = Sweep("r", "d", SWEEP.entrants, SWEEP.conditions, plugins=("no_such_plugin_here",))
    with stored_plan(sweep, plan(sweep, samples.table.head(3)), attempt) as stored:
        kind, sentence = fault_of(work_of(stored, coordinator, attempt, sweep)) or ("", "")
    assert kind == "UserError"
    assert sentence.startswith("plugin 'no_such_plugin_here' cannot be imported")


def test_a_plan_that_another_machine_does_not_see(samples: Samples, attempt: Path, coordinator: Actor) -> None:
    with stored_plan(SWEEP, plan(SWEEP, samples.table.head(3)), attempt) as stored:
        work = work_of(stored, coordinator, attempt)
    assert fault_of(work) == (
        "UserError",
        f"{stored.folder} is not seen by the machine {socket.gethostname()}: output must lie on storage that all "
        "machines see, a shared folder or a URI",
    )


def test_parts_that_another_machine_does_not_see(samples: Samples, attempt: Path, coordinator: Actor) -> None:
    with stored_plan(SWEEP, plan(SWEEP, samples.table.head(3)), attempt) as stored:
        work = work_of(stored, coordinator, attempt)
        (block,) = ray_worker.decoded_tasks(work, np.array([0]))
    worker = ray_worker.RayWorker(work, threads=1)
    attempt.rmdir()
    with pytest.raises(UserCodeException, match=f"{attempt} is not seen by the machine"):
        worker(block)
    assert (coordinator.coordinator.failed() or ("", ""))[0] == "UserError"
    attempt.mkdir()
    assert worker(block)["failures"].to_pylist() == [0]
    worker.executor.close()


def test_data_that_cannot_be_reached(
    samples: Samples, attempt: Path, coordinator: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(uri: str) -> bytes:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(reading, "_read", gone)
    monkeypatch.setattr(reading, "WAITS", ())
    with stored_plan(SWEEP, plan(SWEEP, samples.table.head(3)), attempt) as stored:
        kind, sentence = fault_of(work_of(stored, coordinator, attempt)) or ("", "")
    assert kind == "StorageError"
    assert sentence.endswith("cannot be read now (Stale file handle)")


def test_a_run_that_is_stopped_does_not_wait_for_images_that_nobody_will_use(
    samples: Samples, attempt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run waits for no more images of the second task than are being decoded, which are at most eight."""
    decoded: list[str] = []
    stopping = threading.Event()

    def slow(row: dict, reach: object, read: object) -> str:
        decoded.append(row["image_id"])
        if len(decoded) > 16:
            stopping.wait(30)
        return "not read"

    monkeypatch.setattr(local, "decode_row", slow)
    sweep = Sweep("r", "d", SWEEP.entrants, SWEEP.conditions, batch_size=16)
    with stored_plan(sweep, plan(sweep, samples.table.head(32)), attempt) as stored:
        options = ExecutionOptions(threads=1)
        run = local.run_local(sweep, stored, {"a": tiny_checkpoint(input_size=32)}, attempt, options)
        next(run)
        threading.Timer(1.0, stopping.set).start()
        run.close()
    assert 16 <= len(decoded) <= 16 + 8


def test_the_crash_tracker_of_a_uri_lies_in_the_cache(samples: Samples, tmp_path: Path) -> None:
    parts = new_attempt(storage.storage_path("memory://crashes/out"))
    with stored_plan(SWEEP, plan(SWEEP, samples.table.head(3)), parts) as stored:
        options = ExecutionOptions(threads=1, cache=tmp_path / "cache")
        run = local.run_local(SWEEP, stored, {"a": tiny_checkpoint(input_size=32)}, parts, options)
        next(run)
        assert list(tmp_path.glob("cache/outputs/*/begun.json"))
        run.close()
