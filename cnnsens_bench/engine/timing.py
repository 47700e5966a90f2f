"""How fast entrants are: images and seconds of their forward passes, without waiting for the device."""

import platform
import time
from pathlib import Path

import torch

Mark = float | torch.cuda.Event
"""A moment: seconds of a clock, or an event in the GPU's queue."""
CPU_INFO = Path("/proc/cpuinfo")


class Stopwatch:
    """Sums up the forward passes of each entrant.

    On a GPU a moment is an event in its queue, so that nothing is synchronised while a sweep runs.
    """

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.warm: set[int] = set()
        self.passes: list[tuple[int, int, float, list[tuple[Mark, Mark]]]] = []

    def mark(self) -> Mark:
        """Now."""
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def add(self, entrant: int, images: int, rows: int, spans: list[tuple[Mark, Mark]]) -> None:
        """A pass of a batch of `rows` took `spans`, and `images` of the rows were asked for.

        Every pass costs the same, however many of its rows are asked for, so an image counts its row's share of the
        seconds: a nearly empty batch weighs little, and does not make an entrant slow. The first pass of an entrant
        is left out: it also chooses kernels and allocates.
        """
        if entrant not in self.warm:
            self.warm.add(entrant)
        elif images:
            self.passes.append((entrant, images, images / rows, spans))

    def take(self) -> dict[int, tuple[int, float]]:
        """Entrant → images and seconds since the last call; on a GPU the passes must have ended."""
        found: dict[int, tuple[int, float]] = {}
        for entrant, images, share, spans in self.passes:
            known, seconds = found.get(entrant, (0, 0.0))
            found[entrant] = known + images, seconds + share * sum(_seconds(*span) for span in spans)
        self.passes = []
        return found


def _seconds(begin: Mark, end: Mark) -> float:
    if isinstance(begin, float) or isinstance(end, float):
        return float(end) - float(begin)  # type: ignore[arg-type]  # both are
    return begin.elapsed_time(end) / 1000


def device_words(device: torch.device) -> str:
    """What a reader knows a device by: the GPU's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next((name for name in named if name), platform.processor() or platform.machine() or "CPU")
