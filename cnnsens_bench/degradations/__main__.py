"""`python -m cnnsens_bench.degradations`: a contact sheet, one row a degradation, one column a level.

A tile shows what a network sees of the image in trial 0 of a run: the box, resized straight to the square input.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cnnsens_bench.utils.errors import ImageError, UserError

PNG_STEPS = (1, 3, 5, 15)
"""`cnnsens_bench.images.PNG_STEPS`, which a help text need not import."""
EXAMPLES = """examples:
  python -m cnnsens_bench.degradations --image photo.jpg --box 120 80 300 260 --out sheet.png
  python -m cnnsens_bench.degradations --dataset plumage --degradations 'hue_*' 'gaussian_intensity(4) + pepper' \\
      --out sheet.pdf
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m cnnsens_bench.degradations",
        description=__doc__.partition(": ")[2] if __doc__ else None,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--image", help="a photograph: a path or an fsspec URI")
    what.add_argument("--dataset", metavar="NAME", help="show an image of this data set, with its box and its draws")
    made.add_argument("--root", type=Path, metavar="FOLDER", help="the data set's folder; plumage needs none")
    made.add_argument("--image-id", metavar="ID", help="which image of the data set; its first test image unless given")
    made.add_argument(
        "--box",
        type=float,
        nargs=4,
        metavar=("X", "Y", "W", "H"),
        help="the object in --image, in pixels; moved, turned and bent boxes show what lies around it. Without one the "
        "box is the whole image, as in a run, and its edge pixels repeat outside it",
    )
    made.add_argument("--out", type=Path, required=True, help="a .png, .pdf or .svg file")
    made.add_argument(
        "--degradations",
        nargs="+",
        metavar="NAME",
        help="what a config can name, one row each, in this order: 'pepper', 'common:*', 'gaussian_intensity(4) + "
        "pepper'. All registered ones unless given",
    )
    made.add_argument("--levels", type=float, nargs="+", help="in place of each degradation's own")
    made.add_argument("--size", type=int, default=224, help="side of the network's input in pixels (default: 224)")
    made.add_argument(
        "--tile",
        type=int,
        default=112,
        help="side of a tile in pixels (default: 112); an input is reduced to it, which softens noise: with "
        "--tile 224 every pixel shows",
    )
    made.add_argument(
        "--step",
        type=int,
        choices=PNG_STEPS,
        default=1,
        help="round a PNG's values to multiples of that many gray levels; 5 halves the size of the file",
    )
    made.add_argument("--seed", type=int, default=0)
    made.add_argument(
        "--frost",
        choices=("generated", "photographs"),
        default="generated",
        help="the ice of common:frost, as a run's key frost",
    )
    made.add_argument("--plugins", nargs="+", default=[], metavar="MODULE", help="your modules with degradations")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 2 the request is wrong."""
    given = parser().parse_args(arguments)
    # The import stands here because a help text or a wrong argument need not wait for torch.
    from cnnsens_bench.experiment.degradation_sheet import SheetRequest, draw_sheet

    try:
        draw_sheet(SheetRequest(**vars(given)))
    except (UserError, ImageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
