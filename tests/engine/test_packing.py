"""Rows of several degradations share forward passes: how many that takes, and that no prediction depends on it."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from torch import Tensor, nn

from cnnsens_bench import images
from cnnsens_bench.datasets import Samples
from cnnsens_bench.defenses import parse_defense
from cnnsens_bench.degradations import degradation, degradations
from cnnsens_bench.engine.evaluate import Evaluator
from cnnsens_bench.engine.networks import LoadedEntrant
from cnnsens_bench.engine.sweep import CalibrationImage, Condition, Entrant, Sweep
from cnnsens_bench.models import Classifier, Preprocessing
from cnnsens_bench.utils.errors import StorageError
from tests.conftest import tiny_checkpoint

CONDITIONS = (
    Condition("gaussian_rgb", (4.0, 64.0), 2),
    Condition("translation", (1.0,), 2),
    Condition("flip_lr", (0.0,), 1),
)
RECALIBRATED = "batch_norm_recalibration(images=5, prior=4)"
DEFENSES = ("none", RECALIBRATED, "gaussian_filter(size=3, sigma=0.5)")
SIZES = {"a": 32, "b": 40}
Images = tuple[list[str], list[int], list[images.Decoded]]


@pytest.fixture(scope="module")
def some_images(samples: Samples) -> Images:
    table = samples.table.iloc[::4]
    decoded = [images.decode(r.uri, (r.box_x, r.box_y, r.box_w, r.box_h), 0.5) for r in table.itertuples()]
    return table["image_id"].tolist(), table["label"].tolist(), decoded


@pytest.fixture(scope="module")
def evaluator(samples: Samples) -> Evaluator:
    """Networks of two input sizes, one defense with recalibrated batch norm, one with a filter."""
    table = samples.table.iloc[-5:]
    keys = [field.name for field in dataclasses.fields(CalibrationImage)]
    calibration = tuple(CalibrationImage(**row) for row in table[keys].to_dict("records"))
    decoded = [images.decode(r.uri, (r.box_x, r.box_y, r.box_w, r.box_h), 0.5) for r in table.itertuples()]
    entrants = tuple(Entrant(f"s/{model}", model, defense, model) for model in SIZES for defense in DEFENSES)
    sweep = Sweep("r", "data", entrants, CONDITIONS, batch_size=8, calibration=calibration)
    networks = {m: tiny_checkpoint(i, input_size=size).classifier() for i, (m, size) in enumerate(SIZES.items())}
    loaded = [LoadedEntrant(networks[e.checkpoint], parse_defense(e.defense)) for e in entrants]
    return Evaluator(sweep, loaded, calibration=decoded)


def predicted(evaluator: Evaluator, given: Images, wanted: np.ndarray, packed: bool = True) -> pd.DataFrame:
    frames = [
        pd.DataFrame(prediction.columns).assign(degradation=prediction.degradation)
        for prediction in evaluator.evaluate(*given, wanted, packed=packed)
        if prediction.columns
    ]
    keys = ["image", "entrant", "degradation", "level", "trial"]
    return pd.concat(frames).set_index(keys).sort_index()


def test_predictions_are_the_same_bits_however_rows_are_packed(evaluator: Evaluator, some_images: Images) -> None:
    """All cells at once, a random tenth after the other, each network's own tenths, and one condition at a time."""
    shape = (len(some_images[0]), len(evaluator.entrants), len(evaluator.cells))
    every = np.ones(shape, bool)
    whole = predicted(evaluator, some_images, every)
    assert len(whole) == every.sum()
    rng = np.random.default_rng(0)
    of_images = rng.integers(10, size=(shape[0], 1, shape[2])) * np.ones(shape, int)
    of_networks = rng.integers(3, size=shape)
    ends = [0, 1, *(cells.stop for _, cells in evaluator.conditions)]
    of_conditions = np.digitize(np.arange(shape[2]), ends[1:]) * np.ones(shape, int)
    for group in (of_images, of_networks, of_conditions):
        parts = [predicted(evaluator, some_images, group == n) for n in np.unique(group)]
        pd.testing.assert_frame_equal(pd.concat(parts).sort_index(), whole, check_exact=True)
    pd.testing.assert_frame_equal(predicted(evaluator, some_images, every, packed=False), whole, check_exact=True)


class Passes(nn.Module):
    """A network that counts its forward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self, pixels: Tensor) -> Tensor:
        assert len(pixels) == 32
        self.count += 1
        return pixels.mean((2, 3))


def counting(conditions: tuple[Condition, ...], entrants: int = 1) -> tuple[list[Passes], Evaluator]:
    networks = [Passes() for _ in range(entrants)]
    preprocessing = Preprocessing(8, (0.0,) * 3, (1.0,) * 3)
    loaded = [LoadedEntrant(Classifier(network, preprocessing), parse_defense("none")) for network in networks]
    names = tuple(Entrant(f"s/{i}", str(i), "none", str(i)) for i in range(entrants))
    return networks, Evaluator(Sweep("r", "data", names, conditions, batch_size=32), loaded)


def many(given: Images, count: int, start: int = 0) -> Images:
    ids, labels, decoded = given
    positions = [i % len(ids) for i in range(count)]
    return [f"{start + i}" for i in range(count)], [labels[i] for i in positions], [decoded[i] for i in positions]


def test_a_random_tenth_of_the_cells_costs_at_most_012_of_the_passes(some_images: Images) -> None:
    """75 cells, as the common corruptions have; two networks that lack different cells."""
    levels = (1.0, 2.0, 3.0, 4.0, 5.0)
    names = ("gaussian_rgb", "pepper", "hue_global", "saturation", "rotation")
    conditions = tuple(Condition(name, levels, 3) for name in names)
    networks, evaluator = counting(conditions, entrants=2)
    assert len(evaluator.cells) == 76
    rng = np.random.default_rng(1)
    whole = tenth = 0
    for start in range(0, 128, 32):
        given = many(some_images, 32, start)
        wanted = rng.random((32, 2, 76)) < 0.1
        before = [network.count for network in networks]
        rows = sum(len(p.columns["image"]) for p in evaluator.evaluate(*given, wanted) if p.columns)
        assert rows == wanted.sum()
        counts = [network.count - count for network, count in zip(networks, before, strict=True)]
        needed = [wanted[:, i, 1:].sum() + wanted[:, i].any(axis=1).sum() for i in range(2)]
        assert counts == [-(-n // 32) for n in needed]  # each undegraded image once, and no row of padding but the last
        tenth += sum(counts)
        whole += 2 * 76
    assert tenth <= 0.12 * whole


def test_a_degradation_comes_when_its_last_row_was_run(some_images: Images) -> None:
    """Before another is begun where rows are not packed; whatever was begun comes before an error of the storage."""
    conditions = (Condition("gaussian_rgb", (4.0,), 1), Condition("test_remote", (1.0,), 1), CONDITIONS[-1])
    begun = []

    def failing(pixels: Tensor, draw: object, level: float) -> Tensor:
        begun.append(level)
        raise StorageError("the server does not answer")

    degradation("test_remote", levels=(1,))(failing)
    try:
        for packed in (True, False):
            (network,), evaluator = counting(conditions)
            begun.clear()
            came = []
            predictions = evaluator.evaluate(*many(some_images, 4), np.ones((4, 1, 4), bool), packed=packed)
            for _ in range(2):
                prediction = next(predictions)
                came.append((prediction.degradation, len(prediction.columns["image"]), len(begun)))
            with pytest.raises(StorageError):
                next(predictions)
            assert came == [("none", 4, int(packed)), ("gaussian_rgb", 4, int(packed))]
            assert network.count == (1 if packed else 2)
    finally:
        del degradations.data["test_remote"]  # type: ignore[attr-defined]


def test_more_images_than_a_batch_holds(some_images: Images) -> None:
    """Their undegraded rows come first, so the last image's reference is known before its degraded rows are run."""
    (network,), evaluator = counting((Condition("gaussian_rgb", (200.0,), 1), Condition("flip_lr", (0.0,), 1)))
    given = many(some_images, 40)
    found = predicted(evaluator, given, np.ones((40, 1, 3), bool))
    assert network.count == -(-40 * 3 // 32)
    kept = found.xs("flip_lr", level="degradation")
    still = found.xs("none", level="degradation")
    np.testing.assert_allclose(kept["reference_logit"], still["reference_logit"], rtol=1e-5)
