"""How the C library hands memory out, set for what a network needs."""

import contextlib
import ctypes
import os
from pathlib import Path

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> None:
    """Let freed activations be used again instead of given back to the system page by page.

    glibc maps and unmaps every block above 32 MB, so each layer's output costs fresh, zeroed pages. Without that, a
    training step of EfficientNet-Lite0 took 38 ms an image instead of 65 on two cores. A no-op elsewhere than on
    glibc. To be called before torch allocates.
    """
    # torch asks for huge pages for large blocks when this is set.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        library.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
        library.mallopt(M_TOP_PAD, 1 << 26)
    except (OSError, AttributeError):
        return


def total_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or the container's where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # not Linux, or no limit ("max")
            total = min(total, int(Path(path).read_text()))
    return total


STORE_SHARE = 0.2
"""Of the memory that the database of a run may take, whose driver computes too; it puts what is more onto the disk."""
WEIGHTS_SHARE = 0.25
"""Of a device's memory that weights may take; activations and images need the rest."""
