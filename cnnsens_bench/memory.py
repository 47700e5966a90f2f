"""How the C library hands memory out, set for what a network needs."""

import ctypes
import os

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
