"""The command `python -m cnnsens_bench.predict photo.jpg checkpoint=mine.pt`: what a network sees in photographs, and
how easily noise, black pixels and shifts would change that.

The exit codes are those of `run`: 0 done, 1 some photographs were not computed (said why), 2 the request is wrong, 130
stopped.
"""

import functools
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console

from cnnsens_bench import __version__
from cnnsens_bench.experiment.command import DONE, exit_code
from cnnsens_bench.experiment.photographs import DEGRADATIONS, PhotoRequest, predict_photographs
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import near

OPTIONS = ("--heatmap", "--json", "--help", "--version")
LARGEST_LEVEL = 1000.0
WIDTH = 80
"""Columns where there is no terminal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = set(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    if {"-h", "--help", "--version"} & options:
        sys.stdout.write(help_text() if {"-h", "--help"} & options else f"{__version__}\n")
        return DONE
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    error_console = Console(stderr=True, highlight=False)
    return exit_code(
        lambda: predict_photographs(parse(arguments), console, error_console), error_console, "stopped: nothing is kept"
    )


def help_text() -> str:
    """Return the usage, every key and every option."""
    return resources.files("cnnsens_bench").joinpath("predict_help.txt").read_text("utf-8")


def parse(arguments: Sequence[str]) -> PhotoRequest:
    """Read the arguments, and check them as far as that needs no network. Raise `UserError`."""
    photographs: list[str] = []
    options: dict[str, Any] = {}
    given: dict[str, str] = {}
    remaining = iter(arguments)
    for word in remaining:
        name, equals, value = word.partition("=")
        if word == "--":
            photographs += remaining
        elif word == "--json":
            options["json"] = True
        elif name == "--heatmap":
            folder = value if equals else next(remaining, "")
            if not folder:
                raise UserError("--heatmap needs the folder that the pictures go to: --heatmap FOLDER")
            options["heatmap"] = Path(folder).expanduser()
        elif word.startswith("-"):
            raise UserError(f"unknown option '{word}'{near(word, OPTIONS)} (a photograph of that name goes after --)")
        elif not equals or not name.isidentifier() or os.path.lexists(word):
            photographs.append(word)
        elif name not in KEYS:
            raise UserError(f"there is no photograph '{word}', and no key '{name}'{near(name, KEYS)}")
        elif name in given:
            example = "sigma=1,4,16" if name in DEGRADATIONS else word
            raise UserError(f"{name}= is given twice: give it once ({example})")
        else:
            given[name] = value
    for name, text in given.items():
        if not text:
            raise UserError(f"{name}= has no value (--help says what it takes)")
    values = {name: KEYS[name](name, text) for name, text in given.items()}
    if not photographs:
        raise UserError(
            "no photograph is named: python -m cnnsens_bench.predict photo.jpg checkpoint=<file> (or --help)"
        )
    levels = {name: values.pop(name) for name in given if name in DEGRADATIONS}
    return PhotoRequest(photographs, levels=levels, **values, **options)


def _names(name: str, text: str) -> tuple[str, ...]:
    return tuple(text.strip("[]").split(","))


def _numbers(name: str, text: str, example: str) -> tuple[float, ...]:
    found = []
    for part in _names(name, text):
        try:
            found.append(float(part))
        except ValueError:
            raise UserError(f"{name}={text}: '{part}' is not a number: write {name}={example}") from None
    return tuple(found)


def _levels(name: str, text: str) -> tuple[float, ...]:
    levels = _numbers(name, text, "4 or 1,4,16")
    if max(map(abs, levels)) > LARGEST_LEVEL:
        raise UserError(f"{name}={text} is beyond what a picture can show: levels go to {LARGEST_LEVEL:g} at most")
    return levels


def _box(name: str, text: str) -> tuple[float, ...]:
    box = _numbers(name, text, "120,80,300,260 (x, y, width, height in pixels)")
    if len(box) != 4 or not all(map(math.isfinite, box)) or min(box[2:]) <= 0:
        raise UserError(f"box={text}: write x,y,width,height in pixels, such as box=120,80,300,260")
    return box


def _whole_number(low: int, high: int, name: str, text: str) -> int:
    if not (re.fullmatch(r"[0-9]{1,9}", text) and low <= int(text) <= high):
        raise UserError(f"{name}={text}: it must be a whole number between {low} and {high}")
    return int(text)


def _input_size(name: str, text: str) -> int | str:
    return text if text in ("train", "test") else _whole_number(16, 4096, name, text)


def _view(name: str, text: str) -> str:
    if text not in ("box", "published"):
        raise UserError(f"view={text}: it must be box or published")
    return text


def _lines(name: str, text: str) -> tuple[str, ...]:
    """Return the lines of a file of class names."""
    path = Path(text).expanduser()
    try:
        names = [line.strip() for line in path.read_text("utf-8-sig").rstrip().split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise UserError(f"classes={path} cannot be read ({reason}): give a text file with one name a line") from None
    if not all(names):
        raise UserError(f"classes={path}: line {names.index('') + 1} is empty: write one name a line")
    return tuple(names)


KEYS: dict[str, Callable[[str, str], Any]] = {
    "model": lambda _, text: text,
    "checkpoint": lambda _, text: Path(text).expanduser(),
    **dict.fromkeys(DEGRADATIONS, _levels),
    "predictor": lambda _, text: text,
    "box": _box,
    "classes": _lines,
    "input_size": _input_size,
    "view": _view,
    "batch_size": functools.partial(_whole_number, 1, 4096),
    "plugins": _names,
}
"""Key → the function that reads its value, from the name of the key and the text. Each raises `UserError`."""


if __name__ == "__main__":
    sys.exit(main())
