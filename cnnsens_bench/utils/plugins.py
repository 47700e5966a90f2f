"""Importing the modules in which users register their own degradations, data sets, defenses and the like."""

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from cnnsens_bench.utils.errors import UserError


def load_plugins(names: Sequence[str]) -> None:
    """Import the users' modules, which register their own degradations, datasets, … Raises `UserError`."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for name in names:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise UserError(_complaint(name, error)) from None


def _complaint(plugin: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and f"{plugin}.".startswith(f"{error.name}."):
        return f"plugin '{plugin}' cannot be imported ({error}): put its file in the working folder, or install it"
    frames = traceback.extract_tb(error.__traceback__)
    between = (__file__, importlib.__file__)
    own = [(f.filename, f.lineno) for f in frames if f.filename not in between and not f.filename.startswith("<frozen")]
    # A file that cannot be compiled has no frame; of a mistake in what the plugin calls its own line tells more.
    file, line = (error.filename, error.lineno) if isinstance(error, SyntaxError) else (own or [("", 0)])[0]
    place = f" in line {line} of {Path(file).name}" if file and line else ""
    if isinstance(error, UserError):
        return f"plugin '{plugin}'{place}: {error}"
    text = (error.msg if isinstance(error, SyntaxError) else str(error)).strip().split("\n")[0]
    return f"plugin '{plugin}' fails{place}: {type(error).__name__}: {text}"
