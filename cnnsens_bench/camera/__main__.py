"""`python -m cnnsens_bench.camera photos/`: measure what a camera does to its photographs, as levels of degradations.

It measures noise, blur, exposure, white balance, JPEG quality and defective pixels of photographs that were taken with
one camera, each with a 95 % interval, and says what cannot be told.
"""

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

EXAMPLES = """examples:
  python -m cnnsens_bench.camera photos/
  python -m cnnsens_bench.camera photos/ --resize 224 --json camera.json
  python -m cnnsens_bench.run degradations=camera:camera.json
"""
WIDTH = 100
"""Columns where there is no terminal."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m cnnsens_bench.camera",
        description=__doc__.partition(": ")[2] if __doc__ else None,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("photographs", nargs="*", metavar="PHOTOS", help="photographs, and folders of them; or URIs")
    made.add_argument(
        "--repeated",
        metavar="FOLDER",
        help="shots of one scene from a tripod, whose differences are noise alone; without it such shots are looked "
        "for among the photographs",
    )
    made.add_argument(
        "--resize",
        type=int,
        metavar="PX",
        help="side of the network's input, which photographs are resized to before they are measured",
    )
    made.add_argument("--json", metavar="FILE", help="the file that runs and figures take; - prints it alone")
    made.add_argument("--name", help="what to call the camera (default: the name of the folder)")
    made.add_argument("--only", metavar="MODEL", help="measure only photographs whose EXIF names this camera")
    made.add_argument("--limit", type=int, default=200, help="how many photographs to measure at most (default: 200)")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 some photographs were not read, 2 the request is wrong."""
    given = parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    error_console = Console(stderr=True, highlight=False)
    if not given.photographs and not given.repeated:
        error_console.print("error: no photographs are named: python -m cnnsens_bench.camera photos/", markup=False)
        return 2
    # The imports stand here because a help text or a wrong argument need not wait for torch.
    from cnnsens_bench.experiment.camera import CameraRequest, measure_camera
    from cnnsens_bench.experiment.command import exit_code

    request = CameraRequest(**vars(given))
    return exit_code(lambda: measure_camera(request, console, error_console), error_console, "stopped: nothing is kept")


if __name__ == "__main__":
    sys.exit(main())
