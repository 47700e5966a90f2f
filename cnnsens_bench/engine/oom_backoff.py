"""The way out when memory runs out: fewer images are computed at a time, and the run goes on.

A batch that is computed in smaller parts has another shape, so on some devices the last bits of a result can differ, as
they do between two devices. Nothing else changes.
"""

import gc
from collections.abc import Callable, Hashable
from typing import TypeVar

import torch

from cnnsens_bench.utils.errors import first_line
from cnnsens_bench.utils.reporter import SILENT, Reporter

T = TypeVar("T")


class OomBackoff:
    """Computes batches in as large parts as memory allows, and remembers how large they may be.

    Parameters
    ----------
    reporter
        Its `message` is called once for each halving.
    """

    def __init__(self, reporter: Reporter = SILENT) -> None:
        self.reporter = reporter
        self.limits: dict[Hashable, int] = {}

    def run(
        self,
        key: Hashable,
        count: int,
        compute: Callable[[slice], T],
        announce: Callable[[int, int], str],
        skip: Callable[[int, str], T] | None = None,
    ) -> list[T] | None:
        """Call `compute` for slices that together are `slice(0, count)`, and return the results in order.

        Parameters
        ----------
        key
            What is computed. A limit that was found for a key holds for all later calls with it.
        count
            The number of images.
        compute
            Computes the images of a slice. It may raise because memory runs out; other errors are passed on.
        announce
            (images at a time from now on, images at a time before) → what a message says about it.
        skip
            (position of an image that does not fit alone, the error's first line) → what stands for its result. Without
            it such an image ends the call.

        Returns
        -------
        list or None
            The results; None where one image alone does not fit and there is no `skip`.

        Examples
        --------
        >>> def compute(part):
        ...     if part.stop - part.start > 2:
        ...         raise MemoryError
        ...     return part.stop - part.start
        >>> OomBackoff().run("network", 5, compute, lambda after, before: f"{after} instead of {before}")
        [2, 2, 1]
        """
        results: list[T] = []
        start = 0
        while start < count:
            size = min(self.limits.get(key, count), count - start)
            try:
                results.append(compute(slice(start, start + size)))
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                reason = first_line(error, 200)
            else:
                start += size
                continue
            # Memory is freed out here, where the exception holds no tensors any more.
            free_memory()
            if size > 1:
                self.limits[key] = size // 2
                self.reporter.message(f"note: memory is short: {announce(size // 2, size)}")
            elif skip is None:
                return None
            else:
                results.append(skip(start, reason))
                start += 1
        return results


def fewer_images(name: str) -> Callable[[int, int], str]:
    """Return an `announce` for `OomBackoff.run` that speaks of a network or a filter by its name."""
    return lambda after, before: f"{name} goes on with {after} images at a time instead of {before}"


def free_memory() -> None:
    """Give memory that nobody uses any more back to the system and the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Return whether a device or the system refused memory; on a CPU torch raises a plain `RuntimeError`."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return any(phrase in text for phrase in ("can't allocate memory", "not enough memory", "out of memory"))
