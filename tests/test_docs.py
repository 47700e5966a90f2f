"""The documentation: its code runs, its commands are read, its links lead somewhere, and its lists are complete."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnsens_bench import cli, open_results
from cnnsens_bench.config.compose import compose
from cnnsens_bench.store import Store
from cnnsens_bench.utils.cache import cache_dir
from tests.leaderboard.made import sweep, timings, write

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in [*DOCS.rglob("*.md"), *ROOT.glob("*.md")]
    if "generated" not in path.parts
}
PLUGINS = [page for page in PAGES if page.startswith("docs/extend/")]
OF_RUNS = ("parts", "work", "figures", "outputs", "train", "val", "valid", "test", "site")
"""Folders that pages name and that are not the program's."""
CONDITIONS = {("gaussian_rgb", 8.0): 2, ("gaussian_rgb", 16.0): 2, ("pepper", 0.04): 2, ("pepper", 0.16): 2}
MODELS = ("torchvision/alexnet", "torchvision/googlenet", "timm/c")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGES[page], re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[list[str]]:
    """The words of each of our commands in a page's shell blocks, in the README's and CONTRIBUTING's indented ones."""
    text = "".join(blocks(page, "bash")) + "\n".join(re.findall(r"^    (\S.*)$", PAGES[page], re.MULTILINE))
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if "--" in words[1:]:  # ray job submit … -- command
            words = words[words.index("--") + 1 :]
        if words[:2] == ["python", "-m"] and words[2].startswith(("cnnsens_bench.", "leaderboard")):
            found.append([words[2].removeprefix("cnnsens_bench."), *words[3:]])
        elif words[:1] == ["cnnsens-bench"]:
            found.append(words[1:])
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small databases where the pages have theirs."""
    folder = tmp_path_factory.mktemp("docs")
    rows = sweep("r1", "birds", range(6), 0, models=MODELS, conditions=CONDITIONS)
    write(folder / "runs" / "quick", rows, {"r1": "p1"}, speed=timings(rows))
    shutil.copytree(folder / "runs" / "quick", folder / "runs" / "defenses")
    return folder


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which nothing is computed. Only the pictures of plumage, which take long to draw, are the user's."""
    folder = tmp_path_factory.mktemp("cache")
    drawn = cache_dir() / "plumage"
    drawn.mkdir(parents=True, exist_ok=True)
    (folder / "plumage").symlink_to(drawn)
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_python_blocks_run(
    page: str, runs: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that register something are for `test_extensions_run_together`: a registry is for a whole process."""
    monkeypatch.chdir(runs)
    monkeypatch.setenv("CNNSENS_CACHE", str(own_cache))
    monkeypatch.syspath_prepend(str(runs))
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        if file := re.match(r"# (\w+\.py)\n", block):
            (runs / file[1]).write_text(block, "utf-8")
        elif page not in PLUGINS:
            exec(compile(block, page, "exec"), names)  # noqa: S102


@pytest.fixture(scope="module")
def changed_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the changes that the guide to a column of `predictions` makes."""
    folder = tmp_path_factory.mktemp("changed")
    shutil.copytree(ROOT / "cnnsens_bench", folder / "cnnsens_bench", ignore=shutil.ignore_patterns("__pycache__"))
    for block in blocks("docs/extend/predictions-column.md", "diff"):
        name, *lines = block.splitlines()
        file = folder / name.removeprefix("--- ")
        before, after = ("".join(f"{line[1:]}\n" for line in lines if line[0] in kept) for kept in (" -", " +"))
        text = file.read_text("utf-8")
        assert text.count(before) == 1, f"update docs/extend/predictions-column.md: {file.name} lacks {before!r}"
        file.write_text(text.replace(before, after), "utf-8")
    return folder


def test_extensions_run_together(runs: Path, changed_package: Path) -> None:
    """Every extension of the guides takes part in one run; the code of each page is as it stands there."""
    for page in PLUGINS:
        for block in blocks(page, "python"):
            name = re.match(r"# (\w+\.py)\n", block)
            assert name, f"{page}: a block of a guide begins with the name of its file"
            (runs / name[1]).write_text(block, "utf-8")
    birds = runs / "birds"
    birds.mkdir()
    rng = np.random.default_rng(0)
    for number in range(8):
        Image.fromarray(rng.integers(0, 255, (60, 70, 3), np.uint8)).save(birds / f"{number}.png")
    listed = {"file": [f"{n}.png" for n in range(8)], "species": ["finch", "finch", "wren", "wren"] * 2}
    pd.DataFrame(listed).to_csv(birds / "labels.csv", index=False)
    plugins = sorted(path.stem for path in runs.glob("my_*.py"))
    words = [
        f"plugins=[{','.join(plugins)}]", "dataset=birds_csv", "data_root=.", "dataset.options.every=2",
        "models=[lab/small]", "weights=random", "training.epochs=0", "trials=2", "tracking=off",
        "degradations=[row_noise,drop,{name: gaussian_rgb, levels: [8]}]", "defenses=[none,brighten]",
        "sensitivity=on", "sensitivity.predictors=['copies(count=2)']", "output=runs/extended",
    ]  # fmt: skip
    own = {"PYTHONPATH": f"{changed_package}:{ROOT}", "CNNSENS_CACHE": str(runs / "cache"), "OMP_NUM_THREADS": "1"}

    def call(*given: str) -> str:
        run = subprocess.run([sys.executable, *given], cwd=runs, env=os.environ | own, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    call("-m", "cnnsens_bench.run", *words)
    call("-m", "leaderboard", "build", "--plugin", "my_measures", "--db", "runs/quick/results.duckdb", "--out", "site")
    assert "Strongest noise" in (runs / "site" / "index.html").read_text("utf-8")
    rows = open_results(runs / "runs" / "extended").predictions
    assert set(rows["degradation"]) == {"none", "row_noise", "drop", "gaussian_rgb"}
    assert set(rows["defense"]) == {"none", "brighten(by=10.0)"}
    assert set(rows["model"]) == {"lab/small"}
    assert rows["entropy"].between(0, np.log(2) + 1e-6).all()
    assert set(rows["dataset"]) == {"birds_csv"}
    assert set(rows[rows["degradation"] == "row_noise"]["level"]) == {2.0, 8.0}
    check = open_results(runs / "runs" / "extended").predictor_check
    assert "copies(count=2)" in set(check["predictor"])


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "sql")])
def test_sql_blocks_are_answered(page: str, runs: Path) -> None:
    results = open_results(runs / "runs" / "quick")
    for block in blocks(page, "sql"):
        results.query(block)


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_commands_are_read(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and options exist. Nothing is computed: there is no database and no photograph in the folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "tuned").mkdir(parents=True)
    (tmp_path / "runs" / "tuned" / "recipes.yaml").write_text("torchvision/alexnet: {epochs: 3}\n")
    for name, *words in commands(page):
        if {"--help", "completion"} & {name, *words} or "plumage" in words:
            continue
        if name in ("run", "tune"):
            compose(words)
        else:  # wrong options end argparse with SystemExit, an absent file is an exit code
            assert cli.main([name, *words]) == 2, f"{name} {words}"


def test_links_lead_to_files() -> None:
    for page, text in PAGES.items():
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if not target.startswith(("http", "mailto")):
                assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"


def test_files_of_the_program_are_where_the_pages_say() -> None:
    for page, text in PAGES.items():
        for name in re.findall(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|sql)|(?:\w+/)+)`", text):
            below = (ROOT, ROOT / "cnnsens_bench", ROOT / "leaderboard")
            own = page in PLUGINS and name.startswith("my_")
            known = own or page == "CHANGELOG.md" or name.split("/")[0] in OF_RUNS
            assert known or any((folder / name).exists() for folder in below), f"{page}: {name}"


def test_every_page_is_in_the_contents() -> None:
    listed = set(re.findall(r"^[\w/-]+$", "".join(blocks("docs/index.md", r"\{toctree\}")), re.MULTILINE))
    pages = {page.removeprefix("docs/").removesuffix(".md") for page in PAGES if page.startswith("docs/")}
    assert listed == pages - {"index"}
    for page in pages - {"index", "extend/index", "explanation/speed"}:
        assert f"(docs/{page}.md)" in PAGES["README.md"], page


def test_tables_views_and_files_are_all_described(tmp_path: Path) -> None:
    Store(tmp_path).open()
    described = set(re.findall(r"`(\w+)`", PAGES["docs/reference/tables.md"].partition("## Columns")[0]))
    assert set(open_results(tmp_path).names) <= described


def test_the_readme_is_short() -> None:
    assert PAGES["README.md"].count("\n") <= 150
