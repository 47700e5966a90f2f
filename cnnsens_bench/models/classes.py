"""Matches the outputs of a network with the classes of a data set: by WordNet id, name or number, never by guess."""

import difflib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cnnsens_bench.utils.errors import UserError

WNID = re.compile(r"n\d{8}")
"""A WordNet id, by which ImageNet names its classes."""
FINE_TUNE = "fine-tune it on the data set (fine_tune=always, training.epochs above 0)"
"""The way out where outputs and classes do not match."""


@dataclass(frozen=True)
class OutputClasses:
    """What the outputs of a network mean.

    Attributes
    ----------
    count : int
        The number of outputs.
    wnids : tuple of str
        The WordNet id of each output; empty where there are none.
    names : tuple of str
        The name of each output; empty where there are none. Synonyms are separated by ", ".
    """

    count: int
    wnids: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


def named_outputs(names: Sequence[str]) -> OutputClasses:
    """Return what outputs of these names mean. Names that are WordNet ids, or ImageNet's 1000, give WordNet ids.

    Parameters
    ----------
    names
        The name of each output; synonyms are separated by ", ".

    Examples
    --------
    >>> named_outputs(["n01440764", "n01443537"]).wnids
    ('n01440764', 'n01443537')
    """
    from timm.data import ImageNetInfo  # imported here because timm takes a second

    names = tuple(names)
    if all(map(WNID.fullmatch, names)):
        return OutputClasses(len(names), wnids=names)
    if len(names) == 1000:
        info = ImageNetInfo("imagenet-1k")
        known = [info.index_to_description(position).partition(",")[0] for position in range(1000)]
        agreeing = sum(a.partition(",")[0] == b for a, b in zip(names, known, strict=True))
        # Published lists differ in a few synonyms; lists in another order agree nearly nowhere.
        if agreeing > 900:
            return OutputClasses(1000, tuple(info.label_names()), names)
    return OutputClasses(len(names), names=names)


@dataclass(frozen=True)
class ClassMatch:
    """Which of a network's outputs stand for the classes of a data set.

    Attributes
    ----------
    count : int
        The number of the network's outputs.
    outputs : tuple of int or None
        The output of each class, by label; None for all outputs in their order.
    by : str
        What they are matched by: `wnid`, `name`, `number`, or `order` where the outputs have no names.
    """

    count: int
    outputs: tuple[int, ...] | None
    by: Literal["wnid", "name", "number", "order"]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ClassMatch":
        """Return the match of which `dataclasses.asdict` gave the values."""
        outputs = values["outputs"]
        return cls(values["count"], None if outputs is None else tuple(outputs), values["by"])


def match_classes(model: str, head: OutputClasses, classes: Sequence[str]) -> ClassMatch:
    """Find the output of each class of a data set.

    WordNet ids are matched first, then names, then numbers, of which 7 is output 7. Ids and names must agree letter by
    letter; a class that is spelt otherwise, or is a synonym, is refused with the output that could be meant. Numbers,
    and outputs without names, are matched only where there are as many classes as outputs.

    Parameters
    ----------
    model
        The name of the model, for the error.
    head
        What its outputs mean.
    classes
        The names of the data set's classes, by label.

    Raises
    ------
    UserError
        If a class is none of the outputs, or could be several.

    Examples
    --------
    >>> head = OutputClasses(3, wnids=("n01440764", "n01443537", "n01484850"), names=("tench", "goldfish", "shark"))
    >>> match_classes("lab/net", head, ["n01443537", "n01440764"])
    ClassMatch(count=3, outputs=(1, 0), by='wnid')
    >>> match_classes("lab/net", head, ["0", "1", "2"])
    ClassMatch(count=3, outputs=None, by='number')
    """
    if head.wnids and (all(map(WNID.fullmatch, classes)) or not set(head.wnids).isdisjoint(classes)):
        return _match_by_text(model, head, classes, head.wnids, "wnid")
    if not set(head.names).isdisjoint(classes):
        return _match_by_text(model, head, classes, head.names, "name")
    if all(name.isascii() and name.isdigit() for name in classes):
        return _match_by_number(model, head, classes)
    if head.wnids or head.names:
        raise _unknown(
            model, head, classes[0], f"none of the {len(classes)} classes, such as {_quoted(classes[0])}, is"
        )
    if len(classes) != head.count:
        raise UserError(
            f"'{model}' has {head.count} outputs without names, and the data set has {len(classes)} classes: "
            f"{FINE_TUNE}"
        )
    return ClassMatch(head.count, None, "order")


def _match_by_text(
    model: str, head: OutputClasses, classes: Sequence[str], texts: Sequence[str], by: Literal["wnid", "name"]
) -> ClassMatch:
    positions: dict[str, list[int]] = {}
    for position, text in enumerate(texts):
        positions.setdefault(text, []).append(position)
    for name in classes:
        found = positions.get(name, [])
        if not found:
            raise _unknown(model, head, name, f"class {_quoted(name)} (one of {len(classes)}) is not", by)
        if len(found) > 1:
            ids = " or ".join(head.wnids[position] for position in found) if head.wnids else "a WordNet id"
            raise UserError(
                f"class {_quoted(name)} is the name of {len(found)} outputs of '{model}', "
                f"{' and '.join(map(str, found))}: name the class folders by WordNet ids, this one {ids}"
            )
    return _match(head.count, tuple(positions[name][0] for name in classes), by)


def _match_by_number(model: str, head: OutputClasses, classes: Sequence[str]) -> ClassMatch:
    numbers = tuple(map(int, classes))
    if sorted(numbers) == list(range(head.count)):
        return _match(head.count, numbers, "number")
    ordered = list(classes) == sorted(classes) and list(numbers) == sorted(set(numbers))
    if not head.names and not head.wnids and len(classes) == head.count and ordered:
        return ClassMatch(head.count, None, "order")
    otherwise = ", or by the network's own names" if head.names else ""
    raise UserError(
        f"the classes are {len(classes)} numbers from {min(numbers)} to {max(numbers)}, and '{model}' has {head.count} "
        f"outputs: numbers are matched only where they are 0 to {head.count - 1}, one for each output; name the class "
        f"folders so{otherwise}{' or WordNet ids' if head.wnids else ''}, or {FINE_TUNE}"
    )


def _match(count: int, outputs: tuple[int, ...], by: Literal["wnid", "name", "number"]) -> ClassMatch:
    return ClassMatch(count, None if outputs == tuple(range(count)) else outputs, by)


def _unknown(model: str, head: OutputClasses, name: str, subject: str, by: str = "") -> UserError:
    """Return the error for a class that is no output; it tells of an output that could be meant.

    `by` says what the other classes are matched by, if they are.
    """
    meant: dict[str, int] = {}
    for position, text in enumerate(head.names):
        for synonym in (text, *text.split(",")):
            meant.setdefault(_folded(synonym), position)
    close = difflib.get_close_matches(_folded(name), meant, n=1, cutoff=0.8)
    if close:
        position = meant[close[0]]
        own = _quoted(head.names[position])
        right = head.wnids[position] if head.wnids and by != "name" else own
        hint = f"did you mean {own} (then name the folder {right}; case and synonyms are not guessed)?"
    elif head.wnids and WNID.fullmatch(name):
        hint = "leave the class out, or take another network"
    else:
        ways = [*(["WordNet ids"] if head.wnids else []), *(["the network's own names"] if head.names else [])]
        hint = f"name the class folders by {' or '.join(ways)}, or {FINE_TUNE}"
    return UserError(f"{subject} among the {head.count} outputs of '{model}': {hint}")


def _quoted(name: str) -> str:
    """Return a name in quotes, as a sentence shows it: without line breaks, and cut where it is long."""
    shown = name if name.isprintable() else ascii(name)[1:-1]
    return f"'{shown}'" if len(shown) <= 80 else f"'{shown[:79]}…'"


def _folded(text: str) -> str:
    """Return a name without case, accents of two characters, underscores and hyphens."""
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", text)).strip().casefold()


def describe_matches(matches: Sequence[tuple[str, ClassMatch]], classes: int) -> str:
    """Say in a few words how networks' outputs were matched.

    Parameters
    ----------
    matches
        The name of each network, and its match.
    classes
        The number of the data set's classes.

    Examples
    --------
    >>> describe_matches([("timm/resnet18", ClassMatch(1000, (1, 7), "wnid"))], 2)
    'timm/resnet18 keeps 2 of its 1000 outputs, matched by WordNet id'
    """
    reasons = {
        "wnid": "WordNet id",
        "name": "name",
        "number": "number (class 0 is output 0)",
        "order": "their order, since they have no names (the first class is output 0)",
    }
    groups: dict[tuple[int, str], list[str]] = {}
    for model, match in matches:
        groups.setdefault((match.count, match.by), []).append(model)
    texts = []
    for (count, by), models in groups.items():
        who, verb, own = (
            (models[0], "keeps", "its") if len(models) == 1 else (f"{len(models)} networks", "keep", "their")
        )
        kept = f"all {count} outputs" if count == classes else f"{classes} of {own} {count} outputs"
        texts.append(f"{who} {verb} {kept}, matched by {reasons[by]}")
    return "; ".join(texts)
