"""Requests, files and names that mean harm, or are slips that look like it: one sentence, and nothing is run."""

import io
import json
import os
import pickle
import re
import struct
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image

from cnnsens_bench import images
from cnnsens_bench.config.compose import compose
from cnnsens_bench.degradations import Reach
from cnnsens_bench.experiment.resolve import resolve_models
from cnnsens_bench.images import decode_row
from cnnsens_bench.run import main
from cnnsens_bench.store import Store
from cnnsens_bench.training.recipes import read_recipes
from cnnsens_bench.utils.errors import ImageError, UserError
from leaderboard.__main__ import main as leaderboard
from tests.conftest import TINY
from tests.test_run import words


class Evil:
    """Makes the file `PWNED` of its folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.folder}/PWNED'",)


def request(pictures: Path, folder: Path, *more: str) -> list[str]:
    """Return the arguments of a small run of one network."""
    one = (f"models=[{{name: {TINY}, weights: random}}]", "defenses=[none]", "degradations=[flip_lr]", "tracking=off")
    return words(pictures, folder / "cache", folder / "out", "training.epochs=0", "limit=2", *one, *more)


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one sentence that a command ends with."""
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_pickle_as_weights_runs_no_code(
    kind: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "weights.pth"
    if kind == "pickle":
        file.write_bytes(pickle.dumps(Evil(tmp_path)))
    else:
        torch.save({"conv.weight": Evil(tmp_path)}, file)
    said = refused(request(pictures, tmp_path, f"models=[{{name: {TINY}, weights: {file}}}]"), capsys)
    assert "it would run code" in said
    assert not (tmp_path / "PWNED").exists()


def test_a_pickle_in_the_cache_runs_no_code(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(request(pictures, tmp_path)) == 0
    (checkpoint,) = (tmp_path / "cache" / "checkpoints").glob("*.pt")
    checkpoint.write_bytes(pickle.dumps(Evil(tmp_path)))
    capsys.readouterr()
    assert str(checkpoint) in refused(request(pictures, tmp_path), capsys)
    assert not (tmp_path / "PWNED").exists()


RECIPES = {
    "recipes: {M: {epochs: !!python/object/apply:os.system ['touch PWNED']}}": "cannot be read",
    "!!python/object/apply:os.system ['touch PWNED']": "cannot be read",
    "recipes: {M: !!python/name:os.system }": "cannot be read",
    "recipes: {M: {lr_head: .inf}}": "lr_head is inf: it must be above 0 and finite",
    "recipes: {M: {lr_body: .nan}}": "lr_body is nan",
    "recipes: {M: {weight_decay: .inf}}": "weight_decay is inf",
    "recipes: {M: {input_noise: .inf}}": "input_noise is inf",
    "recipes: {M: {epochs: .inf}}": "could not be converted to Integer",
    "recipes: {M: {epochs: true}}": "could not be converted to Integer",
    "recipes: {M: {epochs: [1]}}": "could not be converted to Integer",
    "recipes: {M: {epochs: 1" + 60 * "0" + "}}": "it must be at most",
    "recipes: {M: {batch_size: 99999999}}": "it must be at least 2 .*, at most",
    "recipes: {M: {lr_head: 1" + 400 * "0" + "}}": "recipe of",
    "recipes: {M: null}": "holds no recipes",
    "recipes: [1, 2]": "holds no recipes",
    "recipes: " + 3000 * "[" + 3000 * "]": "cannot be read",
}


@pytest.mark.parametrize("text", RECIPES)
def test_recipes_of_wild_types(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "recipes.yaml"
    file.write_text(text.replace("M:", f"{TINY}:"))
    with pytest.raises(UserError, match=RECIPES[text]) as caught:
        read_recipes(file)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("suite=../../../etc/passwd", "unknown suite '../../../etc/passwd'"),
        ("cluster.threads=1000000", "cluster.threads is 1000000: it must be at least 1, at most 1024"),
        ("cluster.workers=9999999999", "cluster.workers is 9999999999"),
        ("cluster.gpus_per_worker=-1", "cluster.gpus_per_worker is -1.0: it must be at least 0"),
        ("cluster.gpus_per_worker=inf", "cluster.gpus_per_worker is inf"),
        ("batch_size=100000000", "batch_size is 100000000"),
        ("training.lr_body=inf", "training.lr_body is inf"),
        ("training.epochs=99999999999999999999999", "training.epochs is 9+: it must be at most"),
        ("models=[{name: a, training: {lr_head: 1e400}}]", "training.lr_head is inf"),
        ("trials=!!python/name:os.system", "cannot be read|trials"),
        ("dataset.options=5", "dataset.options"),
    ],
)
def test_values_no_machine_could_serve(word: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        resolve_models(compose([word]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words_", "expected"),
    [
        (["dataset.options.download=true"], {"download": True}),
        (["dataset.options={boxes: a.csv, test_fraction: 0.5}"], {"boxes": "a.csv", "test_fraction": 0.5}),
        (["dataset={name: folder, options: {test_fraction: 0.5}}"], {"test_fraction": 0.5}),
    ],
)
def test_options_of_a_data_set_can_be_given(words_: list[str], expected: dict[str, object]) -> None:
    assert compose(words_).dataset.options == expected


@pytest.mark.parametrize("boxes", ["5", "[1]", "null", "{a: 1}", "/nowhere.csv"])
def test_odd_options_are_one_sentence_or_nothing(
    boxes: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = request(pictures, tmp_path, f"dataset.options={{boxes: {boxes}}}")
    if boxes == "null":
        assert main(arguments) == 0
    else:
        assert "boxes" in refused(arguments, capsys)


@pytest.mark.parametrize("key", ["output", "cache"])
@pytest.mark.parametrize("below", ["", "/deeper"])
def test_a_file_where_a_folder_is_asked_for(
    key: str, below: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("not mine to change")
    said = refused(request(pictures, tmp_path, f"{key}={tmp_path / 'file'}{below}"), capsys)
    assert f"{tmp_path / 'file'}{below} cannot be written" in said
    assert f"{key}=" in said
    assert (tmp_path / "file").read_text() == "not mine to change"


def test_plugins_that_are_no_plugins(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "it_exits.py").write_text("import sys\n\nsys.exit(0)\n")
    assert "in line 3 of it_exits.py: SystemExit" in refused(request(pictures, tmp_path, "plugins=[it_exits]"), capsys)
    for name in ("''", "'../secret'", "'.'", "'a b'"):
        refused(request(pictures, tmp_path, f"plugins=[{name}]"), capsys)
    assert main(request(pictures, tmp_path, "plugins=[os,json]")) == 0  # they register nothing


def png(width: int, height: int) -> bytes:
    """Return a PNG that says it is of this size, with next to no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(0, 0), (0, 10), (10, 0), (2**31 - 1, 2**31 - 1), (100_000, 100_000), (64, 64)])
def test_images_that_lie_about_their_size(size: tuple[int, int], tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(png(*size))
    with pytest.raises(ImageError) as caught:
        images.decode(str(file))
    assert "\n" not in str(caught.value)


def test_an_image_under_another_ending_is_read_by_what_it_is(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.new("RGB", (20, 10), "red").save(data, "JPEG")
    file = tmp_path / "a.png"
    file.write_bytes(data.getvalue())
    assert images.decode(str(file)).pixels.shape == (10, 20, 3)


@pytest.mark.parametrize(
    "box", [(float("inf"), 0, 5, 5), (0, 0, float("inf"), 5), (0, 0, -3, 5), (-1e308, 0, 1e308, 5)]
)
def test_boxes_of_wild_numbers(box: tuple[float, float, float, float], tmp_path: Path) -> None:
    """A wild box is an error of one sentence, or it is cut to a box inside the image."""
    file = tmp_path / "a.png"
    Image.new("RGB", (20, 10)).save(file)
    row = dict(zip(("box_x", "box_y", "box_w", "box_h"), box, strict=True)) | {"uri": str(file)}
    found = decode_row(row, Reach(1.0))
    if isinstance(found, str):
        assert "\n" not in found
    else:
        x, y, w, h = found.box
        assert 0 <= x < x + w <= 20
        assert 0 <= y < y + h <= 10


NAMES = (
    "line\nbreak.png", "semi;colon.png", "quote'\".png", "</script><script>alert(1)</script>.png",
    "'); DROP TABLE predictions; --.png", "back\\slash $(touch PWNED) `x`.png", "[bold]markup[/nothing].png",
    "ü 鳥 🐦.png",
)  # fmt: skip


def test_odd_names_go_through_the_whole_run_into_the_page(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root, shown = tmp_path / "data", sorted(pictures.rglob("*.png"))
    for folder in ("train/a;b'", "train/<b>\n[red]", "test/a;b'", "test/<b>\n[red]"):
        # A file's name cannot hold a slash.
        (root / folder).mkdir(parents=True)
        for i, name in enumerate(NAMES):
            (root / folder / name.replace("/", "∕")).write_bytes(shown[i % len(shown)].read_bytes())
    (root / "test" / "a;b'" / "broken\n';[x].png").write_bytes(b"no image")
    arguments = request(pictures, tmp_path, f"dataset.root={root}", "limit=null")
    assert main(arguments) == 1
    store = Store(tmp_path / "out")
    ids = set(store.query("SELECT DISTINCT image_id FROM predictions")["image_id"])
    assert ids == {f"test/{c}/{n.replace('/', '∕')}" for c in ("a;b'", "<b>\n[red]") for n in NAMES}
    assert store.query("SELECT image_id FROM failures")["image_id"].tolist() == ["test/a;b'/broken\n';[x].png"]
    assert set(store.query("SELECT DISTINCT class_name FROM images")["class_name"]) == {"a;b'", "<b>\n[red]"}
    assert main(arguments) == 1  # resumed: the ids are found again
    assert "32 of 34 evaluations are in the store" in capsys.readouterr().out
    database, site = tmp_path / "out" / "results.duckdb", tmp_path / "site"
    assert leaderboard(["build", "--db", str(database), "--out", str(site)]) == 0
    page = (site / "index.html").read_text()
    assert "<script>alert" not in page
    for block in re.findall(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL):
        json.loads(block)
    assert not (tmp_path / "PWNED").exists()
