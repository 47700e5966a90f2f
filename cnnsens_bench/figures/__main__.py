"""`python -m cnnsens_bench.figures`: draw a figure from a store or a data set."""

import argparse
import sys
from pathlib import Path

from cnnsens_bench.errors import ImageError, UserError


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for a wrong request."""
    parser = argparse.ArgumentParser(prog="python -m cnnsens_bench.figures", description=__doc__)
    figures = parser.add_subparsers(dest="figure", required=True)
    curves = figures.add_parser("curves", help="accuracy over levels, a panel a degradation")
    curves.add_argument("--db", type=Path, required=True, help="a results.duckdb")
    curves.add_argument("--defense", default="none")
    sheet = figures.add_parser("contact-sheet", help="training images of each class of a data set")
    sheet.add_argument("--dataset", default="plumage")
    sheet.add_argument("--root", type=Path)
    for figure in (curves, sheet):
        figure.add_argument("--out", type=Path, required=True, help="a .png, .pdf or .svg file")
    given = parser.parse_args(arguments)
    try:
        draw(given)
    except (UserError, ImageError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(given.out)
    return 0


def draw(given: argparse.Namespace) -> None:
    """Import and call what was asked for."""
    if given.figure == "curves":
        from cnnsens_bench.figures.curves import curves
        from cnnsens_bench.store import Store

        if not given.db.is_file():
            raise UserError(f"there is no database {given.db}: a run prints the path of its own")
        store = Store(given.db.parent)
        store.path = given.db
        curves(store, given.out, given.defense)
    else:
        from cnnsens_bench.datasets import load
        from cnnsens_bench.figures.contact_sheet import contact_sheet

        contact_sheet(load(given.dataset, given.root, None, {}), given.out)


if __name__ == "__main__":
    sys.exit(main())
