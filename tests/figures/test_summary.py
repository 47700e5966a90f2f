"""The tables at the end of a run: their numbers, their width, and that no name can control the terminal."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from rich.cells import cell_len
from rich.console import Console

from cnnsens_bench.figures import summary
from cnnsens_bench.figures.summary import interval, print_summary, short_defense, summary_tables
from cnnsens_bench.store import Store, new_attempt, write_part
from cnnsens_bench.utils.formatting import level_text, plain
from tests.store.empty import empty_store
from tests.store.part_schemas import PREDICTIONS

FILTER = "gaussian_filter(size=3, sigma=0.5)"
LEVELS = {
    "none": [0.0], "gaussian_rgb": [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0], "pepper": [0.001, 0.04], "rotation": [45.0],
    "flip_lr": [0.0], "my_plugin": [3.0],
}  # fmt: skip
ESCAPE = "\x1b[31m"
HOSTILE = f"[red]<script>\n{ESCAPE}\u202eabc"


def fill(output: Path, models: dict[str, tuple[str, float]], dataset: str = "plumage", skip: str = "") -> Store:
    """Fill a store; `models` maps a name to its architecture and the chance that a degraded prediction is wrong."""
    store = empty_store(output, "r")
    rng = np.random.default_rng(0)
    rows = [
        dict.fromkeys(PREDICTIONS.names)
        | {"run_id": "r", "dataset": dataset, "image_id": f"i{i}", "model": model, "architecture": architecture}
        | {"defense": defense, "degradation": degradation, "level": level, "trial": trial, "label": 0}
        | {"prediction": int(degradation != "none" and rng.random() < wrong)}
        for model, (architecture, wrong) in models.items()
        for defense in ("none", FILTER)
        for i in range(25)
        for degradation, levels in LEVELS.items()
        for level in levels
        for trial in range(1 if degradation in ("none", "flip_lr") else 2)
        if (model, degradation) != (skip, "pepper")
    ]
    write_part(new_attempt(output), "predictions", "a", pa.Table.from_pylist(rows, schema=PREDICTIONS))
    store.ingest()
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    models = {"torchvision/alexnet": ("alexnet", 0.5), "timm/tf_efficientnet_lite0": ("tf_efficientnet_lite0", 0.1)}
    return fill(tmp_path_factory.mktemp("summary"), models, skip="torchvision/alexnet")


def printed(store: Store, width: int, dataset: str = "plumage", details: bool = True) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    print_summary(console, store, "p", dataset, details)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_it_fits_and_cuts_nothing(store: Store, width: int) -> None:
    text = printed(store, width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    for heading in ("σ=1", "σ=64", "p=0.001", "p=0.04", "±45°", "my_plugin", "mean", "worst condition"):
        assert heading in text


def test_the_numbers_are_those_of_the_store(store: Store) -> None:
    text = printed(store, 120)
    for view in ("accuracy", "label_change"):
        for row in store.query(f"FROM {view} WHERE degradation <> 'none'").itertuples():
            assert interval(row.value, row.low, row.high) in text
    for row in store.query("FROM leaderboard").itertuples():
        assert interval(row.accuracy, row.accuracy_low, row.accuracy_high) in text
        assert f"{100 * row.mean_degraded_accuracy:.1f}" in text
        assert f"{100 * row.mean_label_change:.1f}" in text
    assert "–\n" in "\n".join(line.rstrip() for line in text.splitlines())  # alexnet has no pepper


def test_the_best_come_first(store: Store) -> None:
    order = store.query("SELECT architecture FROM leaderboard ORDER BY n_conditions DESC, mean_degraded_accuracy DESC")[
        "architecture"
    ]
    for table in printed(store, 120).split("\n\n")[1:]:
        names = [word for word in table.split() if word in set(order)]
        assert names == sorted(names, key=list(order).index)


def test_rows_of_unlike_conditions_are_told_apart(tmp_path: Path) -> None:
    """The network with most conditions comes first, though the other one has the better mean."""
    easy = fill(tmp_path / "unlike", {"timm/a": ("a", 0.5), "timm/b": ("b", 0.05)}, skip="timm/b")
    assert easy.query("FROM leaderboard ORDER BY mean_degraded_accuracy DESC")["architecture"].tolist()[0] == "b"
    ranking = printed(easy, 120).split("\n\n")[0]
    assert [word for word in ranking.split() if word in ("a", "b")] == ["a", "a", "b", "b"]
    assert "comparable only among rows with the same conditions" in ranking
    counts = sum(len(levels) for levels in LEVELS.values()) - 1
    assert [line.split()[3] for line in ranking.splitlines() if "[" in line] == [str(counts)] * 2 + [
        str(counts - 2)
    ] * 2
    same = fill(tmp_path / "same", {"timm/a": ("a", 0.5), "timm/b": ("b", 0.05)})
    assert "comparable only" not in printed(same, 120).split("\n\n")[0]


def test_without_a_terminal_it_is_plain_and_wide(store: Store) -> None:
    console = Console(file=io.StringIO(), width=60)
    print_summary(console, store, "p", "plumage", details=True)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "\x1b" not in text
    assert 80 < max(map(cell_len, text.splitlines())) <= 120
    assert console.width == 60


@pytest.mark.parametrize("width", [80, 100, 160])
def test_without_details_it_is_one_table_of_100_columns(store: Store, width: int) -> None:
    text = printed(store, width, details=False)
    lines = text.splitlines()
    assert max(map(cell_len, lines)) <= min(width, 100)
    assert "…" not in text
    assert text.count("architecture") == text.count("worst condition") == 1
    assert " ".join(text.split()).endswith(
        "not shown: the 12 conditions one by one (flip_lr, gaussian_rgb, my_plugin, pepper, rotation): details=on"
    )
    details = printed(store, width)
    for row in store.query("FROM leaderboard").itertuples():
        assert interval(row.accuracy, row.accuracy_low, row.accuracy_high) in text
    assert len(lines) < len(details.splitlines()) / 2
    console = Console(file=io.StringIO(), width=60)
    print_summary(console, store, "p", "plumage")
    assert isinstance(console.file, io.StringIO)
    assert 80 < max(map(cell_len, console.file.getvalue().splitlines())) <= 100


def test_without_details_the_best_entrants_are_shown(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "BRIEF_ENTRANTS", 3)
    text = printed(store, 100, details=False)
    assert "not shown: 1 more entrant; the 12 conditions" in text
    assert sum("[" in line for line in text.splitlines()) == 3
    assert sum("[" in line for line in printed(store, 100).split("\n\n")[0].splitlines()) == 4
    monkeypatch.setattr(summary, "BRIEF_ENTRANTS", 1)
    assert "not shown: 3 more entrants; the 12" in printed(store, 100, details=False)


def test_colour_only_adds(store: Store) -> None:
    file = io.StringIO()
    print_summary(Console(file=file, width=120, force_terminal=True, color_system="standard"), store, "p", "plumage")
    assert "\x1b[32m" in file.getvalue()


def test_names_are_text(tmp_path: Path) -> None:
    store = fill(tmp_path, {HOSTILE: (HOSTILE, 0.3), "[/]": ("[/]", 0.2)}, dataset=HOSTILE)
    text = printed(store, 120, HOSTILE)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[red]<script>\\n\\x1b[31m\\u202eabc" in text
    assert "[/]" in text


def test_models_of_one_architecture_are_told_apart(tmp_path: Path) -> None:
    text = printed(fill(tmp_path, {"timm/resnet18": ("resnet18", 0.1), "torchvision/resnet18": ("resnet18", 0.2)}), 120)
    assert "timm/resnet18" in text
    assert "torchvision/resnet18" in text


def test_nothing_is_no_table(store: Store) -> None:
    assert summary_tables(store, "p", "unknown") == []
    assert summary_tables(store, "another", "plumage") == []


def test_short_texts() -> None:
    assert [level_text(*pair) for pair in (("hue_local", 4.0), ("pepper", 0.001), ("rotation", 45.0))] == [
        "σ=4", "p=0.001", "±45°",
    ]  # fmt: skip
    assert (level_text("flip_ud", 0.0), level_text("plugin", 2.5)) == ("", "2.5")
    assert short_defense(FILTER) == "gaussian_filter(3, 0.5)"
    assert short_defense("none") == "none"
    assert short_defense(f"input_dropout(p=0.1) + {FILTER}") == "input_dropout(0.1) + gaussian_filter(3, 0.5)"
    assert plain("žluťoučký עברית") == "žluťoučký עברית"
