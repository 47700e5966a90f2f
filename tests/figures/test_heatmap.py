"""The heatmap of a photograph: its numbers, and that every photograph has a file of its own."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnnsens_bench import images
from cnnsens_bench.engine.photo_prediction import LabelChangePredictor, PhotoPrediction
from cnnsens_bench.engine.sweep import Condition
from cnnsens_bench.experiment.photographs import heatmap_name
from cnnsens_bench.figures.heatmap import caption, heatmap, relative, tick_values
from cnnsens_bench.models.loading import load_network
from cnnsens_bench.predict import main
from cnnsens_bench.sensitivity.gradients import differentiate
from tests.conftest import tiny_checkpoint

SIZE = 48


def test_the_map_is_the_squared_gradient_of_the_margin(checkpoint: Path, pictures: Path) -> None:
    """The sum of the map is the variance of the margin under noise of σ = 1."""
    path = str(pictures / "class_0" / "00.png")
    predictor = LabelChangePredictor(
        load_network(checkpoint=checkpoint), [Condition("gaussian_rgb", (1.0,), 1)], maps=True
    )
    [found] = predictor([path])
    assert isinstance(found, PhotoPrediction)
    assert found.sensitivity_map is not None
    view = images.render(images.decode(path), SIZE)
    np.testing.assert_array_equal(found.sensitivity_map.pixels, view)
    pixels = torch.from_numpy(view.copy()).permute(2, 0, 1)[None].float()
    gradient = differentiate(tiny_checkpoint(1).classifier(), pixels).gradients[-1][0]
    expected = (gradient**2).sum(0).numpy()
    np.testing.assert_allclose(found.sensitivity_map.variance, expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_units() -> None:
    sensitivity = np.zeros((64, 64), np.float32)
    assert relative(sensitivity).max() == 0
    assert caption(sensitivity) == "To first order no pixel moves the margin."
    sensitivity[20, 30] = 1e-30
    ratio = relative(sensitivity)
    assert ratio.mean() == pytest.approx(1)
    assert np.unravel_index(ratio.argmax(), ratio.shape) == (20, 30)
    assert "sits in 0.024 % of the pixels" in caption(sensitivity)
    assert "sits in 50 % of the pixels" in caption(np.ones((64, 64)))
    assert tick_values(36) == [0, 1, 2, 5, 10, 20]
    assert tick_values(1) == pytest.approx([0, 0.02, 0.05, 0.1, 0.2, 0.5, 1])


@pytest.mark.parametrize("sensitivity", [np.zeros((32, 32)), np.eye(32)], ids=["nowhere", "diagonal"])
def test_the_same_picture_gives_the_same_file(sensitivity: np.ndarray, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file in files:
        heatmap(pixels, sensitivity, "$x$ \x1b[2J 鳥", file)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert Image.open(files[0]).size == (820, 435)


def test_every_photograph_has_a_picture_of_its_own(
    checkpoint: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs = [str(pictures / f"class_{i}" / "00.png") for i in range(3)]
    folder = tmp_path / "deep" / "maps"
    assert main([*photographs, "gone.png", f"checkpoint={checkpoint}", "--json", "--heatmap", str(folder)]) == 1
    records = json.loads(capsys.readouterr().out)
    drawn = [Path(record["heatmap"]) for record in records[:3]]
    assert sorted(folder.iterdir()) == sorted(drawn)
    assert len(set(drawn)) == 3
    assert "heatmap" not in records[3]


def test_names_stay_in_the_folder() -> None:
    paths = [
        "a/b.jpg",
        "c/b.jpg",
        "../b.jpg",
        "..",
        "/",
        "https://x/y?b=/../c",
        "b" * 255,
        "ä\x1b\udcff.png",
        "B.JPG",
        "b.jpg",
    ]
    names = [heatmap_name(path) for path in paths]
    assert len({name.casefold() for name in names}) == len(paths)
    for name in names:
        assert Path(name).name == name
        assert len(name.encode()) <= 255
        assert name.isprintable()
    assert names[0].startswith("b-")


def test_a_folder_that_cannot_be_written(
    checkpoint: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(pictures / "class_0" / "00.png")
    (tmp_path / heatmap_name(path)).mkdir()
    assert main([path, f"checkpoint={checkpoint}", "--heatmap", str(tmp_path)]) == 2
    assert "cannot be written" in capsys.readouterr().err
