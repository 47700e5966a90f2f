"""For a practitioner: `python -m cnnsens_bench.predict photo.jpg checkpoint=mine.pt` says what a network sees in
photographs, and how easily noise, black pixels and shifts would change that.

Exit codes as of `run`: 0 done, 1 some photographs were not computed (said why), 2 the request is wrong, 130 stopped.
"""

import hashlib
import json
import math
import os
import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from cnnsens_bench import __version__
from cnnsens_bench.experiment.command import DONE, ended
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.progress import meter
from cnnsens_bench.utils.registry import near

if TYPE_CHECKING:
    from cnnsens_bench.engine.photo_prediction import PhotoPrediction, RejectedPhoto
    from cnnsens_bench.models.ready import Ready

HELP = """usage: python -m cnnsens_bench.predict PHOTO... [key=value ...] [--heatmap FOLDER] [--json]

What a network sees in photographs, and how easily a degradation would change that: for each photograph the class, its
confidence, the standard deviation ± that its probability is predicted to have under the degradation (>50 %: more than
can be told to first order), and p_Δ, the predicted probability that the label changes. Nothing is degraded for it: the
gradient of the network tells.

  checkpoint=FILE    the network: a checkpoint of this program (a run prints where its own are), or a state dict
                     (.pt, .pth, .safetensors) of model=
  model=NAME         timm/<name> or torchvision/<name>; without checkpoint= with its published weights
  sigma=4            σ of Gaussian noise on every channel value, in gray levels of 0 to 255; several: sigma=1,4,16
  p=0.01             share of pixels that turn black
  shift=0.5          σ of a shift in x and in y, in pixels of the network's input
                     (where none of the three is given: these)
  predictor=TEXT     gradient (to first order; the default), or one that looks further and takes more passes, for σ and
                     p: noisy_gradients(copies=2), sampling(copies=15), for σ clamped_gradient
  box=X,Y,W,H        the object, in pixels of the upright photographs; the whole photographs unless given
  classes=FILE       names of the classes, one a line
  input_size=PIXELS  in place of the checkpoint's or the architecture's
  batch_size=4       photographs that are computed together; larger ones pay on a GPU
  plugins=MODULE     your own model sources or predictors

  --heatmap FOLDER   a PNG for each photograph: where in it the sensitivity to noise sits
  --json             a JSON list with an entry for each photograph, and nothing else, on standard output; ± of the
                     logit and mean changes too, entropy in nats
  --                 all that follows are photographs

A word with = is a photograph too where there is such a file.

exit codes: 0 done, 1 some photographs were not computed (said why), 2 the request is wrong, 130 stopped
"""

LEVELS = {"sigma": "gaussian_rgb", "p": "pepper_pixel", "shift": "translation"}
DEFAULT_LEVELS = {"sigma": (4.0,), "p": (0.01,), "shift": (0.5,)}
KEYS = ("model", "checkpoint", *LEVELS, "predictor", "box", "classes", "input_size", "batch_size", "plugins")
OPTIONS = ("--heatmap", "--json", "--help", "--version")
LARGEST_BATCH, LARGEST_LEVEL = 4096, 1000.0
WIDTH = 80
"""Columns where there is no terminal."""


@dataclass
class Request:
    """What the words of a command line ask for. `levels`: those given, by key of `LEVELS`."""

    photographs: list[str] = field(default_factory=list)
    model: str | None = None
    checkpoint: Path | None = None
    levels: dict[str, tuple[float, ...]] = field(default_factory=dict)
    predictor: str = "gradient"
    box: tuple[float, float, float, float] | None = None
    classes: tuple[str, ...] | None = None
    input_size: int | None = None
    batch_size: int = 4
    plugins: tuple[str, ...] = ()
    heatmap: Path | None = None
    json: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    options = set(words[: words.index("--")] if "--" in words else words)
    if {"-h", "--help"} & options:
        sys.stdout.write(HELP)
        return DONE
    if "--version" in options:
        sys.stdout.write(f"{__version__}\n")
        return DONE
    aside = Console(stderr=True, highlight=False)
    return ended(lambda: _predict(parse(words), console, aside), aside, "stopped: nothing is kept")


def parse(words: Sequence[str]) -> Request:
    """The request, its values checked as far as that needs no network. Raises `UserError`."""
    request = Request()
    given = {}
    waiting = iter(words)
    for word in waiting:
        name, equals, value = word.partition("=")
        if word == "--":
            request.photographs += waiting
        elif word == "--json":
            request.json = True
        elif name == "--heatmap":
            value = value if equals else next(waiting, "")
            if not value:
                raise UserError("--heatmap needs the folder that the pictures go to: --heatmap FOLDER")
            request.heatmap = Path(value).expanduser()
        elif word.startswith("-"):
            raise UserError(
                f"unknown option '{word}'{near(word, list(OPTIONS))} (a photograph of that name goes after --)"
            )
        elif not equals or not name.isidentifier() or os.path.lexists(word):
            request.photographs.append(word)
        elif name not in KEYS:
            raise UserError(f"there is no photograph '{word}', and no key '{name}'{near(name, list(KEYS))}")
        elif name in given:
            raise UserError(f"{name}= is given twice: give it once ({'sigma=1,4,16' if name in LEVELS else word})")
        else:
            given[name] = value
    for name, value in given.items():
        _set(request, name, value)
    if not request.photographs:
        raise UserError(
            "no photograph is named: python -m cnnsens_bench.predict photo.jpg checkpoint=<file> (or --help)"
        )
    return request


def _set(request: Request, name: str, text: str) -> None:
    if not text:
        raise UserError(f"{name}= has no value (--help says what it takes)")
    if name in LEVELS:
        request.levels[name] = _numbers(name, text, "4 or 1,4,16")
        if max(map(abs, request.levels[name])) > LARGEST_LEVEL:
            raise UserError(f"{name}={text} is beyond what a picture can show: levels go to {LARGEST_LEVEL:g} at most")
    elif name == "box":
        box = _numbers(name, text, "120,80,300,260 (x, y, width, height in pixels)")
        if len(box) != 4 or not all(map(math.isfinite, box)) or min(box[2:]) <= 0:
            raise UserError(f"box={text}: write x,y,width,height in pixels, such as box=120,80,300,260")
        request.box = (box[0], box[1], box[2], box[3])
    elif name == "classes":
        request.classes = _class_names(Path(text).expanduser())
    elif name == "checkpoint":
        request.checkpoint = Path(text).expanduser()
    elif name == "plugins":
        request.plugins = tuple(text.strip("[]").split(","))
    elif name in ("input_size", "batch_size"):
        low, high = (16, 4096) if name == "input_size" else (1, LARGEST_BATCH)
        if not (re.fullmatch(r"[0-9]{1,9}", text) and low <= int(text) <= high):
            raise UserError(f"{name}={text}: it must be a whole number between {low} and {high}")
        setattr(request, name, int(text))
    else:
        setattr(request, name, text)


def _numbers(name: str, text: str, form: str) -> tuple[float, ...]:
    found = []
    for part in text.strip("[]").split(","):
        try:
            found.append(float(part))
        except ValueError:
            raise UserError(f"{name}={text}: '{part}' is not a number: write {name}={form}") from None
    return tuple(found)


def _class_names(path: Path) -> tuple[str, ...]:
    try:
        names = [line.strip() for line in path.read_text("utf-8-sig").rstrip().split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise UserError(f"classes={path} cannot be read ({reason}): give a text file with one name a line") from None
    if not all(names):
        raise UserError(f"classes={path}: line {names.index('') + 1} is empty: write one name a line")
    return tuple(names)


def _predict(request: Request, console: Console, aside: Console) -> int:
    """Compute and print; gives the number of photographs that were not computed. Raises `UserError`."""
    # What a plugin or a download prints on the way is no part of the result.
    with redirect_stdout(sys.stderr):
        model, records = _computed(request, aside)
    failed = [record["error"] for record in records if "error" in record]
    if request.json:
        lines = ",\n ".join(json.dumps(record, allow_nan=False) for record in records)
        sys.stdout.write(f"[{lines}]\n")
    else:
        from cnnsens_bench.figures.outlooks import print_outlooks

        done = [record for record in records if "error" not in record]
        used = dict.fromkeys(p["predictor"] for record in done for p in record["predictions"])
        print_outlooks(console, done, f"{model}, by {' and '.join(used)}")
    sys.stdout.flush()
    from cnnsens_bench.utils.formatting import plain

    for sentence in failed:
        aside.print(f"error: {plain(sentence)}", markup=False, soft_wrap=True)
    return len(failed)


def _computed(request: Request, aside: Console) -> tuple[str, list[dict[str, Any]]]:
    """The model's name, and what `--json` prints of each photograph."""
    # Only now: a help text or a wrong word need not wait for torch.
    from cnnsens_bench.degradations import parse_degradation
    from cnnsens_bench.degradations.levels import levels_of
    from cnnsens_bench.engine.photo_prediction import LabelChangePredictor
    from cnnsens_bench.engine.plan import Condition
    from cnnsens_bench.models.base import best_device
    from cnnsens_bench.models.ready import ready
    from cnnsens_bench.utils.plugins import load_plugins

    load_plugins(request.plugins)
    levels = request.levels or DEFAULT_LEVELS
    conditions = [
        Condition(noise, levels_of(parse_degradation(noise), levels[key]), 1)
        for key, noise in LEVELS.items()
        if key in levels
    ]
    if request.heatmap:
        _make_folder(request.heatmap)
    network = ready(request.model, request.checkpoint, request.input_size, request.classes)
    foreteller = LabelChangePredictor(
        network,
        conditions,
        request.predictor,
        box=request.box,
        batch_size=request.batch_size,
        maps=request.heatmap is not None,
        device=best_device(),
    )
    count = len(request.photographs)
    progress = meter(aside, "predict", count, "photographs") if count > request.batch_size else nullcontext()
    records = []
    with progress as shown:
        for result in foreteller(request.photographs):
            records.append(_record(result, network, request.heatmap))
            if shown:
                shown.advance()
    return network.model, records


def _record(result: "PhotoPrediction | RejectedPhoto", network: "Ready", folder: Path | None) -> dict[str, Any]:
    """What `--json` prints of a photograph; draws its heatmap into `folder`."""
    from cnnsens_bench.engine.photo_prediction import RejectedPhoto

    if isinstance(result, RejectedPhoto):
        return {"file": result.path, "error": result.sentence}
    drawn = {"heatmap": str(_draw(result, network.classes, folder))} if folder else {}
    return {
        "file": result.path,
        "class": network.classes[result.label],
        "class_index": result.label,
        "confidence": result.confidence,
        "runner_up": network.classes[result.runner_up],
        "margin": result.margin,
        "entropy": result.entropy,
        **drawn,
        "predictions": [vars(effect) for effect in result.effects],
    }


def _draw(photograph: "PhotoPrediction", classes: Sequence[str], folder: Path) -> Path:
    from cnnsens_bench.figures.heatmap import heatmap

    assert photograph.sensitivity_map is not None
    out = folder / heatmap_name(photograph.path)
    label, runner_up = (_short(classes[i]) for i in (photograph.label, photograph.runner_up))
    title = f"{label}, {100 * photograph.confidence:.1f} %: margin {photograph.margin:.1f} over {runner_up}"
    try:
        heatmap(photograph.sensitivity_map.pixels, photograph.sensitivity_map.variance, title, out)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}): give --heatmap another folder") from None
    return out


def heatmap_name(path: str) -> str:
    """A file name for the picture of the photograph at `path`: readable, and another one for every other path."""
    stem = "".join(c if c.isalnum() or c in "_-" else "_" for c in Path(path).stem)[:40]
    return f"{stem}-{hashlib.blake2b(os.fsencode(path), digest_size=4).hexdigest()}.png"


def _short(name: str, longest: int = 40) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be made ({error.strerror}): give --heatmap another one") from None


if __name__ == "__main__":
    sys.exit(main())
