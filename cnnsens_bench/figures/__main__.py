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
    curves.add_argument("--defense", default="none")
    defenses = figures.add_parser("defenses", help="accuracy over levels, a panel a degradation, a curve a defense")
    defenses.add_argument("--model", help="as in the database; needed where several have defenses")
    for figure in (curves, defenses):
        figure.add_argument("--db", type=Path, required=True, help="a results.duckdb")
    sheet = figures.add_parser("contact-sheet", help="training images of each class of a data set")
    sheet.add_argument("--dataset", default="plumage")
    sheet.add_argument("--root", type=Path)
    for figure in (curves, defenses, sheet):
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
    if given.figure in ("curves", "defenses"):
        from cnnsens_bench.figures.curves import curves, defense_curves
        from cnnsens_bench.store import Store

        if not given.db.is_file():
            raise UserError(f"there is no database {given.db}: a run prints the path of its own")
        store = Store(given.db.parent)
        store.path = given.db
        if given.figure == "curves":
            curves(store, given.out, given.defense)
        else:
            defense_curves(store, given.out, given.model)
    else:
        from cnnsens_bench.datasets import load
        from cnnsens_bench.figures.contact_sheet import contact_sheet

        contact_sheet(load(given.dataset, given.root, None, {}), given.out)


if __name__ == "__main__":
    sys.exit(main())
