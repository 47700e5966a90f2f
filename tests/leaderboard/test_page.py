"""The file that `build` writes, what `build` says about odd databases, and the commands that the page shows."""

import dataclasses
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from cnnsens_bench.config.compose import compose
from cnnsens_bench.figures.style import architecture_styles
from cnnsens_bench.store import Store
from cnnsens_bench.utils.errors import UserError
from leaderboard.__main__ import main
from leaderboard.page import data, page
from leaderboard.provenance import Matching, command, protocol_terms
from leaderboard.read import read
from tests.leaderboard.made import HOSTILE, sweep, write


class Scripts(HTMLParser):
    """Collects the elements of a page and the text of its data."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.data = ""

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][1].get("id") == "data":
            self.data += data


def parsed(text: str) -> Scripts:
    parser = Scripts()
    parser.feed(text)
    return parser


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    rows = sweep("r", "data & <b>set</b>", range(6), 0, models=HOSTILE, defenses=("none",))
    path = write(folder, rows, {"r": "p"})
    assert main(["build", "--db", str(path), "--out", str(folder / "site")]) == 0
    return folder / "site" / "index.html"


def test_the_page_needs_nothing_from_outside(hostile: Path) -> None:
    assert sorted(file.name for file in hostile.parent.iterdir()) == ["data", "index.html"]
    found = parsed(hostile.read_text())
    for _, attributes in found.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    text = hostile.read_text()
    assert "innerHTML" not in text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_hostile_names_are_data(hostile: Path) -> None:
    found = parsed(hostile.read_text())
    assert [tag for tag, _ in found.tags].count("script") == 2
    assert "img" not in [tag for tag, _ in found.tags]
    (board,) = json.loads(found.data)["boards"]
    assert {one["model"] for one in board["entrants"]} == set(HOSTILE)


def test_lone_surrogates_do_not_stop_the_page() -> None:
    assert "?" in page({"boards": ["\ud800"]})


def test_many_entrants_stay_small_and_quick(tmp_path: Path) -> None:
    models = [f"timm/network_{i}" for i in range(300)]
    rows = sweep("r", "d", range(5), 0, models=models, defenses=("none",), conditions={("pepper", 0.1): 1})
    path = write(tmp_path, rows, {"r": "p"})
    assert main(["build", "--db", str(path), "--out", str(tmp_path / "site")]) == 0
    assert (tmp_path / "site" / "index.html").stat().st_size < 1_000_000


def refused(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    assert main(list(arguments)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert len(printed.err.strip().splitlines()) == 1
    return printed.err


def test_databases_that_cannot_be_shown(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = ["--out", str(tmp_path / "site")]
    assert "there is no database" in refused(capsys, "build", "--db", str(tmp_path / "none.duckdb"), *out)
    text = tmp_path / "text.duckdb"
    text.write_text("not a database, only its name says so" * 100)
    assert "is not a DuckDB database" in refused(capsys, "build", "--db", str(text), *out)
    store = Store(tmp_path / "empty")
    store.open()
    assert "has no predictions yet" in refused(capsys, "build", "--db", str(store.path), *out)
    with duckdb.connect(str(store.path)) as connection:
        connection.execute("UPDATE meta SET schema_version = 99")
    assert "has schema version 99, this program reads 1" in refused(capsys, "build", "--db", str(store.path), *out)
    other = tmp_path / "other's.duckdb"
    with duckdb.connect(str(other)) as connection:
        connection.execute("CREATE TABLE runs (run_id VARCHAR); CREATE TABLE meta (schema_version INTEGER)")
    assert "has no table 'failures'" in refused(capsys, "build", "--db", str(other), *out)
    bare = tmp_path / "bare.duckdb"
    duckdb.connect(str(bare)).close()
    assert "error: " in refused(capsys, "build", "--db", str(bare), *out)
    assert not (tmp_path / "site").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = write(tmp_path / "store", sweep("r", "d", range(3), 0), {"r": "p"})
    (tmp_path / "file").write_text("")
    assert "choose another --out" in refused(capsys, "build", "--db", str(path), "--out", str(tmp_path / "file"))


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["seed=3", "trials=2", "quantize=true", "limit=50"],
        ["models=[timm/resnet18,{name: torchvision/alexnet, weights: random, training: {epochs: 3}}]"],
        ["degradations=['gaussian_intensity(4) + pepper(0.02)',{name: gaussian_rgb, levels: [1, 2.5]}]"],
        ["defenses=[none,'gaussian_filter(size=3, sigma=0.5)']", "training.lr_head=0.002", "input_size=null"],
    ],
)
def test_the_command_makes_the_same_config(overrides: list[str]) -> None:
    config = compose(["suite=quick", *overrides, "output=elsewhere", "tracking=off"])
    line = command("quick", json.loads(json.dumps(dataclasses.asdict(config))))
    assert line is not None
    start, *again = shlex.split(line)[2:]
    assert start == "cnnsens_bench.run"
    assert dataclasses.replace(compose(again), output=None, tracking=None) == dataclasses.replace(
        config, output=None, tracking=None
    )


def test_the_command_does_not_tell_where_files_lie() -> None:
    config = dataclasses.asdict(compose(["suite=cub", "dataset.root=/home/me/secret/CUB_200_2011"]))
    line = command("cub", config)
    assert line is not None
    assert "secret" not in line
    assert "dataset.root=<folder>/CUB_200_2011" in line
    assert command("no such suite", config) is None


def test_an_architecture_has_one_colour_and_its_defenses_are_dashed(tmp_path: Path) -> None:
    rows = pd.concat([sweep("r", "birds", range(12), 0), sweep("q", "pets", range(12), 1, models=["timm/b"])])
    path = write(tmp_path / "a", rows, {"r": "p", "q": "p"})
    birds, pets = data(read([path]), "torchvision/alexnet")["boards"]
    looks = {(one["architecture"], one["defense"]): one["look"] for one in birds["entrants"]}
    expected = architecture_styles(["alexnet", "b", "c"])
    for (architecture, defense), look in looks.items():
        assert look == [expected[architecture].position, int(defense != "none")]
    # On a board of a single architecture, the defenses differ in their colours.
    assert sorted(one["look"] for one in pets["entrants"]) == [[0, 0], [1, 0]]


def test_trials_are_said_of_the_rows(tmp_path: Path) -> None:
    conditions = {("gaussian_rgb", 1.0): 1, ("gaussian_rgb", 4.0): 1, ("gaussian_rgb", 8.0): 1, ("pepper", 0.1): 1}
    more = {key: 10 if key[1] in (1.0, 4.0) else 1 for key in conditions}
    rows = pd.concat(
        [
            sweep("r", "d", range(10, 14), 0, ("timm/a",), ("none",), conditions),
            sweep("r", "d", range(10, 14), 1, ("timm/b",), ("none",), more),
        ]
    )
    path = write(tmp_path, rows, {"r": "p"}, config={"limit": 4})
    terms = dict(data(read([path]), "timm/a")["boards"][0]["terms"])
    assert terms["Trials"].startswith(
        "1 for each image and level; 10 for gaussian_rgb σ=1, σ=4 of some entrants; draws depend"
    )
    assert terms["Images"] == "4 test images of d, chosen by the hash of their id"
    terms = dict(protocol_terms("d", [{"batch_size": 8}, {"batch_size": 16}], [("pepper", "p=1", 3, 3)], 2))
    assert "in batches of 8 or 16" in terms["Speed"]
    assert terms["Trials"].startswith("3 for each image and level; draws")


def test_boards_with_most_entrants_come_first_and_files_are_told_apart(tmp_path: Path) -> None:
    many = write(tmp_path / "many", sweep("r", "z", range(3), 0), {"r": "zz"})
    few = write(tmp_path / "few", sweep("q", "a", range(3), 0, ("timm/b",)), {"q": "aa"})
    content = data(read([few, many]), "timm/b")
    assert [one["dataset"] for one in content["boards"]] == ["z", "a"]
    assert content["databases"] == ["few/results.duckdb", "many/results.duckdb"]


def test_a_database_without_a_column_or_view(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = write(tmp_path / "store", sweep("r", "d", range(3), 0, ("timm/b",)), {"r": "p"})
    with duckdb.connect(str(path)) as connection:
        connection.execute("DROP MACRO TABLE mce")
    with pytest.raises(UserError, match=r"made by an earlier version.*brings it up to date"):
        Store(path.parent).query("FROM mce('timm/b')")
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE p AS SELECT * EXCLUDE (true_rank) FROM predictions")
        connection.execute("DROP TABLE predictions; ALTER TABLE p RENAME TO predictions")
    assert "true_rank" in refused(capsys, "build", "--db", str(path), "--out", str(tmp_path / "site"))


def test_the_terms_say_how_images_were_made() -> None:
    """Each key of the protocol changes its own term, and the defaults have the terms of earlier versions."""
    frost = [("common:frost", "severity 1", 1, 1), ("pepper", "p=1", 1, 1)]
    before = dict(protocol_terms("d", [{"seed": 0}], frost[1:], 2))
    assert before["Crop"] == "the ground-truth box clipped to the image; the whole image where there is none"
    assert before["Resize"] == "straight to the network's input size, aspect not kept, bicubic, antialiased"
    assert before["Rounding"] == "none: degraded images stay float32"
    assert not {"Frost", "Outputs"} & set(before)
    defaults = {"seed": 0, "view": "box", "frost": "generated", "stored_quality": None, "input_size": None}
    assert dict(protocol_terms("d", [defaults], frost[1:], 2)) == before

    config = defaults | {"view": "published", "frost": "photographs", "stored_quality": 85, "input_size": "train"}
    matchings = [Matching(200, 1000, "wnid"), Matching(200, 200, None), Matching(200, 200, "number")]
    terms = dict(protocol_terms("d", [config], frost, 2, matchings))
    assert terms["Crop"].startswith("as each network's own library evaluates it: the whole image")
    assert "to the size that the network's library trained it with" in terms["Resize"]
    assert terms["Order"] == ("crop, resize, degrade, clamp to [0, 255], store as JPEG, defend, normalise, network")
    assert "JPEG of quality 85" in terms["Rounding"]
    assert terms["Frost"] == "photographs of ice, those of ImageNet-C, at random positions"
    assert terms["Outputs"] == (
        "of a network: 200 of 1000 are kept, matched by WordNet id; the others are left out before the argmax; or "
        "trained on the 200 classes; or all 200 are classes of the data set, matched by number"
    )
    sizes = dict(protocol_terms("d", [defaults | {"input_size": size} for size in ("test", 64)], frost, 2))
    assert "straight to the size that the network's library tests it with or 64×64 pixels" in sizes["Resize"]
    assert sizes["Frost"].startswith("generated ice")
