"""The command `python -m cnnsens_bench.tune model=torchvision/alexnet`: finds recipes, and trains the best ones.

The exit codes are those of `run`: 0 done, 2 the request is wrong, 130 stopped, resumable (`resume=true`).
"""

import sys
from collections.abc import Sequence

from cnnsens_bench.experiment.command import run_command, search_and_train, usage


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return run_command(arguments, help_text, search_and_train, "the same command with resume=true goes on")


def help_text() -> str:
    """Return the usage, and every key with its default."""
    return usage(
        "python -m cnnsens_bench.tune [model=NAME] [suite=NAME] [search.trials=16] [resume=true] [key=value ...]",
        "Searches the fine-tuning recipe of each model, judged on held-out training images, and trains the best one.\n"
        "It ends with <output>/recipes.yaml, which `run recipe=<file>` takes; model=NAME is one of the suite's models, "
        "or any other.",
    )


if __name__ == "__main__":
    sys.exit(main())
