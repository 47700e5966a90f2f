"""The command `python -m cnnsens_bench.run suite=quick`: composes a config, runs its suite, says where results are.

The exit codes are 0 done, 1 something was not computed (the run says which), 2 the request is wrong, 130 stopped,
resumable.
"""

import sys
from collections.abc import Sequence

from cnnsens_bench.experiment.command import run_command, run_or_estimate, usage


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return run_command(arguments, help_text, run_or_estimate)


def help_text() -> str:
    """Return the usage, every suite with what it needs, costs and gives, and every key with its default."""
    return usage(
        "python -m cnnsens_bench.run [suite=NAME] [key=value ...]",
        "How often does a network's label change when the picture gets worse?",
    )


if __name__ == "__main__":
    sys.exit(main())
