"""Importing the modules that register degradations, data sets, defenses and the like: users' and this package's."""

import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from cnnsens_bench.utils.errors import UserError


def import_submodules(package: str) -> None:
    """Import every module of a package in the order of their names, so that each registers what it defines.

    Parameters
    ----------
    package
        The dotted name of the package.
    """
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        importlib.import_module(module.name)


def load_plugins(names: Sequence[str]) -> None:
    """Import the modules in which users register their own degradations, data sets, models, defenses or measures.

    Parameters
    ----------
    names
        Dotted names of modules that are installed or lie in the working folder.

    Raises
    ------
    UserError
        If a module cannot be imported. The sentence names the line of the user's file where there is one.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for name in names:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise UserError(_complaint(name, error)) from None


def _complaint(plugin: str, error: BaseException) -> str:
    """Say in one sentence why a plugin cannot be imported."""
    if isinstance(error, ModuleNotFoundError) and f"{plugin}.".startswith(f"{error.name}."):
        return f"plugin '{plugin}' cannot be imported ({error}): put its file in the working folder, or install it"
    frames = traceback.extract_tb(error.__traceback__)
    between = (__file__, importlib.__file__)
    own = [(f.filename, f.lineno) for f in frames if f.filename not in between and not f.filename.startswith("<frozen")]
    # A file that cannot be compiled has no frame. For other mistakes, the plugin's own line helps more than the last.
    file, line = (error.filename, error.lineno) if isinstance(error, SyntaxError) else (own or [("", 0)])[0]
    position = f" in line {line} of {Path(file).name}" if file and line else ""
    if isinstance(error, UserError):
        return f"plugin '{plugin}'{position}: {error}"
    text = (error.msg if isinstance(error, SyntaxError) else str(error)).strip().split("\n")[0]
    return f"plugin '{plugin}' fails{position}: {type(error).__name__}: {text}"
