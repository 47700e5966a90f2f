"""The folder in which the machine code of numba's loops is kept, so that each loop is compiled once on a machine.

numba's own cache does not notice when a function changes that a loop takes from another file, and never finds a loop
again that was made by a function. Here the code belongs to the sources of the whole package, and a loop that a function
made is found by the names of the formulas that it was made of.
"""

import contextlib
import functools
import hashlib
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnnsens_bench.utils.atomic import write_atomically
from cnnsens_bench.utils.cache import cache_dir
from cnnsens_bench.utils.cpu_libraries import INSTALLED, numba

PACKAGE = Path(__file__).parents[1]
FOLDER = "loops"
"""The folder below the cache folder."""


def keep_code(loop: Any, *formulas: Callable[..., Any]) -> Any:
    """Let numba look for the machine code of a loop in the cache folder before it compiles, and write it there.

    A cache folder that cannot be read or written costs the time of compiling, and nothing else.

    Parameters
    ----------
    loop
        A function that `numba.njit` returned.
    formulas
        The functions that the loop was made of, if a function made it. Where one of them is a closure, or from outside
        this package, the code is not kept.

    Returns
    -------
    loop
        The same loop.
    """
    if INSTALLED and all(_is_ours(formula) for formula in formulas):
        made_of = (loop.py_func, *formulas)
        loop._cache = KeptCode([f"{each.__module__}.{each.__qualname__}" for each in made_of])
    return loop


def _is_ours(formula: Callable[..., Any]) -> bool:
    """Return whether a function's name says which it is, and the sources of the package what it does."""
    return formula.__module__.startswith("cnnsens_bench.") and formula.__qualname__.isidentifier()


@functools.cache
def source_digest() -> str:
    """Return the digest of all modules of this package."""
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(PACKAGE.rglob("*.py")):
        digest.update(file.relative_to(PACKAGE).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


class KeptCode:
    """The part of numba's interface for caches that numba calls when it compiles a loop.

    Each loop and signature has a file of its own, so that processes which compile at the same time do not disturb each
    other.

    Parameters
    ----------
    names
        The names of the loop and of the formulas that it was made of.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def file(self, signature: Any, codegen: Any) -> Path:
        """Return the file of the code for a signature and the processor of this machine."""
        key = repr((self.names, str(signature), codegen.magic_tuple(), numba.__version__, sys.version))
        name = f"{self.names[0].rpartition('.')[2]}-{hashlib.blake2b(key.encode(), digest_size=12).hexdigest()}"
        return cache_dir() / FOLDER / source_digest() / name

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled code of a signature, or None where there is none."""
        target_context.refresh()
        with contextlib.suppress(OSError, EOFError, pickle.UnpicklingError):
            kept = pickle.loads(self.file(sig, target_context.codegen()).read_bytes())  # noqa: S301  # a file of our own
            return numba.core.compiler.CompileResult._rebuild(target_context, *kept)

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write the compiled code of a signature, unless it holds addresses of this process."""
        if data.library.has_dynamic_globals or any(not each.can_cache for each in data.lifted):
            return
        with contextlib.suppress(OSError):
            file = self.file(sig, data.codegen)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, numba.core.serialize.dumps(data._reduce()))
