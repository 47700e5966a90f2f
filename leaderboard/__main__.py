"""`python -m leaderboard`: a page of results databases, comparisons of two entrants, and submissions to others."""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.storage import storage_path

QUICK = Path("runs/quick/results.duckdb")


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for a wrong request."""
    parser = argparse.ArgumentParser(prog="python -m leaderboard", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    page = commands.add_parser("build", help="write the page: one file, index.html, that opens from disk")
    page.add_argument("--out", type=Path, default=Path("site"), help="folder (default: site)")
    page.add_argument(
        "--reference",
        default="torchvision/alexnet",
        help="model that mCE is relative to (default: torchvision/alexnet)",
    )
    pair = commands.add_parser("compare", help="paired differences of two entrants, with tests")
    for name in ("first", "second"):
        pair.add_argument(name, help="a model, or model:defense, as in the database")
    pair.add_argument("--json", type=Path, help="write the numbers to this file too")
    for command in (page, pair):
        command.add_argument(
            "--db", action="append", default=[], help=f"a results.duckdb; several are merged (default: {QUICK})"
        )
    outward = commands.add_parser("export", help="write results as a folder that others can import")
    outward.add_argument("--db", type=Path, default=QUICK, help=f"a results.duckdb (default: {QUICK})")
    outward.add_argument("--out", type=Path, default=Path("submission"), help="a new folder (default: submission)")
    for kind in ("dataset", "model", "protocol"):
        outward.add_argument(f"--{kind}", action="append", default=[], help="only this; several may be given")
    outward.add_argument("--by", default="", help="who submits, as they want to be named")
    outward.add_argument("--note", default="", help="what a reader should know")
    inward = commands.add_parser("import", help="check such a folder, and bring it into a database")
    inward.add_argument("folder", type=Path)
    inward.add_argument("--db", type=Path, required=True, help="a .duckdb file; a new one is made")
    given = parser.parse_args(arguments)
    try:
        if told := COMMANDS[given.command](given):
            print(told)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def build(given: argparse.Namespace) -> str:
    """The path of the page."""
    from leaderboard.page import build as write

    with databases(given) as files:
        return str(write(files, given.out, given.reference))


def compare(given: argparse.Namespace) -> str:
    """Nothing: its tables are printed as they are."""
    from leaderboard.compare import compare as print_comparison

    with databases(given) as files:
        print_comparison(files, given.first, given.second, given.json)
    return ""


@contextlib.contextmanager
def databases(given: argparse.Namespace) -> Iterator[list[Path]]:
    """The files of `--db`; what lies at URIs is fetched into temporary ones."""
    from cnnsens_bench.store import local_copy

    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(local_copy(storage_path(text))) for text in dict.fromkeys(given.db or [str(QUICK)])]


def leave(given: argparse.Namespace) -> str:
    """The folder, and what is in it."""
    from cnnsens_bench.store.submission.transfer import Selection, export
    from cnnsens_bench.utils.environment import commit

    selection = Selection(given.dataset, given.model, given.protocol)
    moved = export(given.db, given.out, selection, given.by, given.note, commit())
    return f"{given.out}: {moved.predictions} predictions, {moved.entrants} entrants"


def enter(given: argparse.Namespace) -> str:
    """The database, and what is new in it."""
    from cnnsens_bench.store.submission.transfer import import_submission

    moved = import_submission(given.folder, given.db)
    return f"{given.db}: {moved.new} of {moved.predictions} predictions were new, of {moved.entrants} entrants"


COMMANDS = {"build": build, "compare": compare, "export": leave, "import": enter}


if __name__ == "__main__":
    sys.exit(main())
