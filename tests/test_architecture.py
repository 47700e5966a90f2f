"""The walls of the house: who may import whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "cnnsens_bench"
FILES = sorted(PACKAGE.rglob("*.py")) + sorted((ROOT / "leaderboard").rglob("*.py"))

ONLY_IN = {
    "ray": {"runtime/cluster.py", "runtime/ray_pipeline.py", "runtime/ray_worker.py", "runtime/ray_training.py",
            "runtime/ray_tune.py"},
    "ray.data": {"runtime/ray_pipeline.py"},
    "ray.tune": {"runtime/ray_tune.py"},
    "mlflow": {"tracking.py"},
    "duckdb": {"store/connection.py", "store/database.py", "store/ingestion.py", "store/read.py", "store/schema.py",
               "store/submission/transfer.py", "store/submission/check.py", "leaderboard/read.py"},
    "PIL": {"images/__init__.py", "images/file_facts.py", "images/grids.py", "images/memory.py", "images/published.py",
            "images/views.py", "training/data.py", "utils/image_formats.py", "datasets/plumage/__init__.py",
            "datasets/plumage/birds.py", "datasets/plumage/scene.py"},
    "hydra": {"config/compose.py"},
}  # fmt: skip

ROOMS = {
    # A room → what of this package it may import, beside itself and `utils`, which every room may.
    "utils": set(),
    "datasets": set(),
    "images": set(),
    "degradations": set(),
    "models": {"images"},
    "defenses": set(),
    "sensitivity": set(),
    "measures": set(),
    "store": set(),
    "training": {"datasets", "images", "models"},
    "config": {"training"},
    "engine": {"images", "degradations", "models", "defenses", "sensitivity"},
    "runtime": {"engine", "images", "degradations", "models", "defenses", "sensitivity", "store", "training"},
    "camera": {"degradations", "images"},
    "figures": {"camera", "datasets", "images", "store", "measures"},
    "api.py": {"camera", "experiment", "engine", "degradations", "images", "results"},
    "results.py": {"store", "figures", "measures"},
    "tracking.py": set(),
    "experiment": {"camera", "config", "datasets", "images", "degradations", "models", "defenses", "sensitivity",
                   "training", "engine", "runtime", "store", "measures", "figures", "tracking"},
}  # fmt: skip
EVERYWHERE = {"utils"}
ENTRIES = {
    "camera/__main__.py",
    "degradations/__main__.py",
    "cli.py",
    "run.py",
    "tune.py",
    "predict.py",
    "pictures.py",
    "verify.py",
}
"""Command lines: arguments and exit codes. Nobody imports them."""
MOST_AT_THE_ROOT = 10


def imports(path: Path) -> set[str]:
    """Full names of all modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files(place: Path) -> list[Path]:
    """Of a room, without its command line."""
    every = [place] if place.is_file() else sorted(place.rglob("*.py"))
    return [file for file in every if inner(file) not in ENTRIES]


def inner(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_known_to_few_files(library: str) -> None:
    users = {inner(f) for f in FILES if any(f"{name}.".startswith(f"{library}.") for name in imports(f))}
    assert users <= ONLY_IN[library]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    allowed = ROOMS[room] | EVERYWHERE | {room.removesuffix(".py"), "__version__"}
    for file in files(PACKAGE / room):
        rooms = {name.split(".")[1] for name in imports(file) if name.startswith("cnnsens_bench.")}
        assert rooms <= allowed, f"{inner(file)} reaches into {rooms - allowed}"


def test_nobody_imports_an_entry() -> None:
    names = {"cnnsens_bench." + entry.removesuffix(".py").replace("/", ".") for entry in ENTRIES}
    assert not {inner(file) for file in FILES if imports(file) & names}


@pytest.mark.parametrize("entry", sorted(ENTRIES))
def test_a_command_line_only_asks_the_experiment(entry: str) -> None:
    rooms = {name.split(".")[1] for name in imports(PACKAGE / entry) if name.startswith("cnnsens_bench.")}
    assert rooms <= {"experiment", "utils", "__version__"}


def test_every_room_has_its_rule() -> None:
    rooms = {p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert rooms <= set(ROOMS)


def test_few_modules_lie_at_the_root() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_AT_THE_ROOT


@pytest.mark.parametrize("light", ["store", "measures", "figures", "datasets", "config"])
def test_light_rooms_import_no_torch_and_no_ray(light: str) -> None:
    place = PACKAGE / light
    for file in [place] if place.is_file() else sorted(place.rglob("*.py")):
        assert not {name for name in imports(file) if name.split(".")[0] in ("torch", "ray", "timm")}


@pytest.mark.parametrize("maths", ["degradations", "defenses", "sensitivity", "measures"])
def test_maths_knows_no_files(maths: str) -> None:
    for file in files(PACKAGE / maths):
        assert not {name for name in imports(file) if name.split(".")[0] in ("pathlib", "io", "os", "fsspec", "PIL")}


def test_no_sql_is_built_from_values() -> None:
    """f-strings that hold SQL words; statements live in .sql files or are constants."""
    words = ("SELECT ", "INSERT ", "DELETE ", "UPDATE ")
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                text = "".join(part.value for part in node.values if isinstance(part, ast.Constant))
                assert not text.startswith(words), f"{inner(file)}:{node.lineno}"


@pytest.mark.parametrize("file", FILES, ids=inner)
def test_files_stay_small(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 350
