"""Cards of submissions: whatever somebody writes into one, the result is a card or one sentence."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnnsens_bench.store.submission.card import (
    CARD,
    FORMAT,
    FORMAT_VERSION,
    Card,
    check_files,
    digest,
    read_card,
    strict_json,
)
from cnnsens_bench.utils.errors import UserError

TABLES = ("runs", "predictions")
GOOD: dict[str, Any] = {
    "format": FORMAT,
    "format_version": FORMAT_VERSION,
    "schema_version": 1,
    "program": {"version": "0.1.0", "commit": "abc"},
    "created": "2026-01-01T00:00:00+00:00",
    "by": "",
    "note": "",
    "protocols": [{"protocol": "p", "dataset": "d", "test_images": 3, "conditions": 2}],
    "entrants": [
        {"protocol": "p", "dataset": "d", "model": "timm/b", "defense": "none", "architecture": "b",
         "weights_sha256": "w", "predictions": 6}
    ],
    "files": {},
}  # fmt: skip
WILD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("submission")
    for table in TABLES:
        path = made / f"{table}.parquet"
        path.write_text(table)
        GOOD["files"][path.name] = {"rows": 1, "bytes": path.stat().st_size, "sha256": digest(path)}
    return made


def locations(content: Any, location: tuple = ()) -> list[tuple]:
    """Return the keys that lead to each value of a card, and to the card itself."""
    found = [location]
    if isinstance(content, dict | list):
        for key in content if isinstance(content, dict) else range(len(content)):
            found += locations(content[key], (*location, key))
    return found


def refusal(folder: Path, card: bytes) -> str | None:
    """Return the sentence that refuses a card, or None."""
    (folder / CARD).write_bytes(card)
    sentence = None
    try:
        check_files(folder, read_card(folder, 1), TABLES, TABLES)
    except UserError as error:
        sentence = str(error)
    assert sentence is None or (sentence.isprintable() and len(sentence.splitlines()) == 1)
    return sentence


def test_the_good_card(folder: Path) -> None:
    assert refusal(folder, json.dumps(GOOD).encode()) is None
    assert set(GOOD) == set(Card.model_fields)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.data())
def test_mutated_cards(folder: Path, drawn: st.DataObject) -> None:
    card = copy.deepcopy(GOOD)
    *path, last = drawn.draw(st.sampled_from([location for location in locations(GOOD) if location]))
    holder = card
    for key in path:
        holder = holder[key]
    was = holder[last]
    kind = drawn.draw(st.sampled_from(["replace", "remove", "add"]))
    if kind == "replace":
        holder[last] = drawn.draw(WILD)
    elif kind == "remove":
        del holder[last]
    elif isinstance(holder, dict):
        holder[drawn.draw(st.text(max_size=8).filter(lambda key: key not in holder))] = drawn.draw(WILD)
    else:
        holder.append(drawn.draw(WILD))
    sentence = refusal(folder, json.dumps(card).encode())
    wrong = type(holder[last]) is not type(was) if kind == "replace" else isinstance(holder, dict)
    assert sentence is not None or not wrong


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=60) | st.text(max_size=60).map(str.encode) | WILD.map(lambda value: json.dumps(value).encode())
)
def test_cards_that_are_none(folder: Path, text: bytes) -> None:
    assert refusal(folder, text) is not None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[" * 100_000, "it is not JSON that this program reads (it is nested too deeply)"),
        ('{"a":' * 50 + "1" + "}" * 50, "it is nested too deeply"),
        ('{"a": 1, "a": 2}', "a key comes twice"),
        ('{"a": Infinity}', "Infinity is no number of JSON"),
        ('{"a": ' + "9" * 5000 + "}", "it is not JSON that this program reads"),
        ("[]", "it is JSON, but no object"),
    ],
)
def test_json_that_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        strict_json(text, "a file")
    assert str(caught.value).startswith("a file: ")
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("format", "another", "its format is not 'cnnsens_bench submission'"),
        ("format_version", 2, "its format_version is 2, this program reads 1"),
        ("schema_version", True, "its schema_version is True, this program reads 1"),
        ("by", "\ud800", "card.json, by: Input should be a valid string, unable to parse raw data as a unicode string"),
        ("note", "x" * 20_000, "card.json, note: String should have at most 10000 characters"),
        ("protocols", [{"protocol": "p"}], "card.json, protocols[0].dataset: Field required"),
        ("by", 1, "card.json, by: Input should be a valid string"),
        ("files", {"x": {"rows": True}}, "card.json, files.x.rows: Input should be a valid integer"),
        ("more", 1, "card.json, more: Extra inputs are not permitted"),
    ],
)
def test_what_a_card_may_not_say(folder: Path, key: str, value: Any, sentence: str) -> None:
    assert sentence in (refusal(folder, json.dumps(GOOD | {key: value}).encode()) or "")


def test_a_card_that_is_a_link_or_too_large(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.json").write_text(json.dumps(GOOD))
    (tmp_path / CARD).symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(UserError, match="has no card"):
        read_card(tmp_path, 1)
    assert "it is larger than" in (refusal(folder, b" " * (17 * 2**20)) or "")
