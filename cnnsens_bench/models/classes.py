"""Matches the outputs of a network with the classes of a data set: by WordNet id, by name or by number, never by guess."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cnnsens_bench.utils.errors import UserError

WNID = re.compile(r"n\d{8}")
"""A WordNet id, by which ImageNet names its classes."""


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

    WordNet ids are matched first, then names, then numbers. Numbers, and outputs without names, are matched only where
    there are as many classes as outputs. Names must agree letter by letter: of case and synonyms the error tells, and
    nothing is guessed.

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
        If a class is none of the outputs, or one of several.

    Examples
    --------
    >>> head = OutputClasses(3, wnids=("n01440764", "n01443537", "n01484850"), names=("tench", "goldfish", "shark"))
    >>> match_classes("lab/net", head, ["n01443537", "n01440764"])
    ClassMatch(count=3, outputs=(1, 0), by='wnid')
    >>> match_classes("lab/net", head, ["0", "1", "2"])
    ClassMatch(count=3, outputs=None, by='number')
    """
    if head.wnids and all(map(WNID.fullmatch, classes)):
        return _match_by_text(model, head, classes, head.wnids, "wnid")
    known = set(head.names)
    if head.names and any(name in known for name in classes):
        return _match_by_text(model, head, classes, head.names, "name")
    if all(name.isascii() and name.isdigit() for name in classes):
        return _match_by_number(model, head, classes)
    if head.names:
        raise _unknown(model, head, classes[0], classes)
    if len(classes) != head.count:
        raise UserError(
            f"'{model}' has {head.count} outputs without names, and the data set {len(classes)} classes: fine-tune it, "
            "or name its outputs"
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
            raise _unknown(model, head, name, classes)
        if len(found) > 1:
            raise UserError(
                f"class '{name}' is the name of outputs {' and '.join(map(str, found))} of '{model}': name its folder by "
                "its WordNet id"
            )
    return _match(head.count, tuple(positions[name][0] for name in classes), by)


def _match_by_number(model: str, head: OutputClasses, classes: Sequence[str]) -> ClassMatch:
    numbers = tuple(map(int, classes))
    if sorted(numbers) != list(range(head.count)):
        raise UserError(
            f"the classes are {len(classes)} numbers from {min(numbers)} to {max(numbers)}, and '{model}' has "
            f"{head.count} outputs: numbers are matched only where they are 0 to {head.count - 1}, so name the folders by "
            "WordNet id or name"
        )
    return _match(head.count, numbers, "number")


def _match(count: int, outputs: tuple[int, ...], by: Literal["wnid", "name", "number"]) -> ClassMatch:
    return ClassMatch(count, None if outputs == tuple(range(count)) else outputs, by)


def _unknown(model: str, head: OutputClasses, name: str, classes: Sequence[str]) -> UserError:
    """Return the error for a class that is no output. It tells of an output that could be meant."""
    synonyms = {word.strip(): text for text in head.names for word in text.split(",")}
    folded = {_folded(word): word for word in synonyms}
    close = difflib.get_close_matches(_folded(name), folded, n=1, cutoff=0.8)
    if close:
        near = f": did you mean '{synonyms[folded[close[0]]]}'? Rename the folder; case and synonyms are not guessed"
    elif WNID.fullmatch(name):
        near = ": it is not among its WordNet ids; leave the class out, or take another network"
    else:
        near = (
            ": name the folders by WordNet id or by the network's own names, or fine-tune it (training.epochs above 0)"
        )
    return UserError(f"class '{name}' (of {len(classes)}) is none of the {head.count} outputs of '{model}'{near}")


def _folded(text: str) -> str:
    """Return a name without case, underscores and hyphens."""
    return re.sub(r"[\s_-]+", " ", text).strip().casefold()


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
    words = {"wnid": "WordNet id", "name": "name", "number": "number", "order": "their order, since they have no names"}
    groups: dict[tuple[int, str], list[str]] = {}
    for model, match in matches:
        groups.setdefault((match.count, match.by), []).append(model)
    texts = []
    for (count, by), models in groups.items():
        who, verb, own = (
            (models[0], "keeps", "its") if len(models) == 1 else (f"{len(models)} networks", "keep", "their")
        )
        kept = f"all {count} outputs" if count == classes else f"{classes} of {own} {count} outputs"
        texts.append(f"{who} {verb} {kept}, matched by {words[by]}")
    return "; ".join(texts)
