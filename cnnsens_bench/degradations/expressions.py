"""Degradations as a config writes them, and their one canonical name, which the database keeps.

pepper                                                   a registered name, swept over its levels
common:*                                                 all registered names that match
stored:fog                                               pictures of a pre-made set, severity by severity
gaussian_intensity(4) + pepper(0.02)                     in this order, at fixed levels
gaussian_intensity(4) + pepper                           the same, with pepper swept over its levels
albumentations:GaussNoise(std_range=(level, level))      a transform of a library; the word `level` marks what is swept
"""

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from cnnsens_bench.degradations.albumentations import PREFIX, SWEPT_LEVEL, TRANSFORM_SYNTAX, albumentations_degradation
from cnnsens_bench.degradations.base import Degradation, degradations
from cnnsens_bench.degradations.chain import ChainMember, chain
from cnnsens_bench.degradations.stored import PREFIX as STORED
from cnnsens_bench.degradations.stored import stored_degradation
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import near
from cnnsens_bench.utils.spec_parser import SpecSyntax, Term, canonical_name, check_all_named, join_names, parse_spec

EXAMPLE = f"pepper, gaussian_intensity(4) + pepper(0.02) or {PREFIX}Blur(blur_limit=3)"
SYNTAX = SpecSyntax("degradation", EXAMPLE, {"level": SWEPT_LEVEL})
MEMBER_KEYS = ("name", "level", "arguments")
OTHERWISE = "otherwise"
"""The key that names what is taken in place of pre-made pictures where there are none."""
ENTRY_KEYS = (*MEMBER_KEYS, "levels", "trials", OTHERWISE)


NO_VARIANTS: Mapping[str, Degradation] = {}


def parse_degradation(text: str, variants: Mapping[str, Degradation] = NO_VARIANTS) -> Degradation:
    """Return the degradation that a text describes.

    Parameters
    ----------
    text
        A registered name, a transform of albumentations, a corruption of a pre-made set (`stored:fog`), or several of
        these joined by `+`; a name may fix its level, as in `pepper(0.02)`.
    variants
        By name: degradations that are taken in place of the registered ones.

    Returns
    -------
    Degradation
        Its `name` is the canonical form of the text.

    Raises
    ------
    UserError
        If the text cannot be read, a name is unknown, a level is out of range, or the members of a chain cannot follow
        each other.

    Examples
    --------
    >>> parse_degradation(" gaussian_intensity( 4.0 )+pepper").name
    'gaussian_intensity(4) + pepper'
    """
    if text in variants:
        return variants[text]
    if text in degradations:
        return degradations[text]
    members = [_member(term, text, variants) for term in parse_spec(text, SYNTAX)]
    return chain(members, join_names(_member_name(member) for member in members))


def parse_degradations(text: str, variants: Mapping[str, Degradation] = NO_VARIANTS) -> list[Degradation]:
    """Return the degradation that a text describes, or all registered ones whose names match it if it has a `*`.

    Parameters
    ----------
    text
        As `parse_degradation` takes it, or a pattern. One that begins with `stored:` is matched with `variants`.
    variants
        As `parse_degradation` takes them.

    Raises
    ------
    UserError
        If no name matches, and as `parse_degradation` does.

    Examples
    --------
    >>> [degradation.name for degradation in parse_degradations("flip_*")]
    ['flip_lr', 'flip_ud']
    """
    known = variants if text.startswith(STORED) else degradations
    names = fnmatch.filter(known, text) if "*" in text else [text]
    if not names:
        raise UserError(f"degradations: no name matches '{text}'{near(text, known)}")
    return [parse_degradation(name, variants) for name in names]


def write_expression(entry: Any, keys: Sequence[str] = ENTRY_KEYS) -> str:
    """Return an entry of the config's list `degradations` as one text, which `parse_degradation` reads.

    Parameters
    ----------
    entry
        A text; a mapping with `name` and either `level` or `arguments`; or a list of these.
    keys
        What a mapping may have. That of a whole entry, unlike one in a list, may also have `levels`, `trials` and
        `otherwise`, which are no part of the text.

    Raises
    ------
    UserError
        If the entry is anything else, or has unknown keys.

    Examples
    --------
    >>> write_expression(["flip_lr", {"name": "pepper", "level": 0.02}])
    'flip_lr + pepper(0.02)'
    """
    if isinstance(entry, str):
        return entry
    if isinstance(entry, list) and entry:
        return join_names(write_expression(member, MEMBER_KEYS) for member in entry)
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise UserError(f"degradations: {entry!r} is neither a name, nor a mapping with a name, nor a list of these")
    name, level, arguments = entry["name"], entry.get("level"), entry.get("arguments")
    for key in entry:
        if key not in keys:
            raise UserError(f"degradations: unknown key '{key}' of '{name}'{near(str(key), keys)}")
    if level is not None and arguments is not None:
        raise UserError(f"degradations: '{name}' has both level and arguments: write the level into the arguments")
    if level is not None:
        return f"{name}({level!r})"
    if arguments is None:
        return name
    if not isinstance(arguments, Mapping):
        raise UserError(f"degradations: arguments of '{name}' must be a mapping, such as {{blur_limit: [3, 3]}}")
    return f"{name}({', '.join(f'{key}={_literal(value)}' for key, value in arguments.items())})"


def _literal(value: Any) -> str:
    """Return the text of an argument; the text "level" is the word that marks what is swept."""
    if value == "level":
        return "level"
    if isinstance(value, list | tuple):
        return f"({''.join(_literal(inner) + ', ' for inner in value).rstrip()})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_literal(inner)}" for key, inner in value.items()) + "}"
    return repr(value)


def _member(term: Term, text: str, variants: Mapping[str, Degradation]) -> ChainMember:
    name = term.name.replace(".", ":")  # a dot is taken for the colon of a prefix
    if name.startswith(PREFIX):
        return ChainMember(_transform(name, term, text), None)
    if name in variants:
        degradation = variants[name]
    else:
        degradation = stored_degradation(name) if name.startswith(STORED) else degradations[name]
    if term.arguments or len(term.positional) > 1:
        raise UserError(f"degradation '{text}': '{name}' takes one number, its level, as in {name}(4)")
    if not term.positional:
        return ChainMember(degradation, None)
    level = term.positional[0]
    if not degradation.has_levels:
        raise UserError(f"degradation '{name}' has no level: leave ({level!r}) out")
    return ChainMember(degradation, degradation.check_level(level))


def _transform(name: str, term: Term, text: str) -> Degradation:
    check_all_named(term, text, TRANSFORM_SYNTAX)
    arguments = {key: _with_tuples(term.arguments[key]) for key in sorted(term.arguments)}
    return albumentations_degradation(canonical_name(name, arguments), Term(name, arguments=arguments))


def _with_tuples(value: Any) -> Any:
    """Return a value whose lists are tuples, so that both ways to write them have one canonical name."""
    if isinstance(value, Mapping):
        return {key: _with_tuples(inner) for key, inner in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list | tuple) else value


def _member_name(member: ChainMember) -> str:
    name = member.degradation.name
    return name if member.level is None else f"{name}({member.level:.12g})"
