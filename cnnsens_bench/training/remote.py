"""Fine-tunings side by side over a Ray cluster: each is a task on one machine, with a GPU where there are some."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cnnsens_bench.models.checkpoint import Checkpoint, checkpoint_from_bytes
from cnnsens_bench.training.finetune import Diverged, FineTuning
from cnnsens_bench.utils.cache import cache_dir
from cnnsens_bench.utils.errors import StorageError, UserError
from cnnsens_bench.utils.memory import keep_freed_memory
from cnnsens_bench.utils.storage import require_writable

DEATHS = 3
"""Processes that a training may take with it before it is given up; those whose machine was lost do not count."""

PATIENCE = 120.0
"""Seconds in which nothing moves, after a machine was lost, until all begin anew with what is left."""
NOTED_AFTER = 30.0
"""Seconds in which no training begins."""

Losses = list[tuple[int, float]]
"""(step, mean loss of late)."""
Standing = dict[str, tuple[int, int, float]]
"""Trainings under way: (steps done, steps in all, mean loss of late); of 0 steps while images are decoded."""


@dataclass(frozen=True)
class Room:
    """What trainings have: `at_once` of them run, each with `threads`; it asks Ray for `cpus` and `gpus`."""

    at_once: int
    threads: int
    cpus: int
    gpus: float


@dataclass
class _Under:
    """A training under way: its key, where it lies in the object store, and the processes that it took with it."""

    key: str
    training: Any
    deaths: int = 0


def train_over_ray(
    waiting: Iterable[tuple[str, FineTuning]],
    room: Callable[[], Room],
    folder: Path | None,
    prepare: Callable[[], None],
    tick: Callable[[Standing], None],
    note: Callable[[str], None],
) -> Generator[tuple[str, Checkpoint | Diverged, Losses]]:
    """Run trainings, given by key; gives each one's checkpoint, or that it diverged, as it ends. Ray must be connected.

    `waiting` is asked for no more than can run, so it may load weights as it goes. `room`: what they have on the
    cluster as it is now; `folder`: of each machine, for the decoded images; `prepare`: what a new process must do
    first; `tick`: hears about once a second how all stand. A training whose machine or process dies begins anew; where
    a machine was lost and nothing moves for `PATIENCE`, all do, with what is left. Raises `UserError` or `StorageError`
    where one fails, once those beside it have ended and were given.
    """
    # On the driver's node: it must outlive the others.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board: Any = ray.remote(num_cpus=0)(_Board).options(scheduling_strategy=here).remote()
    train = ray.remote(max_retries=0, scheduling_strategy="SPREAD")(_train)
    has, there = room(), _alive()
    trainings = iter(waiting)
    again: deque[_Under] = deque()
    running: dict[Any, _Under] = {}
    fault: Exception | None = None
    last: Standing = {}
    moved, told = time.monotonic(), False

    def start(under: _Under) -> None:
        place = train.options(num_cpus=has.cpus, num_gpus=has.gpus)
        running[place.remote(under.key, under.training, has.threads, folder, prepare, board)] = under

    try:
        while True:
            while not fault and len(running) < has.at_once:
                try:
                    under = again.popleft() if again else _stored(*next(trainings))
                except StopIteration:
                    break
                except (StorageError, UserError) as error:
                    fault = error
                    break
                start(under)
            if not running:
                break
            ended, _ = ray.wait(list(running), timeout=1.0)
            standing = ray.get(board.standing.remote())
            tick(standing)
            if ended or standing != last:
                moved, last = time.monotonic(), standing
            silent = time.monotonic() - moved
            if silent > NOTED_AFTER and not standing and not told:
                told = True
                note("note: trainings wait for free cores or GPUs: other jobs may have them, or none have come yet")
            if silent > PATIENCE and there - _alive():
                note("note: the cluster has lost a machine: trainings begin anew with what is left")
                for reference in running:
                    ray.cancel(reference, force=True)
                again.extend(running.values())
                running.clear()
                has, there, moved = room(), _alive(), time.monotonic()
                continue
            for reference in ended:
                under = running.pop(reference)
                try:
                    result = ray.get(reference)
                except RayError as error:
                    board.forget.remote(under.key)
                    if isinstance(error, RayTaskError):
                        fault = fault or error  # a mistake of ours: nothing to begin anew for
                        continue
                    under.deaths += not isinstance(error, (NodeDiedError, ObjectLostError))
                    if under.deaths == DEATHS:
                        fault = fault or UserError(_given_up(under.key, error))
                    elif not fault:
                        note(f"note: the process that trained {under.key} has died: it begins anew")
                        again.append(under)
                    continue
                if isinstance(result, Diverged):
                    yield under.key, result, []
                    continue
                if isinstance(result, Exception):
                    fault = fault or type(result)(f"{under.key}: {result}")
                    continue
                data, losses = result
                yield under.key, checkpoint_from_bytes(data), losses
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        ray.kill(board)
    if fault:
        raise fault


def _stored(key: str, training: FineTuning) -> _Under:
    return _Under(key, ray.put(training))


def _alive() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _given_up(key: str, error: RayError) -> str:
    memory = isinstance(error, OutOfMemoryError)
    why = "its memory is full" if memory else "no error was left: was it killed, or is its memory full?"
    return (
        f"the training of {key} took its process with it {DEATHS} times ({why}): lower its training.batch_size, or use "
        "machines with more memory"
    )


class _Board:
    """Where trainings say how far they are."""

    def __init__(self) -> None:
        self.known: Standing = {}

    def report(self, key: str, done: int, steps: int, loss: float) -> None:
        self.known[key] = (done, steps, loss)

    def forget(self, key: str) -> None:
        self.known.pop(key, None)

    def standing(self) -> Standing:
        return self.known


def _train(
    key: str, training: FineTuning, threads: int, folder: Path | None, prepare: Callable[[], None], board: Any
) -> tuple[bytes, Losses] | StorageError | UserError:
    """The checkpoint's bytes and the losses on the way, or the error of one sentence (raised, Ray would wrap it in
    tracebacks)."""
    losses: Losses = []

    def report(done: int, steps: int, loss: float) -> None:
        losses.append((done, loss))
        board.report.remote(key, done, steps, loss)

    try:
        keep_freed_memory()
        prepare()
        torch.set_num_threads(threads)
        own = cache_dir(folder)  # this machine's, where `folder` names none
        board.report.remote(key, 0, 0, 0.0)
        require_writable(own, "the cache folder", "cache=… or CNNSENS_CACHE")
        checkpoint = training.run(own, report)
    except (StorageError, UserError) as error:
        return error
    except OSError as error:  # a full disk
        return StorageError(f"{error.filename or 'the cache folder'}: {error.strerror or error}")
    finally:
        board.forget.remote(key)
    return checkpoint.to_bytes(), losses
