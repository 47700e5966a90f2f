"""The contact sheet of degradations: what it shows, that a network sees the same, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnnsens_bench import images
from cnnsens_bench.degradations import Streams, degradations
from cnnsens_bench.degradations.__main__ import main
from cnnsens_bench.engine.degrade import previews
from cnnsens_bench.engine.sweep import Condition
from cnnsens_bench.experiment.degradation_sheet import choose_conditions
from cnnsens_bench.figures import degradation_sheet as drawing
from cnnsens_bench.figures.degradation_sheet import SheetRow, degradation_sheet, tile_text

SMALL = ["--size", "48", "--tile", "32"]
# Other tests may register degradations of users.
BUILT_IN = [name for name, d in degradations.items() if d.function.__module__.startswith("cnnsens_bench.")]


@pytest.fixture
def photo(pictures: Path) -> str:
    return str(pictures / "class_0" / "00.png")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of all texts that a sheet writes."""
    texts: list[str] = []
    original: Callable = drawing._write

    def note(axes: object, x: float, y: float, text: str, *rest: object, **style: object) -> None:
        texts.append(text)
        original(axes, x, y, text, *rest, **style)

    monkeypatch.setattr(drawing, "_write", note)
    return texts


def flat(text: str) -> str:
    return text.replace("\n", "").replace(" ", "")


def test_every_registered_degradation_is_a_row_with_all_its_levels(
    photo: str, tmp_path: Path, drawn: list[str]
) -> None:
    out = tmp_path / "sheet.png"
    assert main(["--image", photo, "--out", str(out), *SMALL]) == 0
    labels = [flat(text).partition("(")[0] for text in drawn]
    assert set(BUILT_IN) <= set(labels)
    for heading in ("The paper's (Rodner et al. 2016)", "Beyond the paper", "00.png"):
        assert heading in drawn
    rows = [(c, unit) for c, unit in choose_conditions(None, None) if c.degradation in BUILT_IN]
    for condition, unit in rows:
        row = SheetRow(condition.degradation, unit, condition.levels, ())
        assert {tile_text(row, level) for level in condition.levels} <= set(drawn)
    assert Image.open(out).mode == "RGB"


def test_rows_are_named_by_expressions_and_patterns_in_their_order(
    photo: str, tmp_path: Path, drawn: list[str]
) -> None:
    arguments = ["pepper", "hue_*", "gaussian_intensity(4) + pepper", "pepper"]
    out = tmp_path / "sheet.svg"
    assert main(["--image", photo, "--degradations", *arguments, "--out", str(out), *SMALL]) == 0
    labels = [text for text in drawn if text.startswith(("pepper", "hue", "gaussian"))]
    assert labels == ["pepper", "hue_global", "hue_local", "gaussian_intensity(4)\n+ pepper"]
    assert drawn.count("p=0.02") == 2
    assert "<image" in out.read_text()


def test_levels_in_place_of_its_own(photo: str, tmp_path: Path, drawn: list[str]) -> None:
    swept = "albumentations:Posterize(num_bits=level)"
    arguments = ["--degradations", swept, "flip_lr", "--levels", "1", "3"]
    assert main(["--image", photo, *arguments, "--out", str(tmp_path / "a.pdf"), *SMALL]) == 0
    assert {"1", "3", "albumentations:\nPosterize(num_bits=\nlevel)"} <= set(drawn)


def test_a_tile_is_what_a_network_sees(photo: str) -> None:
    image = images.decode(photo, (5.5, 3, 40, 50.25))
    conditions = [Condition("gaussian_rgb", (2.0, 40.0), 1), Condition("translation", (8.0,), 1)]
    noisy, moved = previews(image, "00", "folder", conditions, 48, seed=3)
    pixels = torch.from_numpy(images.render(image, 48).copy()).permute(2, 0, 1)[None].float()
    streams = Streams(3, "folder", ["00"], 0)
    expected = pixels + 40 * degradations["gaussian_rgb"].draw(streams, 48)
    np.testing.assert_array_equal(noisy[1], expected.clamp(0, 255).round()[0].permute(1, 2, 0).byte().numpy())
    motion = degradations["translation"].motion(degradations["translation"].draw(streams, 48), 8.0)
    np.testing.assert_array_equal(moved[0], images.render(image, 48, *motion.views(1)[0]))


def test_tiles_stand_where_they_should(tmp_path: Path) -> None:
    colours = [np.full((8, 8, 3), value, np.uint8) for value in ((255, 0, 0), (0, 160, 0), (0, 0, 255))]
    rows = [SheetRow("a", "σ", (1.0, 2.0), (colours[1], colours[2]))]
    degradation_sheet(rows, colours[0], "$t", "$n", tmp_path / "a.png", tile=40, grouped=False)
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    corners = []
    for colour in ((255, 0, 0), (0, 160, 0), (0, 0, 255)):
        y, x = np.nonzero((pixels == colour).all(axis=2))
        assert (np.ptp(y) + 1, np.ptp(x) + 1, len(y)) == (40, 40, 1600)
        corners.append((x.min(), y.min()))
    assert corners[0] == (drawing.MARGIN, drawing.MARGIN)
    assert corners[2] == (corners[1][0] + 40 + drawing.GAP, corners[1][1])


def test_colours_are_kept(tmp_path: Path) -> None:
    """A vivid tile among many dull ones keeps its colours, which a palette would turn gray."""
    rng = np.random.default_rng(0)
    tiles = [rng.integers(90, 140, (40, 40, 3)).astype(np.uint8) for _ in range(19)]
    tiles.append(np.clip(rng.normal((230, 30, 200), 8, (40, 40, 3)), 0, 255).astype(np.uint8))
    rows = [SheetRow(f"r{i}", "level", (1.0,) * 10, tuple(tiles[10 * i : 10 * i + 10])) for i in range(2)]
    found = {}
    for step in (1, 5):
        degradation_sheet(rows, tiles[0], "t", "n", tmp_path / "a.png", tile=40, grouped=False, step=step)
        found[step] = np.asarray(Image.open(tmp_path / "a.png")).astype(int)
    vivid = np.argwhere(np.ptp(found[1], axis=2) > 100)
    top, left = vivid.min(0)
    assert np.array_equal(found[1][top : top + 40, left : left + 40], tiles[-1])
    assert (found[5] % 5 == 0).all()
    assert np.abs(found[5] - found[1]).max() == 2


def test_many_rows_are_laid_out_in_two_columns(tmp_path: Path) -> None:
    tile = np.zeros((8, 8, 3), np.uint8)
    for names in (list(drawing.ORDER) + [f"common:c{i}" for i in range(15)], [f"own_{i}" for i in range(26)]):
        rows = [SheetRow(name, "level", (1.0,), (tile,)) for name in names]
        degradation_sheet(rows, tile, "t", "n", tmp_path / "a.png", tile=40)
        width, height = Image.open(tmp_path / "a.png").size
        assert height < 17 * 60 + 120
        assert width > 2 * 150


def test_rows_of_one_tile_share_a_line_where_they_fit() -> None:
    tile = np.zeros((8, 8, 3), np.uint8)
    one, five = (1.0,), (1.0,) * 5
    names = {"a": five, "flip_lr": one, "flip_ud": one, "c": one, "d": one, "e" * 21: one, "f": one, "g": five}
    rows = [SheetRow(name, "level", levels, (tile,) * len(levels)) for name, levels in names.items()]
    lines = [[row.name for row in line] for line in drawing._lines(rows, 5, 80)]
    assert lines == [["a"], ["flip_lr", "flip_ud", "c"], ["d"], ["e" * 21, "f"], ["g"]]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--image", "/nowhere/a.jpg"], "/nowhere/a.jpg: no such file"),
        (["--image", __file__], "not an image that Pillow can read"),
        (["--image", "PHOTO", "--degradations", "peper"], "unknown degradation 'peper': did you mean"),
        (["--image", "PHOTO", "--degradations", "moat*"], "no name matches 'moat*'"),
        (["--image", "PHOTO", "--degradations", "pepper", "--levels", "2"], "level 2 is out of range"),
        (["--image", "PHOTO", "--degradations", "albumentations:Posterize(num_bits=level)"], "name them in levels"),
        (["--image", "PHOTO", "--degradations", "albumentations:CenterCrop(height=8, width=8)"], "keep the image's"),
        (
            ["--image", "PHOTO", "--degradations", "albumentations:ToFloat"],
            "error: degradation 'albumentations:ToFloat'",
        ),
        (["--image", "PHOTO", "--box", "900", "0", "5", "5"], "has no area inside"),
        (["--image", "PHOTO", "--out", "sheet.jpg"], "must end in .png, .pdf or .svg"),
        (["--image", "PHOTO", "--out", "/nowhere/sheet.png"], "there is no folder /nowhere"),
        (["--image", "PHOTO", "--size", "0"], "--size is 0: it must be between"),
        (["--image", "PHOTO", "--plugins", "no_such_module"], "plugin 'no_such_module' cannot be imported"),
        (["--image", "PHOTO", "--image-id", "a"], "--image-id belongs to --dataset"),
        (["--dataset", "plumage", "--box", "0", "0", "5", "5"], "--box belongs to --image"),
        (["--dataset", "moat"], "unknown dataset 'moat'"),
        (["--dataset", "folder", "--root", "FOLDER", "--image-id", "z"], "has no image 'z'"),
    ],
)
def test_what_cannot_be_drawn(
    arguments: list[str], sentence: str, photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [{"PHOTO": photo, "FOLDER": str(Path(photo).parents[1])}.get(text, text) for text in arguments]
    assert main(["--out", str(tmp_path / "a.png"), *given]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / "a.png").exists()


def test_a_users_that_would_spoil_other_tiles_is_refused(
    photo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "from cnnsens_bench.degradations import degradation\n\n"
    code += "degradation('sheet_in_place', levels=(3,))(lambda pixels, draw, level: pixels.add_(level))\n"
    (tmp_path / "sheet_plugin.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    arguments = ["--image", photo, "--plugins", "sheet_plugin", "--degradations", "sheet_in_place", "flip_lr"]
    try:
        assert main(["--out", str(tmp_path / "a.png"), *arguments, *SMALL]) == 2
        assert "it changes its input in place" in capsys.readouterr().err
    finally:
        del degradations.data["sheet_in_place"]  # type: ignore[attr-defined]


def test_an_image_of_a_data_set_has_its_box(photo: str, tmp_path: Path, drawn: list[str]) -> None:
    root = str(Path(photo).parents[1])
    arguments = ["--dataset", "folder", "--root", root, "--degradations", "flip_lr", "--out", str(tmp_path / "a.png")]
    assert main([*arguments, *SMALL]) == 0
    assert drawn[0].startswith("folder: class_0")
