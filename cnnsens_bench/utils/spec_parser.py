"""Read specs, the short texts by which a config names degradations, defenses and predictors.

A spec is one term or several joined by `+`. A term is a name, alone or with arguments in brackets:
`gaussian_filter(size=3, sigma=0.5)`, `gaussian_intensity(4) + pepper`. Arguments are literals: nothing is evaluated.
"""

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import Registry, near

T = TypeVar("T")

QUOTED_OR_PREFIX = re.compile(r"""('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|\b([A-Za-z_]\w*):(?=[A-Za-z_])""")


@dataclass(frozen=True)
class SpecSyntax:
    """What distinguishes the specs of one kind of thing from those of another.

    Parameters
    ----------
    kind
        The noun of the error sentences, such as "defense".
    example
        A correct spec, which the error sentences show.
    placeholders
        Words that may take the place of a literal, and the objects that stand for them.
    """

    kind: str
    example: str
    placeholders: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Term:
    """One term of a spec: its name, the arguments without a name, and the arguments by name, in their order."""

    name: str
    positional: tuple[Any, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)


def parse_spec(text: str, syntax: SpecSyntax) -> list[Term]:
    """Return the terms of a spec, in their order.

    Raises
    ------
    UserError
        If the text is no spec, a name is none, an argument is no literal, or an argument is given twice.

    Examples
    --------
    >>> syntax = SpecSyntax("degradation", "common:fog(3) + pepper")
    >>> for term in parse_spec("common:fog(3) + Blur(limit=[3, 5])", syntax):
    ...     print(term.name, term.positional, term.arguments)
    common:fog (3,) {}
    Blur () {'limit': [3, 5]}
    """
    text = text.strip()
    # A name with a prefix (`common:fog`) is no Python, so its colon becomes a dot, which keeps all positions.
    source = QUOTED_OR_PREFIX.sub(lambda match: match[1] or f"{match[2]}.", text)
    try:
        return [_term(node, text, syntax) for node in _summands(ast.parse(source, mode="eval").body)]
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise UserError(f"{syntax.kind} '{text[:200]}' cannot be read: write it as {syntax.example}") from None


def parse_term(text: str, syntax: SpecSyntax) -> Term:
    """Return the only term of a spec. Raises `UserError` as `parse_spec` does, and for several terms."""
    terms = parse_spec(text, syntax)
    if len(terms) > 1:
        raise UserError(f"{syntax.kind} '{text}' joins {len(terms)} names: write only one, as {syntax.example}")
    return terms[0]


def call_factory(factories: Registry[Callable[..., T]], text: str, term: Term, syntax: SpecSyntax) -> tuple[str, T]:
    """Call the registered factory that a term names, with the term's arguments and its defaults for the others.

    Parameters
    ----------
    text
        The whole spec, for the error sentences.

    Returns
    -------
    tuple
        The term's canonical name, which has every argument, and the factory's result.

    Raises
    ------
    UserError
        If the name or an argument is unknown, an argument has no name, or the factory refuses a value (`ValueError`
        or `TypeError`).
    """
    check_all_named(term, text, syntax)
    factory = factories[term.name]
    parameters = inspect.signature(factory).parameters
    check_argument_names(term, list(parameters), syntax)
    arguments = {key: _like_default(term.arguments.get(key, p.default), p.default) for key, p in parameters.items()}
    try:
        made = factory(**arguments)
    except (ValueError, TypeError) as error:
        raise UserError(f"{syntax.kind} '{text}': {error}") from None
    return canonical_name(term.name, arguments), made


def check_all_named(term: Term, text: str, syntax: SpecSyntax) -> None:
    """Raise `UserError` if an argument of the term has no name."""
    if term.positional:
        raise UserError(
            f"{syntax.kind} '{text}': its arguments need their names: give each by name, as in {syntax.example}"
        )


def check_argument_names(term: Term, known: list[str], syntax: SpecSyntax) -> None:
    """Raise `UserError` if the term has an argument other than the known ones."""
    for key in term.arguments:
        if key not in known:
            hint = near(key, known, "it has") or ": it has none"
            raise UserError(f"{syntax.kind} '{term.name}' has no argument '{key}'{hint}")


def canonical_name(name: str, arguments: Mapping[str, Any]) -> str:
    """Return the one way to write a name with named arguments, which the database keeps.

    Examples
    --------
    >>> canonical_name("gaussian_filter", {"size": 3, "sigma": 0.5})
    'gaussian_filter(size=3, sigma=0.5)'
    >>> canonical_name("none", {})
    'none'
    """
    inner = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    return f"{name}({inner})" if inner else name


def join_names(names: Iterable[str]) -> str:
    """Return the canonical name of several terms from theirs."""
    return " + ".join(names)


def _summands(node: ast.expr) -> list[ast.expr]:
    """Return the terms of a sum from left to right; without recursion, since a sum may have thousands."""
    waiting, found = [node], []
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            waiting += [node.right, node.left]
        else:
            found.append(node)
    return found


def _term(node: ast.expr, text: str, syntax: SpecSyntax) -> Term:
    call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    name = ast.unparse(call.func)
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(
            f"unknown {syntax.kind} '{_segment(call.func, text)}', which is no name of a {syntax.kind}: write it as "
            f"{syntax.example}"
        )
    if "." in name and ":" in _segment(call.func, text):
        name = name.replace(".", ":")
    arguments: dict[str, Any] = {}
    for keyword in call.keywords:
        key = keyword.arg or "**"
        if key in arguments:
            raise UserError(f"{syntax.kind} '{text}': the argument '{key}' of '{name}' is given twice")
        arguments[key] = _literal(keyword.value, text, syntax)
    return Term(name, tuple(_literal(argument, text, syntax) for argument in call.args), arguments)


def _literal(node: ast.expr, text: str, syntax: SpecSyntax) -> Any:
    """Return a literal's value, or the object of a placeholder, also inside tuples, lists and mappings."""
    if isinstance(node, ast.Name) and node.id in syntax.placeholders:
        return syntax.placeholders[node.id]
    if isinstance(node, ast.Tuple | ast.List):
        values = [_literal(inner, text, syntax) for inner in node.elts]
        return tuple(values) if isinstance(node, ast.Tuple) else values
    if isinstance(node, ast.Dict) and None not in node.keys:
        keys, values = ([_literal(inner, text, syntax) for inner in part if inner] for part in (node.keys, node.values))
        return dict(zip(keys, values, strict=True))
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        nor = f", nor the word {' or '.join(syntax.placeholders)}" if syntax.placeholders else ""
        raise UserError(
            f"{syntax.kind} '{text}' cannot be read: {_segment(node, text)!r} is no number, text, list or mapping{nor}"
        ) from None


def _segment(node: ast.expr, text: str) -> str:
    """Return the part of the text that a node stands for, in one line."""
    return " ".join((ast.get_source_segment(text, node) or ast.unparse(node)).split())


def _like_default(value: Any, default: Any) -> Any:
    """Return a number in the type of its default, so that `sigma=1` and `sigma=1.0` have one canonical name."""
    if isinstance(default, float) and type(value) is int:
        return float(value)
    return int(value) if type(default) is int and isinstance(value, float) and value.is_integer() else value
