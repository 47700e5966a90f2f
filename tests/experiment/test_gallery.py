"""The gallery: its pictures are those that the networks saw, its numbers those of the store, its refusals sentences."""

import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from cnnsens_bench import degrade, images
from cnnsens_bench import pictures as command
from cnnsens_bench.datasets.base import datasets
from cnnsens_bench.engine.cell_pixels import cell_pixels
from cnnsens_bench.engine.degrade import previews
from cnnsens_bench.engine.sweep import Condition, Sweep
from cnnsens_bench.run import main as run
from leaderboard.gallery import BEGIN, END, SCRIPT, Gallery, take_up_gallery
from tests.conftest import TINY

SIZE = 40
SEED = 3
CONDITIONS = (
    "degradations=[{name: gaussian_rgb, levels: [16, 64]},flip_lr,{name: translation, levels: [4]},"
    "{name: jpeg, levels: [5, 60]}]"
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def output(pictures: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run of one network with random weights and two defenses, whose images have boxes."""
    folder = tmp_path_factory.mktemp("run")
    words = [
        "dataset=folder", f"dataset.root={pictures}", f"cache={cache}", f"output={folder}", f"input_size={SIZE}",
        f"models=[{{name: {TINY}, weights: random}}]", "defenses=[none,gaussian_filter]", "training.epochs=0",
        "trials=2", f"seed={SEED}", CONDITIONS, "tracking=off", "view=box",
    ]  # fmt: skip
    assert run(words) == 0
    return folder


@pytest.fixture(scope="module")
def words(output: Path, pictures: Path, cache: Path) -> list[str]:
    """The words of the command that need no more than an --out."""
    return [f"dataset.root={pictures}", f"cache={cache}", "--db", str(output), "--allow", "folder", "--side", "64"]


@pytest.fixture(scope="module")
def made(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gallery of that run, whose pictures are as large as the networks' input."""
    folder = tmp_path_factory.mktemp("made")
    assert command.main([*words, "--out", str(folder)]) == 0
    return folder


def content(folder: Path) -> dict[str, Any]:
    text = (folder / SCRIPT).read_text("ascii").strip()
    assert text.startswith(BEGIN)
    found = json.loads(text.removeprefix(BEGIN).removesuffix(END))
    Gallery.model_validate(found)
    return found


def shown(folder: Path) -> list[tuple[dict, dict]]:
    return [(one, image) for one in content(folder)["entrants"] for end in ("most", "least") for image in one[end]]


def predictions(output: Path) -> pd.DataFrame:
    with duckdb.connect(str(output / "results.duckdb"), read_only=True) as connection:
        table = connection.execute("FROM predictions LEFT JOIN images USING (dataset, image_id)").df()
    undegraded = table[table["degradation"] == "none"].set_index(["defense", "image_id"])["prediction"]
    before = undegraded.loc[pd.MultiIndex.from_frame(table[["defense", "image_id"]])].to_numpy()
    return table.assign(before=before, changed=table["prediction"].to_numpy() != before)


def test_pictures_are_what_the_network_saw(made: Path, output: Path) -> None:
    uris = predictions(output).drop_duplicates("image_id").set_index("image_id")
    seen = set()
    for _, image in shown(made):
        row = uris.loc[image["image_id"]]
        decoded = images.decode(row["uri"], tuple(row[f"box_{key}"] for key in "xywh"))
        view = images.render(decoded, SIZE)
        assert (made / image["picture"]).read_bytes() == images.thumbnail(view, 64)
        for cell in image["degraded"]:
            name, level = cell["degradation"], cell["level"]
            if name == "translation":
                if cell["trial"]:
                    continue
                [[expected]] = previews(
                    decoded, image["image_id"], "folder", [Condition(name, (level,), 1)], SIZE, SEED
                )
            else:
                given = None if name == "flip_lr" else level
                draw = {"seed": SEED, "trial": cell["trial"], "image_id": image["image_id"], "dataset": "folder"}
                expected = degrade(view, name, given, **draw)
            assert (made / cell["picture"]).read_bytes() == images.thumbnail(expected, 64)
            seen.add(name)
    assert len(seen) >= 3


def test_numbers_are_those_of_the_store(made: Path, output: Path) -> None:
    table = predictions(output)
    degraded = table[table["degradation"] != "none"]
    per_level = degraded.groupby(["defense", "image_id", "degradation", "level"])["changed"].mean()
    shares = per_level.groupby(level=[0, 1, 2]).mean().groupby(level=[0, 1]).mean()
    for entrant in content(made)["entrants"]:
        own = shares.loc[entrant["defense"]].sort_values()
        count = len(entrant["most"])
        assert [one["share"] for one in entrant["most"]] == pytest.approx(own.tail(count)[::-1].tolist())
        assert [one["share"] for one in entrant["least"]] == pytest.approx(own.head(6).tolist())
        rows = degraded[degraded["defense"] == entrant["defense"]]
        for image in entrant["most"] + entrant["least"]:
            cells = rows[rows["image_id"] == image["image_id"]]
            assert image["share"] == pytest.approx(own[image["image_id"]])
            assert (image["cells"], image["changes"]) == (len(cells), cells["changed"].sum())
            assert image["before"] == f"class_{cells['before'].iloc[0]}"
            assert image["class_name"] == cells["class_name"].iloc[0]
            assert image["right"] == (image["before"] == image["class_name"])
            for cell in image["degraded"]:
                key = (cells["degradation"] == cell["degradation"]) & (cells["trial"] == cell["trial"])
                [row] = cells[key & (cells["level"] == cell["level"])].to_dict("records")
                assert row["changed"]
                assert cell["after"] == f"class_{row['prediction']}"
                weaker = (
                    cells["level"] > row["level"] if row["degradation"] == "jpeg" else cells["level"] < row["level"]
                )
                assert not cells[(cells["degradation"] == row["degradation"]) & weaker]["changed"].any()
        changed = rows[rows["changed"]].groupby(["before", "prediction"]).size()
        found = {(one["before"], one["after"]): one["cells"] for one in entrant["becomes"]}
        assert found == {(f"class_{a}", f"class_{b}"): n for (a, b), n in changed.items()}
        assert sum(one["share"] for one in entrant["becomes"]) == pytest.approx(1)
        labels = rows.drop_duplicates("image_id").set_index("image_id")["class_name"]
        of_class = {one["class_name"]: one["share"] for one in entrant["least_classes"] + entrant["most_classes"]}
        assert of_class == pytest.approx(own.groupby(labels).mean().to_dict())


def test_images_are_shown_only_where_that_is_allowed(
    output: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [name for name, source in datasets.items() if source.shareable] == ["plumage"]
    assert command.main([f"dataset.root={pictures}", "--db", str(output), "--out", str(tmp_path / "out")]) == 2
    assert "say --allow folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert command.main(["--db", str(output), "--allow", "foldr", "--out", str(tmp_path / "out")]) == 2
    assert "did you mean 'folder'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--images", "0"], "--images is 0: it must be between 1 and 100"),
        (["--side", "9"], "--side is 9: it must be between 32 and 512"),
        (["limit=3"], "'limit=3' is no key=value"),
        (["--out", "/dev/null/out"], "cannot be written"),
        (["--db", "/nowhere"], "there is no database /nowhere/results.duckdb"),
    ],
)
def test_a_wrong_request_is_one_sentence(
    words: list[str], more: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*words, "--out", str(tmp_path), *more]) == 2
    said = capsys.readouterr().err
    assert sentence in " ".join(said.split())
    assert "Traceback" not in said


def test_what_is_not_here_is_said(
    words: list[str], made: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that cannot be read leaves its pictures out; a folder that is absent leaves the entrants out."""
    damaged, out = tmp_path / "damaged", tmp_path / "out"
    shutil.copytree(pictures, damaged)
    victim = content(made)["entrants"][0]["most"][0]["image_id"]
    (damaged / victim).write_bytes(b"no image")
    out.mkdir()
    (out / f"{'0' * 16}.jpg").write_bytes(b"of an earlier gallery")
    (out / "mine.jpg").write_bytes(b"of somebody else")
    assert command.main([*words, f"dataset.root={damaged}", "--out", str(out)]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "pictures are not made" in said
    assert victim in said
    assert {image["picture"] for _, image in shown(out) if image["image_id"] == victim} == {None}
    kept = {image["picture"] for _, image in shown(out)} - {None}
    assert kept <= {file.name for file in out.iterdir()}
    assert not (out / f"{'0' * 16}.jpg").exists()
    assert (out / "mine.jpg").exists()
    assert take_up_gallery(out, tmp_path / "site") == "pictures"
    assert command.main([*words, f"dataset.root={tmp_path / 'absent'}", "--out", str(out)]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "left out (dataset 'folder'" in said
    assert "is not written" in said
    assert len(content(out)["entrants"]) == 2


def test_pixels_are_finished_as_the_protocol_says() -> None:
    """Levels, trials and rounding of a sweep are those that its seed gives, for the wanted cells alone."""
    rng = np.random.default_rng(0)
    view = rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    decoded = [images.Decoded(view, 0, 0, SIZE, SIZE, (0.0, 0.0, float(SIZE), float(SIZE)))] * 2
    sweep = Sweep("r", "d", (), (Condition("pepper", (0.1, 0.3), 3),), seed=5, quantize=True)
    wanted = np.zeros((2, 7), bool)
    wanted[0, 0] = wanted[1, 6] = True
    found = cell_pixels(sweep, SIZE, ["a", "b"], decoded, wanted)
    assert set(found.pixels) == {(0, 0), (1, 6)}
    assert not found.failures
    np.testing.assert_array_equal(found.pixels[0, 0], view)
    expected = degrade(view, "pepper", 0.3, seed=5, trial=2, image_id="b", dataset="d")
    np.testing.assert_array_equal(found.pixels[1, 6], expected)
