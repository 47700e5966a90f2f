"""The public interface: what it names, how fast it is imported, and that a built wheel runs outside the repository."""

import ast
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

import cnnsens_bench

ROOT = Path(__file__).parents[1]
PACKAGES = ("cnnsens_bench", "leaderboard")
SUBMODULES = {"datasets", "defenses", "degradations", "measures", "models", "sensitivity"}


def test_every_public_name_is_there() -> None:
    for name in cnnsens_bench.__all__:
        assert getattr(cnnsens_bench, name) is not None
    assert set(cnnsens_bench.__all__) <= set(dir(cnnsens_bench))
    with pytest.raises(AttributeError, match="no attribute 'degradaton'"):
        _ = cnnsens_bench.degradaton


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((ROOT / "cnnsens_bench" / "__init__.py").read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        seen |= {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    assert set(seen) == set(cnnsens_bench.__all__) - {"__version__"}
    given = {name: f"{module}.{name}" for name, module in cnnsens_bench._SOURCE_OF.items()}
    assert given == {name: source for name, source in seen.items() if name not in SUBMODULES}


def test_the_import_is_light() -> None:
    """The interface itself takes less than 0.3 s, and brings in nothing that is slow."""
    code = (
        "import json, sys, time; begin = time.perf_counter(); import cnnsens_bench; end = time.perf_counter();"
        "print(json.dumps([end - begin, [name for name in ('torch', 'ray', 'pandas') if name in sys.modules]]))"
    )
    runs = [json.loads(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT)) for _ in range(3)]
    assert min(seconds for seconds, _ in runs) < 0.3
    assert all(heavy == [] for _, heavy in runs)


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert f"version: {cnnsens_bench.__version__}" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"## [{cnnsens_bench.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


@pytest.mark.slow
def test_a_wheel_runs_outside_the_repository(tmp_path: Path) -> None:
    """It is built, installed without its dependencies, and runs `suite=quick` with what it brings itself."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path]
    subprocess.run([*build, source], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"cnnsens_bench-{cnnsens_bench.__version__}-")
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    site = Path(subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    ).strip())  # fmt: skip
    # The dependencies come from this environment; the package itself comes first, from the wheel.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    names = os.environ | {"OMP_NUM_THREADS": "1", "CNNSENS_CACHE": str(tmp_path / "cache")}
    names.pop("PYTHONPATH", None)

    def call(*words: str | Path) -> str:
        run = subprocess.run(words, cwd=elsewhere, env=names, capture_output=True, text=True, timeout=600)
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    where = "import cnnsens_bench, leaderboard; print(cnnsens_bench.__file__, leaderboard.__file__)"
    assert call(python, "-c", where).count(str(site)) == 2
    script = environment / "bin" / "cnnsens-bench"
    assert call(script, "--version").strip() == cnnsens_bench.__version__
    assert call(script, "completion", "bash").endswith("cnnsens-bench\n")
    assert call(script, "predict", "--help").startswith("usage: ")
    tiny = ["models=[timm/test_resnet]", "weights=random", "training.epochs=0", "limit=2", "trials=1", "tracking=off"]
    call(script, "run", "suite=quick", *tiny)
    call(script, "figures", "curves", "--db", "runs/quick/results.duckdb", "--out", "curves.png")
    call(script, "leaderboard", "build", "--db", "runs/quick/results.duckdb", "--out", "site")
    call(script, "leaderboard", "export", "--db", "runs/quick/results.duckdb", "--out", "submission")
    assert "2 of 2 entrants agree" in call(script, "verify", "submission", "--sample", "3")
    call(script, "leaderboard", "template", "board")
    assert (elsewhere / "board" / ".github" / "workflows" / "leaderboard.yml").is_file()
    assert json.loads((elsewhere / "runs" / "quick" / "results.json").read_text())["boards"]
    assert (elsewhere / "curves.png").stat().st_size > 1000
    assert "test_resnet" in (elsewhere / "site" / "index.html").read_text("utf-8")
    for package in PACKAGES:
        assert (site / package / "py.typed").is_file()
