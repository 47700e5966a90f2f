"""Importing the modules that register degradations, data sets, defenses and the like: users' and this package's."""

import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

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
    find_in_working_folder()
    for name in names:
        import_own(name, f"plugin '{name}'")


def find_in_working_folder() -> None:
    """Let modules of the working folder be imported."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def import_own(name: str, subject: str) -> ModuleType:
    """Import a module of a user's.

    Parameters
    ----------
    name
        The dotted name of the module.
    subject
        What begins the sentence about a module that cannot be imported, such as `plugin 'mine'`.

    Raises
    ------
    UserError
        If it cannot be imported. The sentence names the line of the user's file where there is one.
    """
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            way_out = "put its file in the working folder, or install it"
            raise UserError(f"{subject} cannot be imported ({error}): {way_out}") from None
        raise UserError(complaint(subject, error)) from None


def complaint(subject: str, error: BaseException) -> str:
    """Say in one sentence why a user's code fails, and in which line of it."""
    frames = traceback.extract_tb(error.__traceback__)
    package = str(Path(__file__).parents[1])
    own = [
        (frame.filename, frame.lineno)
        for frame in frames
        if not frame.filename.startswith((package, "<frozen")) and frame.filename != importlib.__file__
    ]
    # A file that cannot be compiled has no frame. For other mistakes, the user's own line helps more than the last.
    file, line = (error.filename, error.lineno) if isinstance(error, SyntaxError) else (own or [("", 0)])[0]
    position = f" in line {line} of {Path(file).name}" if file and line else ""
    if isinstance(error, UserError):
        return f"{subject}{position}: {error}"
    text = (error.msg if isinstance(error, SyntaxError) else str(error)).strip().split("\n")[0]
    return f"{subject} fails{position}: {type(error).__name__}: {text}"
