"""Recalibrated networks in a sweep: against a network recalibrated by hand, and what must not matter."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cnnsens_bench import images
from cnnsens_bench.datasets import Samples
from cnnsens_bench.defenses import parse_defense
from cnnsens_bench.degradations import Streams, parse_degradation
from cnnsens_bench.engine.evaluate import Evaluator
from cnnsens_bench.engine.networks import LoadedEntrant, NetworkInput
from cnnsens_bench.engine.sweep import CalibrationImage, Condition, Entrant, Sweep
from tests.conftest import tiny_checkpoint

CONDITIONS = (
    Condition("gaussian_rgb", (4.0, 64.0), 2),
    Condition("translation", (8.0,), 2),
    Condition("flip_lr", (0.0,), 1),
)
PLAIN, ALL, FEW = "none", "batch_norm_recalibration(images=9, prior=4)", "batch_norm_recalibration(images=5, prior=16)"
FILTERED = f"{FEW} + median_filter(size=3)"
DEFENSES = (PLAIN, ALL, FEW, FILTERED)
SIZES = {"a": 48, "b": 32}


@pytest.fixture(scope="module")
def sweep(samples: Samples) -> Sweep:
    table = samples.split("test").iloc[::-1].head(9)
    keys = [field.name for field in dataclasses.fields(CalibrationImage)]
    calibration = tuple(CalibrationImage(**row) for row in table[keys].to_dict("records"))
    entrants = tuple(Entrant(f"s/{m}", m, d, m) for m in SIZES for d in DEFENSES)
    return Sweep("r", "data", entrants, CONDITIONS, batch_size=8, calibration=calibration)


def decoded(sweep: Sweep, rows: list) -> list[images.Decoded]:
    reach = sweep.reach(32)
    return [images.decode(r.uri, (r.box_x, r.box_y, r.box_w, r.box_h), *reach) for r in rows]


@pytest.fixture(scope="module")
def batch(sweep: Sweep, samples: Samples) -> tuple[list[str], list[int], list[images.Decoded]]:
    table = samples.table.iloc[::4]
    return table["image_id"].tolist(), table["label"].tolist(), decoded(sweep, list(table.itertuples()))


def evaluator(sweep: Sweep) -> Evaluator:
    classifiers = {m: tiny_checkpoint(i, input_size=size).classifier() for i, (m, size) in enumerate(SIZES.items())}
    loaded = [LoadedEntrant(classifiers[e.checkpoint], parse_defense(e.defense)) for e in sweep.entrants]
    return Evaluator(sweep, loaded, calibration=decoded(sweep, list(sweep.calibration)))


def run(
    made: Evaluator, batch: tuple, wanted: np.ndarray | None = None, order: list[int] | None = None
) -> pd.DataFrame:
    ids, labels, pictures = ([part[i] for i in order] for part in batch) if order else batch
    if wanted is None:
        wanted = np.ones((len(ids), len(made.entrants), len(made.cells)), bool)
    frames = [
        pd.DataFrame(prediction.columns).assign(degradation=prediction.degradation)
        for prediction in made.evaluate(ids, labels, pictures, wanted)
        if prediction.columns
    ]
    table = pd.concat(frames)
    table["image"] = [ids[i] for i in table["image"]]
    keys = ["image", "entrant", "degradation", "level", "trial"]
    return table.sort_values(keys).set_index(keys)


@pytest.fixture(scope="module")
def whole(sweep: Sweep, batch: tuple) -> pd.DataFrame:
    return run(evaluator(sweep), batch)


def by_hand(network: nn.Module, pixels: torch.Tensor, prior: float) -> None:
    """The statistics of every batch norm's input, mixed into the network's by hooks, in numpy."""

    def renew(layer: nn.BatchNorm2d, inputs: tuple) -> None:
        values = inputs[0].double().numpy().transpose(1, 0, 2, 3).reshape(len(layer.running_mean), -1)
        share = prior / (prior + len(pixels))
        mean = share * layer.running_mean.double().numpy() + (1 - share) * values.mean(1)
        variance = share * layer.running_var.double().numpy() + (1 - share) * values.var(1, ddof=1)
        layer.running_mean = torch.from_numpy(mean).float()
        layer.running_var = torch.from_numpy(variance).float()

    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    hooks = [layer.register_forward_pre_hook(renew) for layer in layers]
    with torch.no_grad():
        network(pixels)
    for hook in hooks:
        hook.remove()


def degraded(sweep: Sweep, ids: list[str], pictures: list, size: int, cell: tuple) -> torch.Tensor:
    name, level, trial = cell
    views: list[tuple] = [()] * len(ids)
    degradation = parse_degradation(name) if name != "none" else None
    draw = degradation.draw(Streams(0, "data", ids, trial), size) if degradation else None
    if degradation and degradation.geometric:
        views = degradation.motion(draw, level).views(len(ids))
    rendered = np.stack([images.render(p, size, *view) for p, view in zip(pictures, views, strict=True)])
    pixels = torch.from_numpy(rendered).permute(0, 3, 1, 2).float()
    return degradation.apply(pixels, draw, level).clamp(0, 255) if degradation else pixels


@pytest.mark.parametrize("model", [0, 1])
def test_it_equals_a_network_recalibrated_by_hand(sweep: Sweep, batch: tuple, whole: pd.DataFrame, model: int) -> None:
    ids, _, pictures = batch
    name, size = list(SIZES.items())[model]
    seen = [image.image_id for image in sweep.calibration]
    seen_pictures = decoded(sweep, list(sweep.calibration))
    for position, entrant in enumerate(sweep.entrants):
        defense = parse_defense(entrant.defense)
        if entrant.checkpoint != name or not defense.recalibration:
            continue
        for cell in [("none", 0.0, 0), ("gaussian_rgb", 64.0, 1), ("translation", 8.0, 0)]:
            network = tiny_checkpoint(model, input_size=size).classifier()
            prefilter = defense.prefilter or (lambda x: x)
            count = defense.recalibration.images
            calibration = degraded(sweep, seen[:count], seen_pictures[:count], size, cell)
            by_hand(network, prefilter(calibration), defense.recalibration.prior)
            with torch.no_grad():
                logits = network(prefilter(degraded(sweep, ids, pictures, size, cell)))
            rows = whole.xs((position, *cell), level=["entrant", "degradation", "level", "trial"]).loc[ids]
            assert rows["prediction"].tolist() == logits.argmax(1).tolist()
            np.testing.assert_allclose(rows["confidence"], logits.softmax(1).amax(1), rtol=2e-3)


def test_other_entrants_are_as_without_it(sweep: Sweep, batch: tuple, whole: pd.DataFrame) -> None:
    plain = tuple(e for e in sweep.entrants if e.defense == PLAIN)
    alone = run(evaluator(dataclasses.replace(sweep, entrants=plain, calibration=())), batch)
    here = whole[whole.index.get_level_values("entrant").isin([0, len(DEFENSES)])]
    np.testing.assert_array_equal(alone.to_numpy(), here.to_numpy())
    recalibrated = whole[whole.index.get_level_values("entrant") == 1]
    assert (recalibrated["confidence"].to_numpy() != here.head(len(recalibrated))["confidence"].to_numpy()).mean() > 0.9


def test_order_grouping_and_what_came_before_change_no_bit(sweep: Sweep, batch: tuple, whole: pd.DataFrame) -> None:
    order = list(reversed(range(len(batch[0]))))
    pd.testing.assert_frame_equal(run(evaluator(sweep), batch, order=order), whole, check_exact=True)
    made = evaluator(sweep)
    thirds = [tuple(part[i::3] for part in batch) for i in (2, 0, 1)]
    grouped = pd.concat([run(made, third) for third in thirds]).sort_index()
    pd.testing.assert_frame_equal(grouped, whole.sort_index(), check_exact=True)
    # A resume asks for some cells of some images only.
    wanted = np.random.default_rng(0).random((len(batch[0]), len(sweep.entrants), len(sweep.cells()))) < 0.1
    some = run(evaluator(sweep), batch, wanted)
    assert len(some) == wanted.sum()
    pd.testing.assert_frame_equal(some, whole.loc[some.index], check_exact=True)


def test_batches_of_another_size_and_more_entrants_change_little(
    sweep: Sweep, batch: tuple, whole: pd.DataFrame
) -> None:
    """As everywhere a batch of another shape may round differently, but nothing is computed from other images."""
    other = run(evaluator(dataclasses.replace(sweep, batch_size=5)), batch)
    np.testing.assert_allclose(other.to_numpy(float), whole.to_numpy(float), rtol=1e-3, atol=1e-3)


def test_statistics_are_made_once_a_cell(sweep: Sweep, batch: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    from cnnsens_bench.engine import batch_norm

    calls = []
    original = batch_norm.recalibrate
    monkeypatch.setattr(batch_norm, "recalibrate", lambda *a: (calls.append(1), original(*a)))
    made = evaluator(sweep)
    run(made, batch)
    run(made, batch)
    assert len(calls) == len(SIZES) * (len(DEFENSES) - 1) * len(sweep.cells())


def test_weights_are_shared_and_statistics_are_not(sweep: Sweep) -> None:
    made = evaluator(sweep)
    plain, copied = made.entrants[1].classifier, made.recalibrated[1].classifier
    assert all(a is b for a, b in zip(plain.parameters(), copied.parameters(), strict=True))
    assert not any(a is b for a, b in zip(plain.buffers(), copied.buffers(), strict=True))


def test_images_that_cannot_be_degraded_are_left_out(sweep: Sweep, batch: tuple) -> None:
    from cnnsens_bench.degradations import degradation, degradations
    from cnnsens_bench.degradations.base import uniform_per_image

    def broken(pixels: torch.Tensor, draw: torch.Tensor, level: float) -> torch.Tensor:
        return torch.where((draw < level)[:, None, None, None], float("nan"), pixels - 5)

    degradation("test_broken", draw=uniform_per_image, levels=(0.5,))(broken)
    try:
        conditions = (Condition("test_broken", (0.5, 1.0), 1),)
        made = evaluator(dataclasses.replace(sweep, conditions=conditions))
        ids = [image.image_id for image in sweep.calibration]
        draw = degradations["test_broken"].draw(Streams(0, "data", ids, 0), 48)
        seen = made.recalibrated[1].calibration
        assert len(seen.pixels(9, NetworkInput(48), 1)) == int((draw >= 0.5).sum()) < 9
        assert len(seen.pixels(9, NetworkInput(48), 2)) == 0
        assert run(made, batch)["confidence"].notna().all()
    finally:
        del degradations.data["test_broken"]  # type: ignore[attr-defined]
