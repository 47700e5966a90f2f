"""Fine-tunings side by side over a Ray cluster: each runs in a process of its own, with a GPU where there are some."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cnnsens_bench.models.checkpoint import Checkpoint, checkpoint_from_bytes
from cnnsens_bench.runtime import cluster
from cnnsens_bench.runtime.cluster import StallMonitor
from cnnsens_bench.runtime.resources import Layout
from cnnsens_bench.training.finetune import FineTuning
from cnnsens_bench.training.trainer import Diverged
from cnnsens_bench.utils.cache import cache_dir
from cnnsens_bench.utils.errors import StorageError, UserError
from cnnsens_bench.utils.memory import keep_freed_memory
from cnnsens_bench.utils.reporter import SILENT, Reporter, TrainingProgress
from cnnsens_bench.utils.storage import require_writable

MAX_DEATHS = 3
"""The processes that may die during a training before it is given up. Those whose machine was lost do not count."""

Losses = list[tuple[int, float]]
"""(step, recent mean loss) of each step."""


def train_over_ray(
    trainings: Iterable[tuple[str, FineTuning]],
    *,
    layout: Callable[[], Layout],
    folder: Path | None,
    prepare: Callable[[], None],
    reporter: Reporter = SILENT,
) -> Generator[tuple[str, Checkpoint | Diverged, Losses]]:
    """Run trainings over the cluster, and yield the key, checkpoint and losses of each as it ends.

    A training that diverged gives the error in place of a checkpoint. Ray must be connected. A training whose machine
    or process dies begins anew. Where a machine was lost and nothing moves for `cluster.PATIENCE` seconds, all of them
    do, on the machines that are left.

    Parameters
    ----------
    trainings
        (key, training). Only as many are taken as can run, so weights may be loaded on the way.
    layout
        Returns how trainings lie on the cluster as it is at the moment.
    folder
        The cache folder of each machine, for the decoded images; None for the machine's own.
    prepare
        What a process does before it trains.
    reporter
        Hears about once a second how far the trainings are.

    Raises
    ------
    UserError, StorageError
        If a training fails, once those beside it have ended.
    """
    pool = _TrainingPool(iter(trainings), layout, folder, prepare, reporter)
    try:
        while pool.fill():
            ended = pool.wait()
            if pool.begin_anew_if_stalled():
                continue
            for reference in ended:
                trained = pool.collect(reference)
                if trained:
                    yield trained
    finally:
        pool.close()
    if pool.fault:
        raise pool.fault


@dataclass
class _Attempt:
    """A training that runs or is to begin anew: its key, where it lies in the object store, and how often it died."""

    key: str
    training: Any
    deaths: int = 0


@dataclass
class _TrainingPool:
    """The trainings that run, those that begin anew, and the first error that ends the call."""

    trainings: Iterator[tuple[str, FineTuning]]
    layout: Callable[[], Layout]
    folder: Path | None
    prepare: Callable[[], None]
    reporter: Reporter
    again: deque[_Attempt] = field(default_factory=deque)
    running: dict[Any, _Attempt] = field(default_factory=dict)
    fault: Exception | None = None
    said_waiting: bool = False

    def __post_init__(self) -> None:
        # The board lies on the driver's machine, because it must outlive the trainings.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.board: Any = ray.remote(num_cpus=0)(_ProgressBoard).options(scheduling_strategy=here).remote()
        self.train = ray.remote(max_retries=0, scheduling_strategy="SPREAD")(_train)
        self._look_at_cluster()

    def _look_at_cluster(self) -> None:
        self.current, self.monitor = self.layout(), StallMonitor()

    def fill(self) -> bool:
        """Start as many trainings as can run, unless one has failed; return whether any runs."""
        while not self.fault and len(self.running) < self.current.workers:
            try:
                attempt = self.again.popleft() if self.again else self._next()
            except StopIteration:
                break
            except (StorageError, UserError) as error:
                self.fault = error
                break
            train = self.train.options(num_cpus=self.current.reserved_cpus, num_gpus=self.current.gpus)
            threads = self.current.threads
            reference = train.remote(attempt.key, attempt.training, threads, self.folder, self.prepare, self.board)
            self.running[reference] = attempt
        return bool(self.running)

    def _next(self) -> _Attempt:
        key, training = next(self.trainings)
        return _Attempt(key, ray.put(training))

    def wait(self) -> list[Any]:
        """Wait up to a second, report progress, and return the references of trainings that have ended."""
        ended, _ = ray.wait(list(self.running), timeout=1.0)
        progress = ray.get(self.board.read.remote())
        self.reporter.training_progress(progress)
        self.monitor.observe(progress)
        if ended:
            self.monitor.touch()
        if not progress and not self.said_waiting and self.monitor.silence() > cluster.NOTED_AFTER:
            self.said_waiting = True
            sentence = "note: trainings wait for free cores or GPUs: other jobs may have them, or none have come yet"
            self.reporter.message(sentence)
        return ended

    def begin_anew_if_stalled(self) -> bool:
        """Begin all trainings anew where they wait for a machine that is lost; return whether they do."""
        if not self.monitor.stalled():
            return False
        self.reporter.message("note: the cluster has lost a machine: trainings begin anew with what is left")
        self._cancel()
        self.again.extend(self.running.values())
        self.running.clear()
        self._look_at_cluster()
        return True

    def collect(self, reference: Any) -> tuple[str, Checkpoint | Diverged, Losses] | None:
        """Return what a training gave, also where it diverged; None where it failed or is to begin anew."""
        attempt = self.running.pop(reference)
        try:
            result = ray.get(reference)
        except RayError as error:
            self.board.forget.remote(attempt.key)
            if isinstance(error, RayTaskError):  # a mistake of the program: beginning anew would not help
                self.fault = self.fault or error
            else:
                self._count_death(attempt, error)
            return None
        if isinstance(result, Diverged):
            return attempt.key, result, []
        if isinstance(result, Exception):
            self.fault = self.fault or type(result)(f"{attempt.key}: {result}")
            return None
        data, losses = result
        return attempt.key, checkpoint_from_bytes(data), losses

    def _count_death(self, attempt: _Attempt, error: RayError) -> None:
        attempt.deaths += not isinstance(error, (NodeDiedError, ObjectLostError))
        if attempt.deaths == MAX_DEATHS:
            memory = isinstance(error, OutOfMemoryError)
            why = "its memory is full" if memory else "no error was left: was it killed, or is its memory full?"
            self.fault = self.fault or UserError(
                f"the training of {attempt.key} took its process with it {MAX_DEATHS} times ({why}): lower its "
                "training.batch_size, or use machines with more memory"
            )
        elif not self.fault:
            self.reporter.message(f"note: the process that trained {attempt.key} has died: it begins anew")
            self.again.append(attempt)

    def _cancel(self) -> None:
        for reference in self.running:
            ray.cancel(reference, force=True)

    def close(self) -> None:
        """End what runs."""
        self._cancel()
        ray.kill(self.board)


class _ProgressBoard:
    """An actor to which trainings report how far they are."""

    def __init__(self) -> None:
        self.progress: dict[str, TrainingProgress] = {}

    def write(self, key: str, done: int, steps: int, loss: float) -> None:
        self.progress[key] = TrainingProgress(done, steps, loss)

    def forget(self, key: str) -> None:
        self.progress.pop(key, None)

    def read(self) -> dict[str, TrainingProgress]:
        return self.progress


def _train(
    key: str, training: FineTuning, threads: int, folder: Path | None, prepare: Callable[[], None], board: Any
) -> tuple[bytes, Losses] | StorageError | UserError:
    """Return the checkpoint's bytes and the losses, or an error of one sentence; Ray would wrap it if it was raised."""
    losses: Losses = []

    def report(done: int, steps: int, loss: float) -> None:
        losses.append((done, loss))
        board.write.remote(key, done, steps, loss)

    try:
        keep_freed_memory()
        prepare()
        torch.set_num_threads(threads)
        own = cache_dir(folder)  # this machine's, where `folder` is None
        board.write.remote(key, 0, 0, 0.0)
        require_writable(own, "the cache folder", "cache=… or CNNSENS_CACHE")
        checkpoint = training.run(own, report)
    except (StorageError, UserError) as error:
        return error
    except OSError as error:  # a full disk
        return StorageError(f"{error.filename or 'the cache folder'}: {error.strerror or error}")
    finally:
        board.forget.remote(key)
    return checkpoint.to_bytes(), losses
