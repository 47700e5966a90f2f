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
    fig5 = figures.add_parser("fig5", help="the most and the least sensitive images")
    fig6 = figures.add_parser("fig6", help="predicted against measured sensitivity")
    fig6.add_argument("--predictor", default="paper", help="as in the view predictor_check")
    for figure in (fig5, fig6):
        figure.add_argument("--output", choices=("logit", "probability"), default="logit")
    predictors = figures.add_parser("predictors", help="how well each predictor agrees with trials, over its cost")
    changes = figures.add_parser("label-change", help="predicted label change: reliability, and AUROC beside baselines")
    of_scores = (fig5, fig6, predictors, changes)
    for figure in of_scores:
        figure.add_argument("--model", help="as in the database; needed where several are scored")
        figure.add_argument("--defense", default="none")
        figure.add_argument("--dataset", help="needed where several are scored")
        figure.add_argument("--protocol", help="needed where several are scored, as in the column of every view")
    for figure in (curves, defenses, *of_scores):
        figure.add_argument("--db", type=Path, required=True, help="a results.duckdb")
    sheet = figures.add_parser("contact-sheet", help="training images of each class of a data set")
    sheet.add_argument("--dataset", default="plumage")
    sheet.add_argument("--root", type=Path)
    for figure in (curves, defenses, *of_scores, sheet):
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
    if given.figure == "contact-sheet":
        from cnnsens_bench.datasets import load
        from cnnsens_bench.figures.contact_sheet import contact_sheet

        contact_sheet(load(given.dataset, given.root, None, {}), given.out)
        return
    from cnnsens_bench.figures import curves, fragile, sensitivity
    from cnnsens_bench.store.source import results

    store = results(given.db)
    if given.figure == "curves":
        curves.curves(store, given.out, given.defense)
    elif given.figure == "defenses":
        curves.defense_curves(store, given.out, given.model)
    else:
        which = sensitivity.chosen(store, given.model, given.defense, given.dataset, given.protocol)
        if given.figure == "fig5":
            fragile.fig5(store, given.out, which, output=given.output)
        elif given.figure == "fig6":
            sensitivity.fig6(store, given.out, which, given.output, given.predictor)
        elif given.figure == "predictors":
            sensitivity.predictor_figure(store, given.out, which)
        else:
            sensitivity.label_change_figure(store, given.out, which)


if __name__ == "__main__":
    sys.exit(main())
