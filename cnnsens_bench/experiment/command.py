"""What every command line shares: words to a config, help texts, exit codes."""

import dataclasses
import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from rich.console import Console

from cnnsens_bench import __version__
from cnnsens_bench.config.compose import compose, suites
from cnnsens_bench.config.schema import Config
from cnnsens_bench.experiment.placement import settled
from cnnsens_bench.utils.errors import StorageError, UserError
from cnnsens_bench.utils.memory import keep_freed_memory

DONE, INCOMPLETE, WRONG, STOPPED = 0, 1, 2, 130


def run_or_estimate(config: Config, console: Console) -> int:
    """Run the suite of a config, or estimate what that would cost; gives the number of images that failed."""
    # Imported only here: a help text or a wrong word need not wait for torch.
    if config.estimate:
        from cnnsens_bench.experiment.estimate import estimate_suite

        estimate_suite(config, console)
        return 0
    from cnnsens_bench.experiment.runner import run_suite

    return run_suite(config, console)


FULL = (errno.ENOSPC, errno.EDQUOT)


def entry(
    arguments: Sequence[str] | None,
    help_of: Callable[[], str],
    work: Callable[[Config, Console], int],
    goes_on: str = "the same command goes on",
) -> int:
    """What every command shares: words to a config, exit codes. `work` gives the number of what failed."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)  # progress in a log file is of use only while it is fresh
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    if {"-h", "--help"} & set(words):
        console.print(help_of(), markup=False)
        return DONE
    if "--version" in words:
        console.print(__version__, markup=False)
        return DONE
    stopped = f"stopped: nothing computed is lost, {goes_on}"
    return ended(lambda: work(settled(compose(words)), console), console, stopped)


def ended(work: Callable[[], int], console: Console, stopped: str) -> int:
    """The exit code of `work`, which gives the number of what failed; says how it ended, where it did not go well."""
    signal.signal(signal.SIGTERM, _stop)
    _quiet_libraries()
    keep_freed_memory()
    try:
        return INCOMPLETE if work() else DONE
    except UserError as error:
        from cnnsens_bench.utils.formatting import plain

        Console(stderr=True, highlight=False).print(f"error: {plain(str(error))}", markup=False, soft_wrap=True)
        return WRONG
    except OSError as error:
        if not (isinstance(error, StorageError) or error.errno in FULL):
            raise
        from cnnsens_bench.utils.formatting import plain

        reason = str(error) if isinstance(error, StorageError) else f"{error.filename or 'the disk'}: {error.strerror}"
        text = f"error: {plain(reason)}: what was computed is kept, the same command goes on"
        Console(stderr=True, highlight=False).print(text, markup=False, soft_wrap=True)
        return INCOMPLETE
    except KeyboardInterrupt:
        console.print(stopped, markup=False)
        return STOPPED


def usage(command: str, purpose: str) -> str:
    """The help text of a command."""
    lines = [
        f"usage: {command}",
        "",
        f"{purpose} Any key below can be set as key=value;",
        "lists are written models=[timm/resnet18,torchvision/alexnet], mappings {name: pepper, levels: [0.04]}.",
        "",
        "suites:",
    ]
    for name, text in suites().items():
        lines += [f"  suite={name}", *(f"      {line}" for line in text.splitlines())]
    lines += ["", "keys and their defaults (a suite sets some of them):"]

    lines += [f"  {key}={json.dumps(value)}" for key, value in _flat(dataclasses.asdict(Config()))]
    lines += ["", "names: " + ", ".join(f"{kind} {', '.join(names)}" for kind, names in _names().items())]
    return "\n".join(lines)


def _flat(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _names() -> dict[str, list[str]]:
    from cnnsens_bench.datasets import datasets
    from cnnsens_bench.defenses import defenses
    from cnnsens_bench.degradations import degradations

    return {"datasets": sorted(datasets), "defenses": sorted(defenses), "degradations": sorted(degradations)}


def _quiet_libraries() -> None:
    """Their notes would tear the progress apart; errors still come through as exceptions."""
    import logging

    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    for name in ("huggingface_hub", "timm", "ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _stop(*_: object) -> NoReturn:
    raise KeyboardInterrupt
