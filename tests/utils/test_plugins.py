"""Plugins: a mistake in one is one sentence that says where it is."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnnsens_bench.degradations import degradations
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.plugins import import_submodules, load_plugins

HEAD = "from cnnsens_bench.degradations import degradation\n\n"
BODY = "def mine(pixels, draw, level):\n    return pixels\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = dict(degradations)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "some_plugin"]:
        del sys.modules[name]
    for name in set(degradations) - set(before):
        del degradations.data[name]  # type: ignore[attr-defined]


def load_text(folder: Path, text: str) -> None:
    (folder / "some_plugin.py").write_text(text)
    load_plugins(["some_plugin"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1\ndef (:\n", "plugin 'some_plugin' fails in line 2 of some_plugin.py: SyntaxError: "),
        ("x = 1\n\ny = z\n", "fails in line 3 of some_plugin.py: NameError: name 'z' is not defined"),
        ("def f():\n    return 1 / 0\n\nf()\n", "in line 4 of some_plugin.py: ZeroDivisionError: division by"),
        ("import no_such_library\n", "in line 1 of some_plugin.py: ModuleNotFoundError: No module named"),
        (HEAD + "@degradation('mine', levels=5)\n" + BODY,
         "plugin 'some_plugin' in line 3 of some_plugin.py: degradation 'mine': levels is 5: it must be a sequence"),
        (HEAD + "@degradation('mine', levels='12')\n" + BODY, "levels is '12': it must be a sequence of numbers"),
        (HEAD + "@degradation('mine', levels=(1, 'a'))\n" + BODY, "degradation 'mine': level 'a' is not a number"),
        (HEAD + "@degradation('mine', levels=(1, 9), high=5)\n" + BODY, "level 9 is out of range"),
        (HEAD + "@degradation('flip_lr')\n" + BODY, "the degradation 'flip_lr' is registered twice"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(here: Path, text: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        load_text(here, text)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["two words", "a-b", "3d", "", "a:b:c", "mine:", ":mine", "lambda", "größer", "a(3)", "*"]
)
def test_names_that_no_config_could_write_are_refused(here: Path, name: str) -> None:
    with pytest.raises(UserError, match="is no name for a degradation"):
        load_text(here, f"{HEAD}@degradation({name!r})\n{BODY}")


@pytest.mark.parametrize("name", ["none", "sensitivity", "albumentations:Mine"])
def test_names_that_mean_something_else_are_refused(here: Path, name: str) -> None:
    with pytest.raises(UserError, match="which means something else"):
        load_text(here, f"{HEAD}@degradation({name!r})\n{BODY}")


def test_a_name_may_have_a_prefix_and_levels_any_sequence(here: Path) -> None:
    load_text(here, f"{HEAD}@degradation('mine:paler', levels=range(1, 4))\n{BODY}")
    assert degradations["mine:paler"].levels == (1, 2, 3)


def test_every_module_of_a_folder_is_imported(here: Path) -> None:
    package = here / "some_plugin"
    package.mkdir()
    (package / "__init__.py").write_text("names = []\n")
    for name in ("b", "a"):
        (package / f"{name}.py").write_text(f"from some_plugin import names\n\nnames.append({name!r})\n")
    load_plugins(["some_plugin"])
    import_submodules("some_plugin")
    assert sys.modules["some_plugin"].names == ["a", "b"]


def test_a_missing_plugin_is_not_a_missing_library() -> None:
    with pytest.raises(
        UserError, match=r"plugin 'no\.where' cannot be imported .*: put its file in the working folder"
    ):
        load_plugins(["no.where"])
