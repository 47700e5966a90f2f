"""The parser that reads degradations, defenses and predictors."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import Registry
from cnnsens_bench.utils.spec_parser import SpecSyntax, Term, call_factory, parse_spec, parse_term

LEVEL = object()
SYNTAX = SpecSyntax("shape", "square(side=3)", {"level": LEVEL})

shapes: Registry = Registry("shape")


@shapes.register("square")
def square(side: int = 3, width: float = 1.0) -> tuple[int, float]:
    if side < 0:
        raise ValueError("side must be at least 0")
    return side, width


def call(text: str) -> tuple[str, tuple[int, float]]:
    return call_factory(shapes, text, parse_term(text, SYNTAX), SYNTAX)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        (" a ", [Term("a")]),
        ("a()", [Term("a")]),
        ("a + (b + c)", [Term("a"), Term("b"), Term("c")]),
        ("mine:a(1, -2.5)", [Term("mine:a", (1, -2.5))]),
        ("mine.a", [Term("mine.a")]),
        ("a(x=[1, (level, 'b:c')])", [Term("a", (), {"x": [1, (LEVEL, "b:c")]})]),
        ("a(x={'k': level}, y=None)", [Term("a", (), {"x": {"k": LEVEL}, "y": None})]),
    ],
)
def test_terms(text: str, terms: list[Term]) -> None:
    assert parse_spec(text, SYNTAX) == terms


def test_a_sum_may_be_long() -> None:
    assert parse_spec(" + ".join(["a"] * 2000), SYNTAX) == [Term("a")] * 2000


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("square", "square(side=3, width=1.0)"),
        ("square(width=2)", "square(side=3, width=2.0)"),
        ("square(width=2.0, side=4.0)", "square(side=4, width=2.0)"),
    ],
)
def test_canonical_names_have_all_arguments_in_the_types_of_their_defaults(text: str, name: str) -> None:
    assert call(text)[0] == name


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("square(", "shape 'square(' cannot be read: write it as square(side=3)"),
        ("square(x={[1]: 2})", "shape 'square(x={[1]: 2})' cannot be read: write it as square(side=3)"),
        ("a" + ".b" * 5000, "cannot be read: write it as square(side=3)"),
        ("square(side=x)", "cannot be read: 'x' is no number, text, list or mapping, nor the word level"),
        ("square(side=1 + 2)", "'1 + 2' is no number"),
        ("square - 1", "unknown shape 'square - 1', which is no name of a shape: write it as square(side=3)"),
        ("square(3)(4)", "unknown shape 'square(3)', which is no name of a shape"),
        ("sqare", "unknown shape 'sqare': did you mean 'square'?"),
        ("square(3)", "its arguments need their names: give each by name, as in square(side=3)"),
        ("square(side=3, side=4)", "the argument 'side' of 'square' is given twice"),
        ("square(sides=3)", "shape 'square' has no argument 'sides': did you mean 'side'?"),
        ("square(x=3)", "shape 'square' has no argument 'x': it has side, width"),
        ("square(side=-1)", "shape 'square(side=-1)': side must be at least 0"),
        ("square(side='a')", "shape 'square(side='a')': "),
        ("square + square", "shape 'square + square' joins 2 names: write only one, as square(side=3)"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=r"^[^\n]+$") as caught:
        call(text)
    assert sentence in str(caught.value)


@given(st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_has_terms_or_is_refused(text: str) -> None:
    with contextlib.suppress(UserError):
        assert parse_spec(text, SYNTAX)
