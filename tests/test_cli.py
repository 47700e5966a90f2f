"""The console script: its commands, exit codes, near names and completions."""

import importlib
import subprocess

import pytest

from cnnsens_bench import __version__
from cnnsens_bench.cli import COMMANDS, SHELLS, completion, main


def test_a_command_gets_its_arguments_and_its_exit_code_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for name, (module, _) in COMMANDS.items():
        monkeypatch.setattr(importlib.import_module(module), "main", lambda words: seen.append(words) or 130)
        assert main([name, "a=1", "--b"]) == 130
    assert seen == [["a=1", "--b"]] * len(COMMANDS)


def test_real_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "suite=quikc"]) == 2
    assert main(["predict"]) == 2
    with pytest.raises(SystemExit) as ended:
        main(["leaderboard", "bild"])
    assert ended.value.code == 2
    assert "did you mean 'quick'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["rnu"], "unknown command 'rnu': did you mean 'run'?"),
        (["figure"], "unknown command 'figure': did you mean 'figures' or 'pictures'?"),
        ([], "no command is given"),
        (["completion", "tcsh"], "completion takes one of bash, zsh, fish"),
    ],
)
def test_what_is_wrong_is_one_sentence(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    written = capsys.readouterr()
    assert written.err.startswith(f"error: {sentence}")
    assert written.err.count("\n") == 1
    assert written.out == ""


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in [*COMMANDS, "completion"])
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.fixture(scope="module")
def scripts() -> dict[str, str]:
    return {shell: completion(shell) for shell in SHELLS}


@pytest.mark.parametrize(
    ("line", "words", "found"),
    [
        ("cnnsens-bench lead", 1, "leaderboard"),
        ("cnnsens-bench run tria", 2, "trials="),
        ("cnnsens-bench run suite=q", 4, "quick"),
        ("cnnsens-bench figures label", 2, "label-change"),
        ("cnnsens-bench leaderboard build --refer", 3, "--reference"),
        ("cnnsens-bench predict photo.jpg --h", 3, "--heatmap"),
        ("cnnsens-bench completion f", 2, "fish"),
    ],
)
def test_bash_completes(scripts: dict[str, str], line: str, words: int, found: str) -> None:
    asked = f"""compopt() {{ :; }}
COMP_LINE='{line}' COMP_POINT=${{#COMP_LINE}} COMP_WORDS=({line}) COMP_CWORD={words}
COMP_POINT=${{#COMP_LINE}}
_cnnsens_bench
echo "${{COMPREPLY[*]}}"
"""
    answer = subprocess.run(["bash", "-c", scripts["bash"] + asked], capture_output=True, text=True, check=True)
    assert (answer.stdout.strip(), answer.stderr) == (found, "")


def test_all_shells_know_the_same_words(scripts: dict[str, str]) -> None:
    for word in ("suite=quick", "trials=", "fig2", "--reference", "compare", "--heatmap", "leaderboard"):
        assert all(word in script for script in scripts.values())
