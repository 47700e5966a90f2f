"""What the command `predict` does: photographs through one network, printed as a table or as JSON, with heatmaps."""

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import plain
from cnnsens_bench.utils.progress import say, stage_progress

if TYPE_CHECKING:
    from cnnsens_bench.engine.photo_prediction import PhotoPrediction, RejectedPhoto

DEGRADATIONS = {"sigma": "gaussian_rgb", "p": "pepper_pixel", "shift": "translation"}
"""Key of the command line → the degradation whose levels it names."""
DEFAULT_LEVELS = {"sigma": (4.0,), "p": (0.01,), "shift": (0.5,)}
LONGEST_NAME = 40
"""Characters of a class's name that a heatmap's title has room for."""


@dataclass(frozen=True)
class PhotoRequest:
    """What is asked about photographs.

    `levels` has those given, by key of `DEGRADATIONS`; none takes `DEFAULT_LEVELS`. `box` (x, y, width, height) is the
    object in pixels of the upright photographs, None for the whole ones. `view` is `box`, `published`, or None for the
    network's own. `heatmap` is the folder of the heatmaps.
    """

    photographs: list[str]
    model: str | None = None
    checkpoint: Path | None = None
    levels: dict[str, tuple[float, ...]] = field(default_factory=dict)
    predictor: str = "smoothed_sampling"
    box: tuple[float, float, float, float] | None = None
    classes: tuple[str, ...] | None = None
    input_size: int | str | None = None
    view: str | None = None
    batch_size: int = 4
    plugins: tuple[str, ...] = ()
    heatmap: Path | None = None
    json: bool = False


def predict_photographs(request: PhotoRequest, console: Console, error_console: Console) -> int:
    """Compute what is asked for and print it, with progress and errors on `error_console`.

    Returns
    -------
    int
        The number of photographs that were not computed.

    Raises
    ------
    UserError
        For a request that cannot be met by any photograph.
    """
    # What a plugin or a download prints on the way is no part of the result.
    with redirect_stdout(sys.stderr):
        model, records = _computed(request, error_console)
    failed = [f"error: {plain(record['error'])}" for record in records if "error" in record]
    if request.json:
        lines = ",\n ".join(json.dumps(record, allow_nan=False) for record in records)
        sys.stdout.write(f"[{lines}]\n")
    else:
        from cnnsens_bench.figures.photo_table import print_photo_table

        done = [record for record in records if "error" not in record]
        predictors = dict.fromkeys(p["predictor"] for record in done for p in record["predictions"])
        print_photo_table(console, done, f"{model}, by {' and '.join(predictors)}")
    sys.stdout.flush()
    say(error_console, *failed)
    return len(failed)


def heatmap_name(path: str) -> str:
    """Return a readable file name for the heatmap of the photograph at `path`, another one for every other path.

    Examples
    --------
    >>> heatmap_name("birds/wren 1.jpg")
    'wren_1-0b2493b4.png'
    """
    stem = "".join(c if c.isalnum() or c in "_-" else "_" for c in Path(path).stem)[:40]
    return f"{stem}-{hashlib.blake2b(os.fsencode(path), digest_size=4).hexdigest()}.png"


def _computed(request: PhotoRequest, error_console: Console) -> tuple[str, list[dict[str, Any]]]:
    """Return the model's name, and what `--json` prints of each photograph."""
    # The imports stand here because a help text or a wrong argument need not wait for torch.
    from cnnsens_bench.degradations import parse_degradation
    from cnnsens_bench.engine.photo_prediction import LabelChangePredictor
    from cnnsens_bench.engine.sweep import Condition
    from cnnsens_bench.models.classifier import best_device
    from cnnsens_bench.models.loading import load_network
    from cnnsens_bench.utils.plugins import load_plugins

    load_plugins(request.plugins)
    levels = request.levels or DEFAULT_LEVELS
    named = [(name, levels[key]) for key, name in DEGRADATIONS.items() if key in levels]
    conditions = [Condition(name, parse_degradation(name).resolve_levels(given), 1) for name, given in named]
    try:
        if request.heatmap:
            request.heatmap.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sentence = f"the folder {request.heatmap} cannot be made ({error.strerror}): give --heatmap another one"
        raise UserError(sentence) from None
    network = load_network(request.model, request.checkpoint, request.input_size, request.classes, _view(request))
    say(error_console, *(f"note: {plain(note)}" for note in network.notes))
    predictor = LabelChangePredictor(
        network,
        conditions,
        request.predictor,
        box=request.box,
        batch_size=request.batch_size,
        maps=request.heatmap is not None,
        device=best_device(),
    )
    records, count = [], len(request.photographs)
    stage = stage_progress(error_console, "predict", count, "photographs")
    with stage if count > request.batch_size else nullcontext() as progress:
        for result in predictor(request.photographs):
            records.append(_record(result, network.classes, request.heatmap))
            if progress:
                progress.advance()
    return network.model, records


def _view(request: PhotoRequest) -> str | None:
    """Return what the network sees; None for the network's own view. A published view has no box."""
    from cnnsens_bench.models.preprocessing import BOX, PUBLISHED

    if request.box is None:
        return request.view
    if request.view == PUBLISHED:
        raise UserError("box= needs view=box: a published view is of the whole photograph")
    return BOX


def _record(result: "PhotoPrediction | RejectedPhoto", classes: Sequence[str], folder: Path | None) -> dict[str, Any]:
    """Return what `--json` prints of a photograph, and draw its heatmap into `folder`."""
    from cnnsens_bench.engine.photo_prediction import RejectedPhoto

    if isinstance(result, RejectedPhoto):
        return {"file": result.path, "error": result.sentence}
    drawn = {"heatmap": str(_draw(result, classes, folder))} if folder else {}
    return {
        "file": result.path,
        "class": classes[result.label],
        "class_index": result.label,
        "confidence": result.confidence,
        "runner_up": classes[result.runner_up],
        "margin": result.margin,
        "entropy": result.entropy,
        **drawn,
        "predictions": [vars(effect) for effect in result.effects],
    }


def _draw(photograph: "PhotoPrediction", classes: Sequence[str], folder: Path) -> Path:
    from cnnsens_bench.figures.heatmap import heatmap

    assert photograph.sensitivity_map is not None
    out = folder / heatmap_name(photograph.path)
    names = (classes[i] for i in (photograph.label, photograph.runner_up))
    label, runner_up = (name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…" for name in names)
    title = f"{label}, {100 * photograph.confidence:.1f} %: margin {photograph.margin:.1f} over {runner_up}"
    try:
        heatmap(photograph.sensitivity_map.pixels, photograph.sensitivity_map.variance, title, out)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}): give --heatmap another folder") from None
    return out
