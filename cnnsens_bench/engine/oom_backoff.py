"""When memory runs out: fewer images at a time, for the rest of the run, and not its end.

A batch that is computed in parts has another shape: on some devices the last bits of a result then differ, as they do
between two devices. Nothing else does.
"""

import gc
from collections.abc import Callable, Hashable
from typing import Any

import torch


class OomBackoff:
    """How many images each network takes at a time: all of a batch, until memory ran out.

    `note(sentence)` is told once for each halving.
    """

    def __init__(self, note: Callable[[str], None] | None = None) -> None:
        self.note = note
        self.limits: dict[Hashable, int] = {}

    def run(self, key: Hashable, name: str, count: int, compute: Callable[[slice], Any]) -> list[Any] | None:
        """`compute(part)` for parts that together are `slice(0, count)`, one where memory allows; their results in
        order. None: the network `key` (`name` in sentences) does not fit with one image."""
        results: list[Any] = []
        start = 0
        while start < count:
            size = min(self.limits.get(key, count), count - start)
            try:
                results.append(compute(slice(start, start + size)))
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            else:
                start += size
                continue
            # Only here, where the exception holds no tensors any more.
            free_memory()
            if size == 1:
                return None
            self.limits[key] = size // 2
            if self.note:
                self.note(f"note: memory is short: {name} goes on with {size // 2} images at a time instead of {size}")
        return results


def free_memory() -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Whether a device or the system refused memory; on a CPU torch raises a plain `RuntimeError`."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return any(words in text for words in ("can't allocate memory", "not enough memory", "out of memory"))
