"""What every command line shares: from its arguments to a configuration, the help text, and exit codes."""

import errno
import json
import logging
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence

from rich.console import Console

from cnnsens_bench import __version__
from cnnsens_bench.config.compose import compose, suites
from cnnsens_bench.config.reference import config_keys
from cnnsens_bench.config.schema import Config
from cnnsens_bench.experiment.resolve import resolve_output
from cnnsens_bench.utils.errors import StorageError, UserError
from cnnsens_bench.utils.formatting import plain
from cnnsens_bench.utils.memory import keep_freed_memory
from cnnsens_bench.utils.progress import say
from cnnsens_bench.utils.registered_names import registered_names

DONE, INCOMPLETE, WRONG, STOPPED = 0, 1, 2, 130
"""Exit codes: all was computed; something was not; the request itself is wrong; the user stopped it, it can go on."""
KEPT = "what was computed is kept, the same command goes on"
FULL = (errno.ENOSPC, errno.EDQUOT)
INDENT = 6 * " "
WIDTH = 120
"""Columns of the output where there is no terminal."""


def run_or_estimate(config: Config, console: Console) -> int:
    """Run a suite, or estimate its cost where `estimate` is set, and return the number of what was not computed."""
    # The imports stand here because a help text or a wrong argument need not wait for torch.
    if config.estimate:
        from cnnsens_bench.experiment.estimate import estimate_suite

        estimate_suite(config, console)
        return 0
    from cnnsens_bench.experiment.runner import run_suite

    return run_suite(config, console)


def search_and_train(config: Config, console: Console) -> int:
    """Search the recipes of a suite's models, train the best, and return the number of images that were not read."""
    from cnnsens_bench.experiment.tuning import tune_suite

    return tune_suite(config, console)


def run_command(
    arguments: Sequence[str] | None,
    help_text: Callable[[], str],
    work: Callable[[Config, Console], int],
    resume_hint: str = "the same command goes on",
) -> int:
    """Run a command whose arguments are `key=value` words, and return its exit code.

    Parameters
    ----------
    arguments
        The arguments. The default is those of the process.
    help_text
        Gives the text of `--help`.
    work
        Does what the configuration asks for, and returns the number of what was not computed.
    resume_hint
        How a run that the user stops goes on: the end of a sentence.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)  # progress in a log file is of use only while it is fresh
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    if {"-h", "--help", "--version"} & set(arguments):
        say(console, help_text() if {"-h", "--help"} & set(arguments) else __version__)
        return DONE
    stopped = f"stopped: nothing computed is lost, {resume_hint}"
    return exit_code(lambda: work(resolve_output(compose(arguments)), console), console, stopped)


def exit_code(work: Callable[[], int], console: Console, stopped: str) -> int:
    """Call `work`, say in one sentence what ended it early, and return the exit code of the process.

    Parameters
    ----------
    work
        Returns the number of what was not computed.
    console
        Where `stopped` is printed. Errors go to standard error.
    stopped
        The sentence for a user who stopped it.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _quiet_libraries()
    keep_freed_memory()
    try:
        return INCOMPLETE if work() else DONE
    except UserError as error:
        _print_error(str(error))
        return WRONG
    except StorageError as error:
        _print_error(f"{error}: {KEPT}")
        return INCOMPLETE
    except OSError as error:
        if error.errno not in FULL:
            raise
        _print_error(f"{error.filename or 'the disk'}: {error.strerror}: {KEPT}")
        return INCOMPLETE
    except KeyboardInterrupt:
        console.print(stopped, markup=False)
        return STOPPED


def usage(command: str, purpose: str) -> str:
    """Return a help text: what the command is for, every suite, every key with its default, every registered name."""
    lines = [
        f"usage: {command}\n",
        f"{purpose} Any key below can be set as key=value;",
        "lists are written models=[timm/resnet18,torchvision/alexnet], mappings {name: pepper, levels: [0.04]}.\n",
        "suites:",
    ]
    lines += [f"  suite={name}\n{textwrap.indent(text, INDENT)}" for name, text in suites().items()]
    lines += ["\nkeys and their defaults (a suite sets some of them):"]
    for key in config_keys():
        text = textwrap.fill(key.text, WIDTH - 1, initial_indent=INDENT, subsequent_indent=INDENT)
        lines += [f"  {key.name}={json.dumps(key.default)}", text]
    rooms = ("datasets", "defenses", "degradations")
    return "\n".join([*lines, "\nnames: " + ", ".join(f"{r} {', '.join(registered_names(r))}" for r in rooms)])


def _print_error(sentence: str) -> None:
    say(Console(stderr=True, highlight=False), f"error: {plain(sentence)}")


def _quiet_libraries() -> None:
    """Silence the notes of libraries, which would tear the progress display apart; errors still raise."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    for name in ("huggingface_hub", "timm", "ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
