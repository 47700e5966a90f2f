"""A plugin for `chaos.py`: decoding and computing that take their time, and a driver that kills itself to the moment.

Environment: `CHAOS_SECONDS`: that each image's decoding, each batch's degradation and each batch of a training take
more, so that a run of few images has a middle to strike in. `CHAOS_EVERY`: seconds between two publications, instead of
a minute, so that some come while workers compute. `CHAOS_TIMES`: a file that hears how long each `ingest` and `publish`
of the driver took. `CHAOS_STRIKE`: "<ingest|publish> <number of the call> <seconds>": SIGKILL for the driver so long
after the call began, or as it ends.
"""

import functools
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnnsens_bench import images
from cnnsens_bench.engine import evaluate
from cnnsens_bench.runtime import cluster
from cnnsens_bench.store import RunStore, publish
from cnnsens_bench.training import trainer

if "CHAOS_PATIENCE" in os.environ:
    cluster.PATIENCE = float(os.environ["CHAOS_PATIENCE"])
if "CHAOS_EVERY" in os.environ:
    publish.EVERY = float(os.environ["CHAOS_EVERY"])


def slowed(work: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(work)
    def slow(*arguments: Any, **more: Any) -> Any:
        time.sleep(float(os.environ.get("CHAOS_SECONDS", "0")))
        return work(*arguments, **more)

    return slow


def watched(stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """A method of the driver's store, timed or struck; calls that have nothing to bring in are not counted."""
    calls = [0]

    @functools.wraps(work)
    def method(self: RunStore, *arguments: Any, **more: Any) -> Any:
        busy = any(self.parts.attempts().values()) if stage == "ingest" else self.changed
        if not busy:
            return work(self, *arguments, **more)
        calls[0] += 1
        place, number, seconds = os.environ.get("CHAOS_STRIKE", "none 0 0").split()
        mine = (place, int(number)) == (stage, calls[0])
        if mine:
            timer = threading.Timer(float(seconds), die)
            timer.daemon = True
            timer.start()
        began = time.monotonic()
        result = work(self, *arguments, **more)
        if mine:
            die()
        if "CHAOS_TIMES" in os.environ:
            with Path(os.environ["CHAOS_TIMES"]).open("a") as file:
                file.write(f"{stage} {calls[0]} {time.monotonic() - began}\n")
        return result

    return method


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


images.decode = slowed(images.decode)
trainer.with_noise = slowed(trainer.with_noise)
evaluate.Evaluator.evaluate = slowed(evaluate.Evaluator.evaluate)  # type: ignore[method-assign]
RunStore.ingest = watched("ingest", RunStore.ingest)  # type: ignore[method-assign]
RunStore.publish = watched("publish", RunStore.publish)  # type: ignore[method-assign]
RunStore.end = watched("publish", RunStore.end)  # type: ignore[method-assign]
