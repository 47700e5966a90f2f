"""Registries, and packages whose modules register themselves."""

import sys
from pathlib import Path

import pytest

from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.plugins import import_submodules
from cnnsens_bench.utils.registry import Registry, near


def test_another_definition_of_a_name_is_refused_and_the_same_one_is_not() -> None:
    shapes: Registry = Registry("shape")
    for _ in range(2):
        shapes.add("square", near)
    with pytest.raises(UserError, match="the shape 'square' is registered twice"):
        shapes.add("square", import_submodules)


def test_the_known_names_are_listed_where_none_is_near() -> None:
    assert near("xyz", list("cabdefghij")) == ": known are a, b, c, d, e, f, g, h, …"
    assert near("xyz", []) == ""


def test_a_new_module_in_a_package_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_package"
    package.mkdir()
    (package / "__init__.py").write_text("names = []\n")
    for name in ("second", "first"):
        (package / f"{name}.py").write_text(f"import some_package\nsome_package.names.append({name!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        import_submodules("some_package")
        assert sys.modules["some_package"].names == ["first", "second"]
    finally:
        for name in [name for name in sys.modules if name.startswith("some_package")]:
            del sys.modules[name]
