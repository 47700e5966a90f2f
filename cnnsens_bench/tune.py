"""The search: `python -m cnnsens_bench.tune model=torchvision/alexnet` finds recipes and trains the best ones.

Exit codes as of `run`: 0 done, 2 the request is wrong, 130 stopped, resumable (`resume=true`).
"""

import sys
from collections.abc import Sequence

from rich.console import Console

from cnnsens_bench.config import Config, model_configs
from cnnsens_bench.run import entry, usage


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code."""
    return entry(arguments, help_text, _tune)


def help_text() -> str:
    """Usage and every key with its default."""
    return usage(
        "python -m cnnsens_bench.tune [model=NAME] [suite=NAME] [search.trials=16] [resume=true] [key=value ...]",
        "Searches the fine-tuning recipe of each model, judged on held-out training images, and trains the best one.\n"
        "It ends with <output>/recipes.yaml, which `run recipe=<file>` takes; model=NAME is one of the suite's models, "
        "or any other.",
    )


def _tune(config: Config, console: Console) -> int:
    # Only now: a help text or a wrong word need not wait for torch.
    from cnnsens_bench.suite import tune_suite

    return tune_suite(config, model_configs(config), console)


if __name__ == "__main__":
    sys.exit(main())
