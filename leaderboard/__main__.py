"""`python -m leaderboard`: a web page of results databases, and paired comparisons of two of their entrants."""

import argparse
import sys
from pathlib import Path

from cnnsens_bench.errors import UserError

QUICK = Path("runs/quick/results.duckdb")


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for a wrong request."""
    parser = argparse.ArgumentParser(prog="python -m leaderboard", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="write the page: one file, index.html, that opens from disk")
    build.add_argument("--out", type=Path, default=Path("site"), help="folder (default: site)")
    build.add_argument(
        "--reference",
        default="torchvision/alexnet",
        help="model that mCE is relative to (default: torchvision/alexnet)",
    )
    compare = commands.add_parser("compare", help="paired differences of two entrants, with tests")
    for name in ("first", "second"):
        compare.add_argument(name, help="a model, or model:defense, as in the database")
    compare.add_argument("--json", type=Path, help="write the numbers to this file too")
    for command in (build, compare):
        command.add_argument(
            "--db", type=Path, action="append", help=f"a results.duckdb; several are merged (default: {QUICK})"
        )
    given = parser.parse_args(arguments)
    paths = given.db or [QUICK]
    try:
        if given.command == "build":
            from leaderboard.page import build as write

            print(write(paths, given.out, given.reference))
        else:
            from leaderboard.compare import compare as print_comparison

            print_comparison(paths, given.first, given.second, given.json)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
