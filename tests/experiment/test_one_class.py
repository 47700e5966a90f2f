"""A data set of one class: no label can change to another, so it is refused before anything is computed."""

from pathlib import Path

import pytest

from cnnsens_bench import run, tune
from tests.test_hostile import request


@pytest.mark.parametrize("command", [[], ["estimate=true"], ["tune"]])
def test_a_data_set_of_one_class_is_refused(
    command: list[str], pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data" / "only").mkdir(parents=True)
    for file in (pictures / "class_0").iterdir():
        (tmp_path / "data" / "only" / file.name).write_bytes(file.read_bytes())
    words = request(pictures, tmp_path, f"dataset.root={tmp_path / 'data'}", "training.epochs=1")
    assert (tune.main(words) if command == ["tune"] else run.main([*words, *command])) == 2
    assert capsys.readouterr().err == (
        "error: dataset 'folder' has one class only, 'only', and no other label to change to: "
        "add images of a second class, or take another dataset=<name>\n"
    )
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "cache").exists()
