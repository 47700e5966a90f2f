"""Databases that another process holds, that do not exist or are not of ours give one sentence and exit code 2."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

from cnnsens_bench.figures.__main__ import main as figures
from leaderboard.__main__ import main as leaderboard
from tests.leaderboard.made import sweep, write

HOLD = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
COMMANDS: dict[str, tuple[Callable[[list[str]], int], list[str]]] = {
    "build": (leaderboard, ["build", "--out", "{new}"]),
    "compare": (leaderboard, ["compare", "timm/b", "timm/c"]),
    "export": (leaderboard, ["export", "--out", "{new}"]),
    "import": (leaderboard, ["import", "{submission}"]),
    "curves": (figures, ["curves", "--out", "{new}.png"]),
    "fig6": (figures, ["fig6", "--out", "{new}.png"]),
}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("held")
    path = write(folder, sweep("r", "d", range(4), 0), {"r": "p"})
    assert leaderboard(["export", "--db", str(path), "--out", str(folder / "submission")]) == 0
    return path


@pytest.fixture(scope="module")
def held(database: Path) -> Iterator[Path]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield database
        holder.communicate("")


def error_of(command: str, database: Path, path: Path, new: Path, capsys: pytest.CaptureFixture) -> str:
    capsys.readouterr()
    call, arguments = COMMANDS[command]
    filled = [argument.format(new=new, submission=database.parent / "submission") for argument in arguments]
    assert call([*filled, "--db", str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert len(printed.err.splitlines()) == 1
    assert not list(new.parent.glob(f"{new.name}*"))
    return printed.err


@pytest.mark.parametrize("command", COMMANDS)
def test_held_by_another_process(command: str, held: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert f"{held} is held by another process" in error_of(command, held, held, tmp_path / "new", capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_absent_or_foreign(command: str, database: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    foreign, text, odd = (tmp_path / f"{name}.duckdb" for name in ("foreign", "text", "odd"))
    with duckdb.connect(str(foreign)) as connection:
        connection.execute("CREATE TABLE birds (i INTEGER)")
    with duckdb.connect(str(odd)) as connection:
        for table in ("runs", "models", "predictions", "images", "failures", "meta"):
            connection.execute(f"CREATE TABLE {table} (i INTEGER)")
    text.write_text("not a database" * 100)
    new = tmp_path / "new"
    assert "has no table 'failures'" in error_of(command, database, foreign, new, capsys)
    assert "is not a DuckDB database" in error_of(command, database, text, new, capsys)
    assert "odd.duckdb cannot be read" in error_of(command, database, odd, new, capsys)
    if command != "import":
        assert "there is no database" in error_of(command, database, tmp_path / "none.duckdb", new, capsys)
