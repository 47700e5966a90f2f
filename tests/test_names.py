"""The vocabulary of the code: one name for one thing, and none that a newcomer would have to be told."""

import ast
import collections
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "cnnsens_bench").rglob("*.py")) + sorted((ROOT / "leaderboard").rglob("*.py"))
RETIRED = {
    *("crew", "desk", "ledger", "parcel", "halving", "written", "prepared", "lineup", "line_up", "bench", "where"),
    *("place", "places", "words", "foreteller", "outlook", "stake", "witness", "ticket", "tickets", "piece", "pieces"),
    *("chunk", "chunks", "item", "items", "crews", "outlooks", "stakes", "inbox", "teller"),
}
"""Names that have a plainer one; `items` of a mapping is Python's own and is called, never defined."""
MOST_SQL_FILES = 20


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def defined_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of each class, function and parameter."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg


def words_of(name: str) -> set[str]:
    """Return the lower-case words that a name is made of, and the name itself."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)} | {name.lower().strip("_")}


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_no_module_class_function_or_parameter_has_a_retired_name(file: Path) -> None:
    found = [f"{line}: {name}" for line, name in defined_names(ast.parse(file.read_text())) if words_of(name) & RETIRED]
    assert not found
    assert not words_of(file.stem) & RETIRED


def test_no_class_name_is_used_twice() -> None:
    classes = collections.defaultdict(list)
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                classes[node.name.strip("_")].append(relative(file))
    assert not {name: files for name, files in classes.items() if len(files) > 1}


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_only_the_configuration_and_the_experiment_know_the_whole_config(file: Path) -> None:
    inside = relative(file).startswith(("cnnsens_bench/config/", "cnnsens_bench/experiment/"))
    names = {node.id for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Name)}
    imported = {
        alias.name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert inside or "Config" not in names | imported


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_docstrings_are_sentences(file: Path) -> None:
    """A docstring that begins with "Of" says what a thing belongs to, not what it is."""
    tree = ast.parse(file.read_text())
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert not [text for text in texts if re.match(r"\s*Of [a-z]", text)]


def test_sql_lies_in_few_files() -> None:
    files = [f for folder in ("cnnsens_bench", "leaderboard") for f in (ROOT / folder).rglob("*.sql")]
    assert 0 < len(files) <= MOST_SQL_FILES
