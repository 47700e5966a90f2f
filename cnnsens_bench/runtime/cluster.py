"""The cluster: joining it, what its machines have, whether they are still there, and the news from the desk."""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ray
import torch
from ray._private import ray_constants
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cnnsens_bench.runtime.resources import Layout, Machine
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.plugins import load_plugins

T = TypeVar("T")

PATIENCE = 120.0
"""Seconds without news, after a machine was lost, that another may take to come in its place."""
NOTED_AFTER = 30.0
"""Seconds of waiting for a GPU."""


def connect(address: str | None) -> None:
    """Join the cluster at `address` (or the job's own), or start one on this machine. Raises `UserError`."""
    if ray.is_initialized():
        return
    stop = signal.getsignal(signal.SIGTERM)
    try:
        # "local", or Ray would join whatever cluster of anybody's was started on this machine last.
        place = address or os.environ.get("RAY_ADDRESS") or "local"
        if place == "local":
            # Ray's workers would be nice to everything else on the machine, down to a standstill where it is busy.
            os.environ.setdefault("RAY_worker_niceness", "0")
        with _on_loopback() if place == "local" else contextlib.nullcontext():
            ray.init(address=place, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"no Ray cluster can be reached at {address or 'this machine'} ({reason}): check cluster.address"
        ) from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)  # Ray's own handler aborts
    quiet()


def quiet() -> None:
    """Ray's notes would tear our own progress apart. To be called again when ray.data was imported, which speaks up."""
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """A cluster of this machine alone listens on nothing else, as Ray does by itself on macOS and Windows: even without
    a dashboard its agent takes jobs, from whoever reaches it."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def require_plugins(names: Sequence[str]) -> None:
    """Import users' modules once on every machine. Raises `UserError`: what is importable here need not be there."""
    if not names:
        return
    tried = ray.remote(num_cpus=0)(_complaint)
    asked = [
        tried.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)).remote(names)
        for node in ray.nodes()
        if node["Alive"]
    ]
    for complaint in ray.get(asked):
        if complaint:
            raise UserError(f"on a machine of the cluster, {complaint}")


def _complaint(names: Sequence[str]) -> str | None:
    try:
        load_plugins(names)
    except UserError as error:
        return str(error)
    return None


def machines() -> list[Machine]:
    """Those of the cluster that are alive."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Machine(int(has.get("CPU", 0)), has.get("GPU", 0.0)) for has in found]


def memory(plan: Layout, note: Callable[[str], None] | None = None) -> float:
    """Bytes that a worker has: of its GPU, or its share of the smallest node that has room for one. Waits for a GPU
    that is not free (or not there) yet, and says so."""
    if plan.gpus:
        probe = ray.remote(num_cpus=0, num_gpus=plan.gpus)(_gpu_memory).remote()
        if not ray.wait([probe], timeout=NOTED_AFTER)[0] and note:
            note(
                f"note: waiting for {plan.gpus:g} free GPU: other jobs may have all, or none has come yet "
                "(`ray status` tells; Ctrl-C or `ray job stop` ends this run, resumable)"
            )
        return min(1.0, plan.gpus) * ray.get(probe)
    shares = []
    for node in ray.nodes():
        has = node["Resources"]
        cpus = has.get("CPU", 0.0)
        if node["Alive"] and cpus >= plan.reserved_cpus and "memory" in has:
            shares.append(has["memory"] / max(1, min(plan.workers, int(cpus) // max(1, plan.reserved_cpus))))
    return min(shares, default=float("inf"))


def _gpu_memory() -> int:
    return torch.cuda.get_device_properties(0).total_memory


@dataclass
class Watch:
    """What the thread that asks for news knows: how many pieces have `ended`, how many evaluations and notes were told
    on, whether the driver is `waiting` for an outcome, and whether nothing moves any more since a machine was lost (a
    task waits for ever for the worker it was given to)."""

    ended: int = 0
    told: int = 0
    said: int = 0
    waiting: bool = False
    stalled: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def each(self, outcomes: Iterator[T]) -> Iterator[T]:
        """The outcomes; only while one is waited for can `interrupt` take hold."""
        while True:
            with self.lock:
                self.waiting = True
            try:
                outcome = next(outcomes, None)
            finally:
                with self.lock:
                    self.waiting = False
            if outcome is None:
                return
            self.ended += 1
            yield outcome

    def interrupt(self) -> bool:
        """KeyboardInterrupt where the main thread waits for an outcome; not while it does anything else."""
        with self.lock:
            if self.waiting:
                self.stalled = True
                signal.pthread_kill(threading.main_thread().ident or 0, WAKE)
            return self.waiting


WAKE = signal.SIGUSR1
"""Not SIGINT, which is ignored in what a shell script runs in the background."""


@contextmanager
def reporting(
    coordinator: Any, report: Callable[[int], None] | None, note: Callable[[str], None] | None, watch: Watch
) -> Iterator[None]:
    """While the body waits for outcomes, ask the desk what is new; a body that waits in vain is interrupted."""
    stop = threading.Event()
    there = _alive()
    main = threading.current_thread() is threading.main_thread()
    before_us = signal.signal(WAKE, signal.default_int_handler) if main else None

    def poll() -> None:
        before, moved = (0, 0), time.monotonic()
        while True:
            over = stop.wait(1.0)
            try:
                total, notes = ray.get(coordinator.news.remote(), timeout=30)
            except ray.exceptions.RayError:
                if over:
                    return
                continue
            if report and total > watch.told:
                report(total - watch.told)
            for sentence in notes[watch.said :]:
                if note:
                    note(sentence)
            watch.told, watch.said = total, len(notes)
            if over:
                return
            if (total, watch.ended) != before or not watch.waiting:
                before, moved = (total, watch.ended), time.monotonic()
            elif main and time.monotonic() - moved > PATIENCE and there - _alive() and watch.interrupt():
                return

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5)
        if main:
            signal.signal(WAKE, before_us or signal.SIG_DFL)


def _alive() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}
