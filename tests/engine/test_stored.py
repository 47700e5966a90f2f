"""Degraded images stored as JPEG, and frost from photographs: the same rows however images are grouped."""

import dataclasses
import importlib.util
import io
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cnnsens_bench.datasets import Samples
from cnnsens_bench.degradations import Streams, degradations
from cnnsens_bench.engine.degrade import digitize, previews
from cnnsens_bench.engine.dry_run import probe
from cnnsens_bench.engine.sweep import Condition, Sweep
from cnnsens_bench.images import frost
from cnnsens_bench.utils.errors import UserError
from tests.engine.test_evaluate import batch as batch  # a fixture
from tests.engine.test_evaluate import loaded, make_sweep, run

CONDITIONS = (
    Condition("common:frost", (1.0, 5.0), 2),
    Condition("common:frost(2) + pepper", (0.1,), 1),
    Condition("translation", (4.0,), 1),
    Condition("flip_lr", (0.0,), 1),
)
STORED = make_sweep(conditions=CONDITIONS, frost="photographs", stored_quality=85)


@pytest.mark.parametrize("quality", [1, 10, 85, 100])
def test_it_is_what_pillow_stores(quality: int) -> None:
    values = np.random.default_rng(0).normal(120, 50, (3, 37, 41, 3)).clip(0, 255).astype(np.float32)
    ours = digitize(
        torch.from_numpy(values).permute(0, 3, 1, 2).clone(), Sweep("r", "d", (), (), stored_quality=quality)
    )
    for one, result in zip(values, ours, strict=True):
        file = io.BytesIO()
        Image.fromarray(one.round().astype(np.uint8)).save(file, "JPEG", quality=quality, optimize=True)
        assert np.array_equal(np.asarray(Image.open(file)), result.permute(1, 2, 0).numpy())


def test_nan_stays_nan() -> None:
    pixels = torch.full((2, 3, 8, 8), 50.0)
    pixels[1, 0, 0, 0] = float("nan")
    digitize(pixels, Sweep("r", "d", (), (), stored_quality=85))
    assert pixels.isnan().flatten(1).any(1).tolist() == [False, True]


def test_batches_and_order_do_not_matter(batch: tuple) -> None:
    whole = run(STORED, batch)
    order = list(reversed(range(len(batch[0]))))
    for other in (run(dataclasses.replace(STORED, batch_size=3), batch), run(STORED, batch, order=order)):
        pd.testing.assert_frame_equal(whole, other)


def test_both_keys_change_what_they_say_alone(batch: tuple) -> None:
    """The undegraded rows stay; each key changes rows; the defaults are the sweep without the keys."""
    plain = run(make_sweep(conditions=CONDITIONS), batch)
    for changes, degraded in (
        ({"frost": "photographs"}, {"common:frost", "common:frost(2) + pepper"}),
        ({"stored_quality": 85}, {condition.degradation for condition in CONDITIONS}),
    ):
        other = run(make_sweep(conditions=CONDITIONS, **changes), batch)
        differs = (plain["reference_logit"] != other["reference_logit"]).groupby("degradation").any()
        assert set(differs.index[differs]) == degraded


def test_a_stored_image_is_what_the_network_sees(batch: tuple) -> None:
    """A flip is exact, so that what the network sees is Pillow's JPEG of the flipped view."""
    ids, _, decoded = batch
    table = run(STORED, batch)
    entrant = loaded(STORED)[0]
    [[view]] = previews(decoded[0], ids[0], "data", CONDITIONS[-1:], 48)
    file = io.BytesIO()
    Image.fromarray(view).save(file, "JPEG", quality=85, optimize=True)
    pixels = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        logits = entrant.classifier(pixels)[0]
    found = table.loc[(ids[0], 0, "flip_lr", 0.0, 0)]
    assert found["prediction"] == int(logits.argmax())
    assert found["confidence"] == pytest.approx(float(logits.softmax(0).max()), abs=1e-5)


def test_a_sweep_is_pickled_without_its_photographs() -> None:
    assert len(pickle.dumps(STORED)) < 4000


def test_previews_and_severities_share_a_crop(batch: tuple) -> None:
    ids, _, decoded = batch
    shown = {
        ice: next(previews(decoded[0], ids[0], "data", [Condition("common:frost", (1.0, 5.0), 1)], 48, frost=ice))
        for ice in ("generated", "photographs")
    }
    assert not np.array_equal(shown["generated"][0], shown["photographs"][0])
    draw = STORED.degradation("common:frost").draw(Streams(0, "data", ids[:1], 0), 48)
    black = torch.zeros(1, 3, 48, 48)
    weak, strong = (STORED.degradation("common:frost").apply(black, draw, level) for level in (1.0, 5.0))
    assert torch.allclose(weak / 0.4, strong / 0.75, atol=1e-3)


def test_the_registered_frost_is_the_generated_one() -> None:
    assert make_sweep().degradation("common:frost") is degradations["common:frost"]
    assert STORED.degradation("common:frost").name == "common:frost"
    assert STORED.degradation("flip_lr + common:frost(3)").name == "flip_lr + common:frost(3)"


@pytest.fixture
def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for cached in (frost.frost_photographs, frost._photographs):
        cached.cache_clear()


@pytest.mark.usefixtures("without_package")
def test_an_absent_package_is_one_sentence(samples: Samples) -> None:
    for needs in ("common:frost", "common:frost(2) + pepper(0.1)"):
        with pytest.raises(UserError, match=r"imagecorruptions, which is not installed.*frost=generated"):
            probe([Condition(needs, (1.0,), 1)], [32], frost="photographs")
    with pytest.raises(UserError, match="imagecorruptions"):
        STORED.require_files()
    probe([Condition("common:frost", (1.0,), 1)], [32])
    make_sweep(conditions=CONDITIONS[2:], frost="photographs").require_files()
