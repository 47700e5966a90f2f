"""The data set `plumage`: equal pictures everywhere, drawn once; tight boxes; pairs that look alike; marks to learn."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.model_selection import cross_val_score
from sklearn.svm import SVC

from cnnsens_bench.datasets import Samples, load
from cnnsens_bench.datasets.plumage.birds import SPECIES
from cnnsens_bench.datasets.plumage.scene import draw_scene, pink_noise
from cnnsens_bench.utils.errors import UserError

SMALL = {"train_per_class": 2, "test_per_class": 1}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return load("plumage", tmp_path_factory.mktemp("plumage"), None, SMALL)


def test_eight_species_in_four_pairs_of_one_mark_each(drawn: Samples) -> None:
    assert len(drawn.classes) == 8
    by_pair = pd.DataFrame([vars(s) for s in SPECIES]).groupby("pair")
    assert by_pair.size().tolist() == [2, 2, 2, 2]
    assert by_pair["mark"].nunique().tolist() == [1, 1, 1, 1]
    assert by_pair["marked"].sum().tolist() == [1, 1, 1, 1]
    assert drawn.table["split"].value_counts().to_dict() == {"train": 16, "test": 8}


def test_the_same_bytes_everywhere(drawn: Samples, tmp_path: Path) -> None:
    again = load("plumage", tmp_path, None, SMALL)
    for one, two in zip(drawn.table["uri"], again.table["uri"], strict=True):
        assert Path(one).read_bytes() == Path(two).read_bytes()
    assert again.fingerprint() == drawn.fingerprint()


def test_more_pictures_change_none(drawn: Samples, tmp_path: Path) -> None:
    more = load("plumage", tmp_path, None, {"train_per_class": 3, "test_per_class": 1}).table.set_index("image_id")
    for row in drawn.table.itertuples():
        assert Path(row.uri).read_bytes() == Path(more.loc[row.image_id, "uri"]).read_bytes()


def test_all_pictures_differ(drawn: Samples) -> None:
    contents = {Path(uri).read_bytes() for uri in drawn.table["uri"]}
    assert len(contents) == len(drawn.table)


def test_they_are_drawn_once(tmp_path: Path) -> None:
    first = load("plumage", tmp_path, None, SMALL).table["uri"]
    times = [Path(uri).stat().st_mtime_ns for uri in first]
    (tmp_path / ".drawing-left-by-a-crash").mkdir()
    second = load("plumage", tmp_path, None, SMALL).table["uri"]
    assert [Path(uri).stat().st_mtime_ns for uri in second] == times
    other = load("plumage", tmp_path, None, {**SMALL, "seed": 1}).table["uri"]
    assert Path(other[0]).parent != Path(first[0]).parent


def test_boxes_are_tight_around_masks_and_smaller_than_pictures(drawn: Samples) -> None:
    for row in drawn.table.itertuples():
        mask = np.asarray(Image.open(row.mask_uri))
        rows, columns = np.nonzero(mask > 127)
        assert (row.box_x, row.box_y) == (columns.min(), rows.min())
        assert (row.box_x + row.box_w, row.box_y + row.box_h) == (columns.max() + 1, rows.max() + 1)
        assert Image.open(row.uri).size == mask.shape == (224, 224)
        assert 0.05 < row.box_w * row.box_h / 224**2 < 0.8


def test_the_background_has_natural_texture() -> None:
    """The power falls as 1/f² (the amplitude as 1/f) over more than a decade."""
    powers = np.mean([abs(np.fft.fft2(pink_noise(128, np.random.default_rng(i)))) ** 2 for i in range(8)], axis=0)
    frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128)[None])
    fitted = (frequency > 0.02) & (frequency < 0.4)
    slope = np.polyfit(np.log(frequency[fitted]), np.log(powers[fitted]), 1)[0]
    assert slope == pytest.approx(-2, abs=0.2)


@pytest.mark.parametrize("pair", range(4))
def test_a_pair_differs_in_its_mark_alone(pair: int) -> None:
    """The same scene is drawn with either species of a pair: most of the picture is equal."""
    one, other = (draw_scene(s, 192, [5, pair]) for s in SPECIES if s.pair == pair)
    changed = np.abs(one.image.astype(int) - other.image).max(axis=2) > 12
    bird = (one.mask > 0) | (other.mask > 0)
    assert 0.01 < changed[bird].mean() < 0.45
    assert changed[~bird].mean() < 0.01


@pytest.mark.parametrize("pair", range(4))
def test_marks_can_be_learnt(pair: int) -> None:
    """A small classical classifier learns them from 32 × 32 pixels of the box."""
    crops, labels = [], []
    for species in (s for s in SPECIES if s.pair == pair):
        for i in range(45):
            scene = draw_scene(species, 168, [pair, 2 * i + species.marked])
            rows, columns = np.nonzero(scene.mask)
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            crop = np.asarray(Image.fromarray(scene.image).resize((32, 32), Image.Resampling.BICUBIC, box=box), float)
            brightest = np.percentile(crop.reshape(-1, 3), [2, 10, 50, 90, 98], axis=0).ravel()
            chroma = crop[..., 0] - crop[..., 1]
            edges = np.histogram(np.abs(np.diff(crop.mean(2), axis=1)), bins=8, range=(0, 120))[0]
            top = crop[:10].mean(2)
            layout = np.concatenate([np.minimum(top, top[:, ::-1])[:, ::2].ravel(), crop.mean(2)[::4, ::4].ravel()])
            crops.append(
                np.concatenate([brightest / 50, np.percentile(chroma, [5, 50, 95]) / 20, edges / 50, layout / 200])
            )
            labels.append(species.marked)
    score = cross_val_score(SVC(C=10, gamma="scale"), np.array(crops), labels, cv=5).mean()
    assert score > 0.6


@pytest.mark.parametrize("options", [{"size": 160}, {"train_per_class": 0}, {"test_per_class": 0}, {"seed": -1}])
def test_impossible_parameters(options: dict, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="plumage"):
        load("plumage", tmp_path, None, options)
