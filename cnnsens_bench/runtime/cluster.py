"""The Ray cluster: joining it, what its machines have, and whether they are still there."""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import ray
import torch
from ray._private import ray_constants
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cnnsens_bench.runtime.resources import Layout, Machine
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.plugins import load_plugins
from cnnsens_bench.utils.reporter import Reporter

T = TypeVar("T")

PATIENCE = 120.0
"""The seconds that work may stand still after a machine was lost, because another one may replace it."""
NOTED_AFTER = 30.0
"""The seconds of waiting for resources after which a message says so."""
WAKE = signal.SIGUSR1
"""The signal that interrupts the driver. SIGINT is ignored in what a shell script runs in the background."""


def connect(address: str | None) -> None:
    """Join a Ray cluster, or start one on this machine; do nothing where this process is in one already.

    Parameters
    ----------
    address
        The address of the cluster; None for the job's own, which `RAY_ADDRESS` names, or one that is started here.

    Raises
    ------
    UserError
        If there is no cluster at the address.
    """
    if ray.is_initialized():
        return
    stop = signal.getsignal(signal.SIGTERM)
    try:
        # Without "local" Ray would join whichever cluster was started on this machine last, by anybody.
        found = address or os.environ.get("RAY_ADDRESS") or "local"
        if found == "local":
            # Ray gives its workers a low priority, which brings them to a standstill where the machine is busy.
            os.environ.setdefault("RAY_worker_niceness", "0")
        with _on_loopback() if found == "local" else contextlib.nullcontext():
            ray.init(address=found, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"no Ray cluster can be reached at {address or 'this machine'} ({reason}): check cluster.address"
        ) from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)  # Ray's own handler aborts the process
    quiet()


def quiet() -> None:
    """Silence Ray's log, which would tear the progress apart. Call it again after ray.data was imported."""
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Let a cluster that the body starts listen on the loopback interface alone, as Ray does on macOS and Windows.

    Even without a dashboard Ray's agent takes jobs from everybody who can reach it.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def require_plugins(names: Sequence[str]) -> None:
    """Import users' modules once on every machine. Raises `UserError` where a machine lacks one."""
    if not names:
        return
    check = ray.remote(num_cpus=0)(_complaint)
    there = [NodeAffinitySchedulingStrategy(node, soft=True) for node in alive_nodes()]
    checks = [check.options(scheduling_strategy=strategy).remote(names) for strategy in there]
    for complaint in ray.get(checks):
        if complaint:
            raise UserError(f"on a machine of the cluster, {complaint}")


def _complaint(names: Sequence[str]) -> str | None:
    try:
        load_plugins(names)
    except UserError as error:
        return str(error)
    return None


def machines() -> list[Machine]:
    """Return the machines of the cluster that are alive."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Machine(int(each.get("CPU", 0)), each.get("GPU", 0.0)) for each in resources]


def alive_nodes() -> set[str]:
    """Return the ids of the machines that are alive."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def worker_memory(layout: Layout, reporter: Reporter) -> float:
    """Return the bytes that a worker has: of its GPU, or its share of the smallest machine that has room for one.

    It waits for a GPU that is not free, or not there yet.

    Parameters
    ----------
    layout
        How the workers lie on the cluster.
    reporter
        Hears that a GPU is waited for.
    """
    if layout.gpus:
        probe = ray.remote(num_cpus=0, num_gpus=layout.gpus)(_gpu_memory).remote()
        if not ray.wait([probe], timeout=NOTED_AFTER)[0]:
            reporter.message(
                f"note: waiting for {layout.gpus:g} free GPU: other jobs may have all, or none has come yet "
                "(`ray status` tells; Ctrl-C or `ray job stop` ends this run, resumable)"
            )
        return min(1.0, layout.gpus) * ray.get(probe)
    shares = []
    for node in ray.nodes():
        resources = node["Resources"]
        cpus = resources.get("CPU", 0.0)
        if node["Alive"] and cpus >= layout.reserved_cpus and "memory" in resources:
            workers = min(layout.workers, int(cpus) // max(1, layout.reserved_cpus))
            shares.append(resources["memory"] / max(1, workers))
    return min(shares, default=float("inf"))


def _gpu_memory() -> int:
    return torch.cuda.get_device_properties(0).total_memory


class StallMonitor:
    """Notices that work stands still since a machine of the cluster was lost.

    The work that it had can wait for ever for a worker, because the other machines may have no room for one.
    """

    def __init__(self) -> None:
        self.machines = alive_nodes()
        self.state: object = None
        self.moved = time.monotonic()

    def observe(self, state: object) -> None:
        """Compare the state of the work with the last one: if it differs, the work has moved."""
        if state != self.state:
            self.state = state
            self.touch()

    def touch(self) -> None:
        """Note that the work has moved."""
        self.moved = time.monotonic()

    def silence(self) -> float:
        """Return the seconds since the work moved."""
        return time.monotonic() - self.moved

    def stalled(self) -> bool:
        """Return whether nothing has moved for `PATIENCE` seconds, and a machine was lost."""
        return self.silence() > PATIENCE and bool(self.machines - alive_nodes())


class SweepMonitor:
    """Passes the news of a sweep on to a reporter, and interrupts the driver where it waits in vain for an outcome.

    Parameters
    ----------
    coordinator
        The actor of the sweep's `Coordinator`.
    reporter
        Hears of evaluations and messages, from another thread.

    Attributes
    ----------
    waiting
        Whether the driver waits for an outcome.
    stalled
        Whether the driver was interrupted.
    """

    def __init__(self, coordinator: Any, reporter: Reporter) -> None:
        self.coordinator, self.reporter = coordinator, reporter
        self.ended = self.evaluations = self.messages = 0
        self.waiting = self.stalled = False
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Watch the sweep while the body takes its outcomes. A body that waits in vain gets a `KeyboardInterrupt`."""
        self.stalled = False
        stop, main = threading.Event(), threading.current_thread() is threading.main_thread()
        before = signal.signal(WAKE, signal.default_int_handler) if main else None
        thread = threading.Thread(target=self._watch, args=(stop, StallMonitor(), main), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(timeout=5)
            if main:
                signal.signal(WAKE, before or signal.SIG_DFL)

    def outcomes(self, outcomes: Iterator[T]) -> Iterator[T]:
        """Yield the outcomes. Only while one is waited for can `interrupt` take hold."""
        while True:
            with self._lock:
                self.waiting = True
            try:
                outcome = next(outcomes, None)
            finally:
                with self._lock:
                    self.waiting = False
            if outcome is None:
                return
            self.ended += 1
            yield outcome

    def interrupt(self) -> bool:
        """Raise `KeyboardInterrupt` in the main thread if it waits for an outcome, and return whether it does."""
        with self._lock:
            if self.waiting:
                self.stalled = True
                signal.pthread_kill(threading.main_thread().ident or 0, WAKE)
            return self.waiting

    def _watch(self, stop: threading.Event, monitor: StallMonitor, can_interrupt: bool) -> None:
        over = False
        while not over:
            over = stop.wait(1.0)
            try:
                evaluations, messages = ray.get(self.coordinator.news.remote(), timeout=30)
            except ray.exceptions.RayError:
                continue
            if evaluations > self.evaluations:
                self.reporter.evaluations(evaluations - self.evaluations)
            for sentence in messages[self.messages :]:
                self.reporter.message(sentence)
            self.evaluations, self.messages = evaluations, len(messages)
            monitor.observe((evaluations, self.ended))
            if not self.waiting:
                monitor.touch()
            if not over and can_interrupt and monitor.stalled() and self.interrupt():
                return
