"""Files that are replaced atomically: the content is the old one or the new one, and nothing is left beside it."""

from pathlib import Path

import pytest

from cnnsens_bench.utils.atomic import replacing, write_atomically


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("content", ["“text”\n", b"\x00bytes"])
def test_the_content_is_replaced(tmp_path: Path, content: str | bytes, sync: bool) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    write_atomically(path, content, sync)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_content_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def interrupted() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_body_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def empty() -> None:
        with replacing(path):
            pass

    with pytest.raises(FileNotFoundError):
        empty()
    assert path.read_text() == "before"
