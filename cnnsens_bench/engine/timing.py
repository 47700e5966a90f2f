"""The speed of networks: images and seconds of their forward passes, measured without waiting for the device."""

import platform
import time
from pathlib import Path

import torch

Mark = float | torch.cuda.Event
"""A moment: seconds of a clock, or an event in the GPU's queue."""
CPU_INFO = Path("/proc/cpuinfo")


class Stopwatch:
    """Sums up the forward passes of each entrant.

    On a GPU a moment is an event in the GPU's queue, so nothing is synchronised while a sweep runs.

    Parameters
    ----------
    device
        The device that the networks run on.
    """

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.warm: set[int] = set()
        self.passes: list[tuple[int, int, float, list[tuple[Mark, Mark]]]] = []

    def mark(self) -> Mark:
        """Return the present moment."""
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def add(self, entrant: int, images: int, rows: int, spans: list[tuple[Mark, Mark]]) -> None:
        """Add a forward pass.

        Every pass costs the same, however many of its rows were asked for, so an image counts its row's share of the
        seconds: a nearly empty batch weighs little and does not make an entrant slow. The first pass of an entrant is
        left out, because it also chooses kernels and allocates memory.

        Parameters
        ----------
        entrant
            The entrant's position in the sweep.
        images
            How many rows of the batch were asked for.
        rows
            How many rows the batch has.
        spans
            The (begin, end) moments of the pass and of its pre-filter.
        """
        if entrant not in self.warm:
            self.warm.add(entrant)
        elif images:
            self.passes.append((entrant, images, images / rows, spans))

    def take(self) -> dict[int, tuple[int, float]]:
        """Return entrant → (images, seconds) of the passes since the last call; on a GPU they must have ended."""
        found: dict[int, tuple[int, float]] = {}
        for entrant, images, share, spans in self.passes:
            known, seconds = found.get(entrant, (0, 0.0))
            found[entrant] = known + images, seconds + share * sum(_seconds(*span) for span in spans)
        self.passes = []
        return found

    def discard(self) -> None:
        """Forget the passes since the last call of `take`."""
        self.passes = []


def _seconds(begin: Mark, end: Mark) -> float:
    if isinstance(begin, float) or isinstance(end, float):
        return float(end) - float(begin)  # type: ignore[arg-type]  # both are
    return begin.elapsed_time(end) / 1000


def device_name(device: torch.device) -> str:
    """Return the name of the GPU or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # this is not Linux
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next((name for name in named if name), platform.processor() or platform.machine() or "CPU")
