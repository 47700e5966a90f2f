"""The console script `cnnsens-bench`: each of its commands is a module that `python -m` runs too."""

import contextlib
import importlib
import io
import re
import sys
from collections.abc import Sequence
from importlib import resources

from cnnsens_bench import __version__
from cnnsens_bench.utils.registry import near

COMMANDS = {
    "run": ("cnnsens_bench.run", "run a suite: train, degrade, predict, and bring the results into a database"),
    "tune": ("cnnsens_bench.tune", "search for the fine-tuning recipe of a network"),
    "predict": ("cnnsens_bench.predict", "say what a network sees in photographs, and how stable that is"),
    "figures": ("cnnsens_bench.figures.__main__", "draw figures and tables from a database"),
    "verify": ("cnnsens_bench.verify", "compute a random sample of results again, and compare"),
    "pictures": ("cnnsens_bench.pictures", "make the pictures of fragile images that the leaderboard shows"),
    "degradations": ("cnnsens_bench.degradations.__main__", "draw a contact sheet of degradations"),
    "camera": ("cnnsens_bench.camera.__main__", "measure what a camera does to its photographs, as levels"),
    "leaderboard": ("leaderboard.__main__", "build the page, compare and rank entrants, write cards, exchange results"),
}
SHELLS = ("bash", "zsh", "fish")
_LISTED = "\n".join(f"  {name:<13} {text}" for name, (_, text) in COMMANDS.items())
HELP = f"""usage: cnnsens-bench COMMAND [argument ...]

How often does a network's label change when the picture gets worse?

{_LISTED}
  completion    print the completions for a shell: {", ".join(SHELLS)}

cnnsens-bench COMMAND --help says what a command takes.
Exit codes: 0 done, 1 something was not computed (said which), 2 the request is wrong, 3 rows differ
(verify), 130 stopped.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Parameters
    ----------
    arguments
        The command and its own arguments; those of the process unless given.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    name, rest = (given[0], given[1:]) if given else ("", [])
    if name in COMMANDS:
        return importlib.import_module(COMMANDS[name][0]).main(rest)
    if name == "completion" and len(rest) == 1 and rest[0] in SHELLS:
        sys.stdout.write(completion(rest[0]))
        return 0
    if name in ("-h", "--help", "--version"):
        sys.stdout.write(f"{__version__}\n" if name == "--version" else HELP)
        return 0
    if name == "completion":
        reason = f"completion takes one of {', '.join(SHELLS)}"
    else:
        reason = f"unknown command '{name}'{near(name, [*COMMANDS, 'completion'])}" if name else "no command is given"
    sys.stderr.write(f"error: {reason} (cnnsens-bench --help says what there is)\n")
    return 2


def completion(shell: str) -> str:
    """Return the script that completes the commands and their arguments in a shell, one of `SHELLS`.

    In its file, the line with `@name@` stands for one line for each command.
    """
    completions = {name: " ".join(completions_of(name)) for name in COMMANDS} | {"completion": " ".join(SHELLS)}
    template = resources.files("cnnsens_bench").joinpath(f"completion.{shell}").read_text("utf-8")
    script = ""
    for line in template.replace("@commands@", " ".join(completions)).splitlines(keepends=True):
        for name, found in completions.items() if "@name@" in line else [("", "")]:
            script += line.replace("@name@", name).replace("@completions@", found)
    return script


def completions_of(command: str) -> list[str]:
    """Return the options, keys and subcommands that the help of a command names."""
    text = help_of(command)
    choices = re.findall(r"^    ([a-z][a-z0-9-]+)(?:  |$)", text, re.MULTILINE)
    text += "".join(help_of(command, choice) for choice in choices)
    options = re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)
    keys = re.findall(r"^  (suite=[\w-]+|[a-z_.]+=)", text, re.MULTILINE)
    return [*dict.fromkeys([*choices, *keys]), *sorted(set(options))]


def help_of(*command: str) -> str:
    """Return the help text of a command, or of a subcommand of it."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*command, "--help"])
    return printed.getvalue()


if __name__ == "__main__":
    sys.exit(main())
