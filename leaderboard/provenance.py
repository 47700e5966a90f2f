"""Says how the numbers were made: the protocol of a board in sentences, and the command of a run."""

import dataclasses
import functools
import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from cnnsens_bench.measures.published import PublishedRates
from cnnsens_bench.store.submission.redact import public
from cnnsens_bench.utils.config_keys import FOLDER_KEYS, MACHINE_KEYS, SELECTION_KEYS
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import degradation_text

ROOTS = (*FOLDER_KEYS, "dataset.root")
AVERAGING = (
    "Means are over the levels of a degradation, then over degradations. p_Δ is the share of (image, trial) whose "
    "label differs from the same model's and defense's on the undegraded image. Top-5 and NLL (in nats) average over "
    "an image's trials, then over images; mean per-class accuracy and ECE (15 bins) pool trials; each of them is taken "
    "per condition, then averaged as above. mCE, relative mCE and mean flip rate (Hendrycks & Dietterich 2019): for "
    "each degradation errors, errors beyond the undegraded ones, and p_Δ, summed over the levels that entrant and "
    "reference both have, ÷ the reference's; then the mean over degradations, less those where the reference has none."
)
INTERVALS = (
    "95 %. A share under one condition: Wilson's interval at the effective sample size of trials nested in images. "
    "A mean over conditions, NLL, per-class accuracy, mCE, flip rate: percentiles of 1000 bootstrap samples of images, "
    "the same for all entrants. Images per second: Student's, of seconds per image over chunks of images. "
    "Rank 2–4: one entrant is surely better, and those of the places 2 to 4 are tied with it. Two are compared by "
    "their difference over the same images and cells, with Agresti & Min's interval for pairs; by speed and worst "
    "condition, by whether intervals overlap. No interval, no rank."
)


Trials = tuple[str, str, int, int]
"""Degradation and level (as text) of a condition, and the smallest and largest number of trials among the entrants."""


def trials_text(trials: Sequence[Trials]) -> str:
    """Say how many trials each condition has, beginning with the most frequent number.

    Parameters
    ----------
    trials
        The degraded conditions of a board.

    Returns
    -------
    str
        Phrases that are joined by semicolons.

    Examples
    --------
    >>> trials_text([("pepper", "p=0.1", 3, 3), ("pepper", "p=0.2", 3, 3), ("flip_lr", "", 1, 1)])
    '3 for each image and level; 1 for flip_lr'
    """
    if not trials:
        return "1 for each image and level"
    spans = [(least, most) for _, _, least, most in trials]
    usual = max(set(spans), key=lambda span: (spans.count(span), span[0] == span[1], span))
    groups: dict[tuple[int, int], dict[str, list[str]]] = {}
    for name, level, least, most in trials:
        groups.setdefault((least, most), {}).setdefault(name, []).append(level)
    phrases = [f"{_span(*usual)} for each image and level"]
    for span, levels in sorted(groups.items()):
        if span == usual:
            continue
        every = {name: [level for other, level, *_ in trials if other == name] for name in levels}
        some_levels = {name: "" if own == every[name] else f" {', '.join(own)}" for name, own in levels.items()}
        which = [degradation_text(name) + text for name, text in some_levels.items()]
        listed = ("; " if any("," in one for one in which) else ", ").join(which)
        some = usual == (span[0], span[0]) != span
        phrases.append(f"{span[1] if some else _span(*span)} for {listed}{' of some entrants' if some else ''}")
    return "; ".join(phrases)


def _span(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} to {most} (entrants differ)"


MATCHED_BY = {"wnid": "by WordNet id", "name": "by name", "number": "by number", "order": "by their order"}


class Matching(NamedTuple):
    """How the outputs of a network and the classes of a data set belong together.

    `classes` is the number of classes, `outputs` that of the network's outputs, and `by` what they are matched by: a
    key of `MATCHED_BY`, or None where the network was trained on the classes.
    """

    classes: int
    outputs: int
    by: str | None

    def sentence(self) -> str:
        """Say how many outputs are kept, and what they are matched by.

        Examples
        --------
        >>> Matching(200, 1000, "wnid").sentence()
        '200 of 1000 are kept, matched by WordNet id; the others are left out before the argmax'
        """
        if self.by is None:
            return f"trained on the {self.classes} classes"
        how = f"matched {MATCHED_BY[self.by]}"
        if self.outputs == self.classes:
            return f"all {self.outputs} are classes of the data set, {how}"
        return f"{self.classes} of {self.outputs} are kept, {how}; the others are left out before the argmax"


def reference_text(
    published: PublishedRates | None, present: bool, asked: str, matchings: Iterable[Matching] = ()
) -> str:
    """Say what mCE of a board is relative to.

    Parameters
    ----------
    published
        The published error rates that are taken, if they are.
    present
        Whether the board has the model that was asked for.
    asked
        The reference that was asked for.
    matchings
        As in `protocol_terms`.

    Examples
    --------
    >>> reference_text(None, True, "torchvision/alexnet")
    'torchvision/alexnet, without a defense'
    """
    if published:
        fewer = sorted({one.classes for one in matchings} - {published.classes})
        return (
            f"{published.network}'s published error rates on {published.data} ({published.source}), means over five "
            "severities; only corruptions with all five count, and relative mCE and mean flip rate have no published "
            "reference"
        ) + (f"; the rates are of {published.classes} classes, and this board has {fewer[0]}" if fewer else "")
    return f"{asked}, without a defense" if present else f"none on this board ({asked} was asked for)"


FROST = "common:frost"
STORED = "stored:"
STORED_TEXT = (
    "conditions named (stored) show the pictures of a pre-made set, each paired with its undegraded image: as they are "
    "where they have the network's input size, else resized as the undegraded image is; they are not stored again"
)


def protocol_terms(
    dataset: str,
    configs: Sequence[dict[str, Any]],
    trials: Sequence[Trials],
    n_images: int,
    matchings: Iterable[Matching] = (),
) -> list[list[str]]:
    """Describe the protocol of a board.

    Parameters
    ----------
    dataset
        The name of the data set.
    configs
        The configs of the board's runs. Where they differ, all values are named.
    trials
        The degraded conditions of the board.
    n_images
        The number of images of the board.
    matchings
        How the outputs of its networks and the classes were matched, each way once.

    Returns
    -------
    list of [term, sentence]
        What the page shows below "The protocol, exactly".
    """

    def get(key: str, default: str | None = None) -> str | None:
        values = dict.fromkeys(str(config[key]) if config.get(key) is not None else "" for config in configs)
        if not any(values):
            return default
        return " or ".join(value or "none" for value in values)

    batches = f", in batches of {get('batch_size')}" if get("batch_size") else ""
    limits = dict.fromkeys(config.get("limit") for config in configs)
    limit = ", chosen by the hash of their id" if any(limits) else ""
    if len(limits) > 1:
        limit += f" (limit {get('limit')}, by run)"
    stored = get("stored_quality")
    order = "clamp to [0, 255], store as JPEG, defend" if stored else "clamp to [0, 255], defend"
    frosts = {config.get("frost") or "generated" for config in configs}
    ice = [FROST_TEXTS[frost] for frost in sorted(frosts) if any(FROST in name for name, *_ in trials)]
    outputs = [matching.sentence() for matching in matchings]
    return [
        ["Images", f"{n_images} test images of {dataset}{limit}"],
        *_view_terms(configs),
        ["Order", f"crop, resize, degrade, {order}, normalise, network"],
        ["Rounding", _rounding(stored, any(config.get("quantize") for config in configs))],
        *([["Frost", " or ".join(ice)]] if ice else []),
        *([["Pre-made", STORED_TEXT]] if any(STORED in name for name, *_ in trials) else []),
        *([["Outputs", "of a network: " + "; or ".join(outputs)]] if outputs else []),
        [
            "Precision",
            str(get("precision", "unknown")) + (", compiled" if any(c.get("compile") for c in configs) else ""),
        ],
        ["Trials", f"{trials_text(trials)}; draws depend only on seed, data set, image, degradation and trial"],
        ["Seed", str(get("seed", "unknown"))],
        ["Averaging", AVERAGING],
        ["Speed", f"images per second through the defense's filter and the network alone{batches}, as the sweep ran"],
        ["Intervals", INTERVALS],
    ]


FROST_TEXTS = {
    "generated": "generated ice; that of ImageNet-C is photographed",
    "photographs": "photographs of ice, those of ImageNet-C, at random positions",
}
SIZES = {
    "train": "the size that the network's library trained it with",
    "test": "the size that the network's library tests it with",
}


def _view_terms(configs: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return the terms that say what networks see of an image."""
    published = {config.get("view") == "published" for config in configs} == {True}
    sizes = dict.fromkeys(config.get("input_size") for config in configs)
    own = SIZES["test"] if published else "the network's input size"
    size = " or ".join((SIZES.get(one) or f"{one}×{one} pixels") if one else own for one in sizes)
    if published:
        return [
            ["Crop", "as each network's own library evaluates it: the whole image, resized, then cropped"],
            ["Resize", f"by that library's rule and filter, to {size}; each entrant's details have the rule"],
        ]
    return [
        ["Crop", "the ground-truth box clipped to the image; the whole image where there is none"],
        ["Resize", f"straight to {size}, aspect not kept, bicubic, antialiased"],
    ]


def _rounding(stored_quality: str | None, quantized: bool) -> str:
    if stored_quality:
        return (
            f"each degraded image to 8 bits, stored as JPEG of quality {stored_quality} (as Pillow writes it, colour "
            "at half the resolution) and read again, as in ImageNet-C; undegraded images are not"
        )
    return "to 8 bits after degrading" if quantized else "none: degraded images stay float32"


def command(suite: str, config: dict[str, Any]) -> str | None:
    """Return the command line that repeats a run, without the keys that change no number.

    Of folders it has the last part only, because a page must not tell where its author keeps files.

    Parameters
    ----------
    suite
        The name of the suite.
    config
        The config of the run, or of one of its studies.

    Returns
    -------
    str or None
        The command; None for a suite that this version does not have.
    """
    study = config.get("study")
    defaults = _defaults(suite, study)
    if defaults is None:
        return None
    arguments = [f"suite={suite}", *([f"only=[{study}]"] if study else [])]
    for key, value in _differing(config, defaults):
        name = key.partition(".")[0]
        if key in ROOTS and value:
            arguments.append(f"{key}=<folder>/{PurePath(str(value)).name}")
        elif study and name == "dataset":
            arguments.append(f"studies.{study}.{key.removesuffix('.name')}={_override_value(value)}")
        elif study and name in _own(suite, study) and name != "models":
            arguments.append(f"studies.{study}.{key}={_override_value(value)}")
        else:
            arguments.append(f"{key}={_override_value(public(value))}")
    return shlex.join(["python", "-m", "cnnsens_bench.run", *arguments])


@functools.cache
def _defaults(suite: str, study: str | None) -> dict[str, Any] | None:
    """Return the whole config of a suite or study without overrides; None if this version does not have it."""
    from cnnsens_bench.config.compose import compose  # imported here, because it is slow
    from cnnsens_bench.experiment.resolve import resolve_studies

    try:
        only = [f"only=[{_override_value(study)}]"] if study else []
        [config] = resolve_studies(compose([f"suite={_override_value(suite)}", *only]))
    except (UserError, ValueError):
        return None
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


@functools.cache
def _own(suite: str, study: str) -> frozenset[str]:
    """Return the keys that a study sets itself: a value that is given for the whole suite does not reach them."""
    from cnnsens_bench.config.compose import compose

    return frozenset(compose([f"suite={_override_value(suite)}"]).studies[study])


def _differing(config: dict[str, Any], defaults: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the keys, with dots between the levels, and values of a config that are not the defaults."""
    found: list[tuple[str, Any]] = []
    for key, value in config.items():
        without_effect = not prefix and key in ("suite", *MACHINE_KEYS, *SELECTION_KEYS)
        if without_effect or key not in defaults or value == defaults[key]:
            continue
        if isinstance(value, dict) and isinstance(defaults[key], dict) and defaults[key]:
            found += _differing(value, defaults[key], f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found


def _override_value(value: Any) -> str:
    """Return a value as it is written in an override on the command line, in Hydra's grammar."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_override_value, value))}]"
    if isinstance(value, dict):
        pairs = (f"{_override_value(str(key))}:{_override_value(inner)}" for key, inner in value.items())
        return f"{{{','.join(pairs)}}}"
    text = str(value)
    if isinstance(value, str) and not text.replace("_", "").replace("/", "").replace(".", "").isalnum():
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return text
