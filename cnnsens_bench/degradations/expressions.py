"""Degradations as a config writes them, and their one canonical name, which the store keeps.

pepper                                                   a registered name, swept over its levels
gaussian_intensity(4) + pepper(0.02)                     in order, at fixed levels
gaussian_intensity(4) + pepper                           the same, pepper swept over its levels
albumentations:GaussNoise(std_range=(level, level))      a library's transform; `level` marks what is swept
"""

import ast
import re
from collections.abc import Mapping
from typing import Any

from cnnsens_bench.degradations.albumentations import LEVEL, PREFIX, albumentations_degradation
from cnnsens_bench.degradations.base import Degradation, degradations
from cnnsens_bench.degradations.chain import Member, chain
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import near


def parse_degradation(text: str) -> Degradation:
    """The degradation that `text` writes; its `name` is canonical. Raises `UserError`."""
    if text in degradations:
        return degradations[text]
    tree = _tree(text)
    members = [_member(node, text) for node in _summands(tree)]
    return chain(members, " + ".join(_member_name(member) for member in members))


MEMBER_KEYS = ("name", "level", "arguments")
ENTRY_KEYS = (*MEMBER_KEYS, "levels", "trials")


def expression(entry: Any) -> str:
    """The text of a config's entry: a string; a mapping with a name and `arguments` or `level`; or a list of these.

    Raises `UserError` for anything else, and for unknown keys. `levels` and `trials` are a whole entry's, no member's.
    """
    return _text(entry, ENTRY_KEYS)


def _text(entry: Any, known: tuple[str, ...]) -> str:
    if isinstance(entry, str):
        return entry
    if isinstance(entry, list) and entry:
        return " + ".join(_text(member, MEMBER_KEYS) for member in entry)
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise UserError(f"degradations: {entry!r} is neither a name, nor a mapping with a name, nor a list of these")
    name, level, arguments = entry["name"], entry.get("level"), entry.get("arguments")
    for key in entry:
        if key not in known:
            raise UserError(f"degradations: unknown key '{key}' of '{name}'{near(str(key), list(known))}")
    if level is not None and arguments is not None:
        raise UserError(f"degradations: '{name}' has both level and arguments: write the level into the arguments")
    if level is not None:
        return f"{name}({level!r})"
    if arguments is None:
        return name
    if not isinstance(arguments, Mapping):
        raise UserError(f"degradations: arguments of '{name}' must be a mapping, such as {{blur_limit: [3, 3]}}")
    return f"{name}({', '.join(f'{key}={_source(value)}' for key, value in arguments.items())})"


def _source(value: Any) -> str:
    if value == "level":
        return "level"
    if isinstance(value, list | tuple):
        return f"({''.join(_source(item) + ', ' for item in value).rstrip()})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_source(item)}" for key, item in value.items()) + "}"
    return repr(value)


TEXT_OR_PREFIX = re.compile(r"""('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|\b([A-Za-z_]\w*):(?=[A-Za-z_])""")


def _tree(text: str) -> ast.expr:
    try:
        # A prefix becomes an attribute: `common:fog` is no Python. What is quoted stays.
        return ast.parse(TEXT_OR_PREFIX.sub(lambda m: m[1] or f"{m[2]}.", text.strip()), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UserError(
            f"degradation '{text}' cannot be read: write a name, name(level), name(level) + name(level), or "
            f"{PREFIX}Transform(argument=value)"
        ) from None


def _summands(node: ast.expr) -> list[ast.expr]:
    found = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        found.append(node.right)
        node = node.left
    return [node, *reversed(found)]


def _member(node: ast.expr, text: str) -> Member:
    call = node if isinstance(node, ast.Call) else None
    name = _name(call.func if call else node, text)
    if name.startswith(PREFIX):
        return Member(_transform(name, call, text), None)
    degradation = degradations[name]
    if call is None:
        return Member(degradation, None)
    if call.keywords or len(call.args) != 1:
        raise UserError(f"degradation '{text}': '{name}' takes one number, its level, as in {name}(4)")
    return Member(degradation, _checked(degradation, _literal(call.args[0], text)))


def _checked(degradation: Degradation, level: Any) -> float:
    if not degradation.has_levels:
        raise UserError(f"degradation '{degradation.name}' has no level: leave ({level!r}) out")
    return degradation.check_level(level)


def _name(node: ast.expr, text: str) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}:{node.attr}"
    raise UserError(f"degradation '{text}' cannot be read: {ast.unparse(node)!r} is no name of a degradation")


def _transform(name: str, call: ast.Call | None, text: str) -> Degradation:
    if call is not None and call.args:
        raise UserError(f"degradation '{text}': give the arguments of '{name}' by name, as in {name}(p=0.5)")
    pairs = sorted(((k.arg, _literal(k.value, text)) for k in call.keywords), key=lambda p: str(p[0])) if call else []
    arguments = {str(key): value for key, value in pairs}
    if len(arguments) < len(pairs):
        raise UserError(f"degradation '{text}': an argument of '{name}' is given twice")
    written = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    canonical = f"{name}({written})" if arguments else name
    return albumentations_degradation(canonical, name.removeprefix(PREFIX), arguments)


def _literal(node: ast.expr, text: str) -> Any:
    """A number, string, tuple, list or mapping of these, or `LEVEL`; lists become tuples."""
    if isinstance(node, ast.Name) and node.id == "level":
        return LEVEL
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(_literal(item, text) for item in node.elts)
    if isinstance(node, ast.Dict) and all(node.keys):
        return {
            _literal(key, text): _literal(value, text)
            for key, value in zip(node.keys, node.values, strict=True)
            if key is not None
        }
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise UserError(
            f"degradation '{text}': {ast.unparse(node)!r} is no number, text, list or mapping, nor the word level"
        ) from None


def _member_name(member: Member) -> str:
    name = member.degradation.name
    return name if member.level is None else f"{name}({member.level:.12g})"
