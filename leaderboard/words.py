"""What made the numbers, in words: the protocol of a board, and the command of a run."""

import dataclasses
import functools
import json
import shlex
from pathlib import PurePath
from typing import Any

from cnnsens_bench.errors import UserError
from cnnsens_bench.store.public import public

WITHOUT_EFFECT = ("suite", "output", "cache", "resume", "tracking", "cluster")
"""Keys that change no number: where and by whom it is computed."""
ROOTS = ("data_root", "dataset.root")
AVERAGING = (
    "Means are over the levels of a degradation, then over degradations. p_Δ is the share of (image, trial) whose "
    "label differs from the same model's and defense's on the undegraded image. Top-5 and NLL (in nats) average over "
    "an image's trials, then over images; mean per-class accuracy and ECE (15 bins) pool trials; each of them is taken "
    "per condition, then averaged as above."
)
INTERVALS = (
    "95 %. A share under one condition: Wilson's interval at the effective sample size of trials nested in images. "
    "A mean over conditions, NLL, per-class accuracy, mCE: percentiles of 1000 bootstrap samples of images, the same "
    "for all entrants. Rank 2–4: its interval overlaps those of the other places 2 to 4; no interval, no rank."
)


def protocol_words(dataset: str, config: dict[str, Any], trials: dict[str, int], n_images: int) -> list[list[str]]:
    """Terms and sentences. `config`: of one of the board's runs; `trials`: degradation → most trials of an image."""
    get = config.get
    size = f"{get('input_size')}×{get('input_size')} pixels" if get("input_size") else "the network's input size"
    once = [name for name, count in trials.items() if count == 1]
    often = sorted({count for count in trials.values() if count > 1})
    repeated = f"{' or '.join(map(str, often))} for each image and level" if often else "1 for each image and level"
    if often and once:
        repeated += f"; 1 for {', '.join(once)}"
    limit = f", {get('limit')} of them chosen by the hash of their id" if get("limit") else ""
    return [
        ["Images", f"{n_images} test images of {dataset}{limit}"],
        ["Crop", "the ground-truth box clipped to the image; the whole image where there is none"],
        ["Resize", f"straight to {size}, aspect not kept, bicubic, antialiased"],
        ["Order", "crop, resize, degrade, clamp to [0, 255], defend, normalise, network"],
        ["Rounding", "to 8 bits after degrading" if get("quantize") else "none: degraded images stay float32"],
        ["Precision", str(get("precision", "unknown"))],
        ["Trials", f"{repeated}; draws depend only on seed, data set, image, degradation and trial"],
        ["Seed", str(get("seed", "unknown"))],
        ["Averaging", AVERAGING],
        ["Intervals", INTERVALS],
    ]


def command(suite: str, config: dict[str, Any]) -> str | None:
    """The command line of a run, without what changes no number; None for a suite that this version does not have.

    Folders are named by their last part only: a page should not tell where its maker keeps files.
    """
    defaults = _defaults(suite)
    if defaults is None:
        return None
    words = [f"suite={suite}"]
    for key, value in _differing(config, defaults):
        if key in ROOTS and value:
            value = f"<folder>/{PurePath(str(value)).name}"
            words.append(f"{key}={value}")
        else:
            words.append(f"{key}={_written(public(value))}")
    return shlex.join(["python", "-m", "cnnsens_bench.run", *words])


@functools.cache
def _defaults(suite: str) -> dict[str, Any] | None:
    from cnnsens_bench.config import compose  # slow: only where it is asked for

    try:
        return json.loads(json.dumps(dataclasses.asdict(compose([f"suite={_written(suite)}"])), default=str))
    except UserError:
        return None


def _differing(config: dict[str, Any], defaults: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in config.items():
        if (not prefix and key in WITHOUT_EFFECT) or key not in defaults or value == defaults[key]:
            continue
        if isinstance(value, dict) and isinstance(defaults[key], dict) and defaults[key]:
            found += _differing(value, defaults[key], f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found


def _written(value: Any) -> str:
    """In the grammar of the command line's values."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{_written(str(key))}:{_written(inner)}" for key, inner in value.items()) + "}"
    text = str(value)
    if isinstance(value, str) and not text.replace("_", "").replace("/", "").replace(".", "").isalnum():
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return text
