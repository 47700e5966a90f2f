"""How tests call `predict` and read what it says."""

import json

import pytest

from cnnsens_bench.predict import main

Capture = pytest.CaptureFixture[str]


def predicted(capsys: Capture, *words: object, code: int = 0) -> list[dict]:
    """Return what `--json` prints, which is all of standard output."""
    assert main([*map(str, words), "--json"]) == code
    said = capsys.readouterr()
    assert {line.partition(": ")[0] for line in said.err.splitlines()} <= {"error", "note", "predict"}
    return json.loads(said.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def wrong(capsys: Capture, *words: object) -> str:
    """Return the one sentence of a wrong request."""
    assert main([str(word) for word in words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return said.err
