"""The evaluator against a plain loop, and what its results must not depend on."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from cnnsens_bench import images
from cnnsens_bench.datasets import Samples
from cnnsens_bench.defenses import parse_defense
from cnnsens_bench.degradations import Motion, Streams, degradation, degradations, parse_degradation
from cnnsens_bench.degradations.base import uniform_per_image
from cnnsens_bench.engine.evaluate import Evaluator
from cnnsens_bench.engine.networks import LoadedEntrant
from cnnsens_bench.engine.sweep import Condition, Entrant, Sweep
from cnnsens_bench.models import Classifier, Preprocessing
from tests.conftest import tiny_checkpoint

CONDITIONS = (
    Condition("gaussian_rgb", (4.0, 64.0), 2),
    Condition("pepper", (0.04, 0.3), 2),
    Condition("translation", (1.0, 8.0), 2),
    Condition("flip_lr", (0.0,), 1),
)
DEFENSES = ("none", "gaussian_filter(size=3, sigma=0.5)")


def make_sweep(**changes: object) -> Sweep:
    entrants = tuple(Entrant(f"s/{m}", m, d, m) for m in ("a", "b") for d in DEFENSES)
    return dataclasses.replace(Sweep("r", "data", entrants, CONDITIONS, batch_size=8), **changes)


def loaded(sweep: Sweep) -> list[LoadedEntrant]:
    # Two input sizes, so that there are two passes.
    classifiers = {"a": tiny_checkpoint(0).classifier(), "b": tiny_checkpoint(1, input_size=32).classifier()}
    return [LoadedEntrant(classifiers[e.checkpoint], parse_defense(e.defense)) for e in sweep.entrants]


@pytest.fixture(scope="module")
def batch(samples: Samples) -> tuple[list[str], list[int], list[images.Decoded]]:
    table = samples.table.iloc[::4]
    reach = make_sweep().reach(32)
    decoded = [images.decode(r.uri, (r.box_x, r.box_y, r.box_w, r.box_h), *reach) for r in table.itertuples()]
    return table["image_id"].tolist(), table["label"].tolist(), decoded


def run(sweep: Sweep, batch: tuple, wanted: np.ndarray | None = None, order: list[int] | None = None) -> pd.DataFrame:
    ids, labels, decoded = ([part[i] for i in order] for part in batch) if order else batch
    if wanted is None:
        wanted = np.ones((len(ids), len(sweep.entrants), len(sweep.cells())), bool)
    frames = []
    for prediction in Evaluator(sweep, loaded(sweep)).evaluate(ids, labels, decoded, wanted):
        assert not prediction.failures
        if prediction.columns:
            frames.append(pd.DataFrame(prediction.columns).assign(degradation=prediction.degradation))
    table = pd.concat(frames)
    table["image"] = [ids[i] for i in table["image"]]
    keys = ["image", "entrant", "degradation", "level", "trial"]
    return table.sort_values(keys).set_index(keys)


def test_it_equals_a_plain_loop(batch: tuple) -> None:
    """One image, one condition, one network at a time, by the protocol's text."""
    ids, labels, decoded = batch
    sweep = make_sweep()
    table = run(sweep, batch)
    assert len(table) == len(ids) * 4 * len(sweep.cells())
    assert not table.index.duplicated().any()
    for position, entrant in enumerate(loaded(sweep)):
        size = entrant.classifier.preprocessing.input_size
        for image_id, label, picture in list(zip(ids, labels, decoded, strict=True))[:3]:
            for cell in sweep.cells():
                still = torch.from_numpy(images.render(picture, size)).permute(2, 0, 1)[None].float()
                noisy = still
                if cell.degradation != "none":
                    d = parse_degradation(cell.degradation)
                    draw = d.draw(Streams(0, "data", [image_id], cell.trial), size)
                    if d.geometric:
                        moved = images.render(picture, size, *d.motion(draw, cell.level).views(1)[0])
                        noisy = torch.from_numpy(moved).permute(2, 0, 1)[None].float()
                    noisy = d.apply(noisy, draw, cell.level).clamp(0, 255)
                filtered = [entrant.defense.prefilter(x) if entrant.defense.prefilter else x for x in (still, noisy)]
                with torch.no_grad():
                    reference, logits = (entrant.classifier(x)[0].double() for x in filtered)
                row = table.loc[(image_id, position, cell.degradation, cell.level, cell.trial)]
                probability = logits.softmax(0)
                chosen = int(reference.argmax())
                assert row["prediction"] == int(logits.argmax())
                assert row["true_rank"] == 1 + int((logits > logits[label]).sum())
                expected = [probability.max(), probability[label], logits[chosen], probability[chosen]]
                found = row[["confidence", "true_probability", "reference_logit", "reference_probability"]]
                np.testing.assert_allclose(found.to_numpy(float), [float(x) for x in expected], rtol=2e-4, atol=1e-5)


def test_order_and_grouping_change_no_bit_of_the_predictions(batch: tuple) -> None:
    sweep = make_sweep()
    whole = run(sweep, batch)
    order = list(reversed(range(len(batch[0]))))
    pd.testing.assert_frame_equal(run(sweep, batch, order=order), whole, check_exact=True)
    halves = [tuple(part[i::2] for part in batch) for i in (0, 1)]
    grouped = pd.concat([run(sweep, half) for half in halves]).sort_index()
    pd.testing.assert_frame_equal(grouped, whole.sort_index(), check_exact=True)


class Recorder(nn.Module):
    """Keeps what a network would see."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, pixels: Tensor) -> Tensor:
        self.seen.append(pixels.clone())
        return torch.zeros(len(pixels), 3)


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_pixels_are_the_same_bits_for_any_batch_size(batch: tuple, batch_size: int) -> None:
    ids, labels, decoded = batch

    def pixels(sweep: Sweep, order: list[int]) -> dict[bytes, Tensor]:
        recorder = Recorder()
        classifier = Classifier(recorder, Preprocessing(40, (0.0, 0.0, 0.0), (1 / 255,) * 3))
        evaluator = Evaluator(sweep, [LoadedEntrant(classifier, parse_defense("none"))])
        wanted = np.ones((len(ids), 1, len(sweep.cells())), bool)
        picked = ([part[i] for i in order] for part in (ids, labels, decoded))
        rows = sum(len(p.columns["image"]) for p in evaluator.evaluate(*picked, wanted))
        every = torch.cat(recorder.seen)
        assert len(every) >= rows
        return {row.contiguous().numpy().tobytes(): row for row in every if row.any()}

    entrant = (Entrant("s/a", "a", "none", "a"),)
    base = pixels(make_sweep(entrants=entrant), list(range(len(ids))))
    other = pixels(make_sweep(entrants=entrant, batch_size=batch_size), list(range(len(ids)))[::-1])
    assert base.keys() == other.keys()
    assert len(base) == len(ids) * len(make_sweep().cells())


def test_only_what_is_wanted_is_given(batch: tuple) -> None:
    sweep = make_sweep()
    shape = (len(batch[0]), 4, len(sweep.cells()))
    wanted = np.random.default_rng(0).random(shape) < 0.15
    some = run(sweep, batch, wanted)
    assert len(some) == wanted.sum()
    whole = run(sweep, batch)
    pd.testing.assert_frame_equal(some, whole.loc[some.index], check_exact=True)


def test_quantize_gives_whole_levels(batch: tuple) -> None:
    recorder = Recorder()
    classifier = Classifier(recorder, Preprocessing(32, (0.0, 0.0, 0.0), (1 / 255,) * 3))
    sweep = make_sweep(entrants=(Entrant("s/a", "a", "none", "a"),), quantize=True)
    wanted = np.ones((len(batch[0]), 1, len(sweep.cells())), bool)
    list(Evaluator(sweep, [LoadedEntrant(classifier, parse_defense("none"))]).evaluate(*batch, wanted))
    pixels = torch.cat(recorder.seen) * 1.0
    assert (pixels - pixels.round()).abs().max() < 1e-3
    assert pixels.min() >= 0
    assert pixels.max() <= 255.001


def test_logits_that_are_no_numbers_are_told_apart(batch: tuple) -> None:
    class Broken(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            logits = pixels.mean((2, 3))
            logits[pixels[:, 0].mean((1, 2)) > 0.55] = float("nan")
            return logits

    classifier = Classifier(Broken(), Preprocessing(32, (0.0, 0.0, 0.0), (1.0,) * 3))
    sweep = make_sweep(entrants=(Entrant("s/a", "a", "none", "a"),))
    wanted = np.ones((len(batch[0]), 1, len(sweep.cells())), bool)
    evaluator = Evaluator(sweep, [LoadedEntrant(classifier, parse_defense("none"))])
    results = list(evaluator.evaluate(*batch, wanted))
    failures = [failure for r in results for failure in r.failures]
    assert {stage for _, stage, _ in failures} == {"predict"}
    assert 0 < len({image for image, _, _ in failures}) < len(batch[0])
    assert all(np.isfinite(r.columns["confidence"]).all() for r in results if r.columns)


def raising(pixels: Tensor, draw: Tensor, level: float) -> Tensor:
    if (draw < 0.3).any():
        raise ValueError("too dark")
    return pixels - level


def cropping(pixels: Tensor, draw: Tensor, level: float) -> Tensor:
    return pixels[..., 1:] if (draw < 0.3).any() else pixels - level


def not_a_number(pixels: Tensor, draw: Tensor, level: float) -> Tensor:
    return torch.where((draw < 0.3)[:, None, None, None], float("nan"), pixels - level)


def moving(draw: Tensor, level: float) -> Motion:
    if (draw < 0.3).any():
        raise ValueError("too far")
    return Motion(dx=level * draw)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (raising, "'test_bad' raised ValueError: too dark"),
        (cropping, "'test_bad' raised ValueError: it returned"),
        (not_a_number, "'test_bad' returned NaN"),
        (moving, "'test_bad' raised ValueError: too far"),
    ],
)
def test_a_bad_degradation_fails_on_those_images_alone(batch: tuple, function: object, sentence: str) -> None:
    geometric = function is moving
    degradation("test_bad", draw=uniform_per_image, levels=(1,), geometric=geometric)(function)
    try:
        sweep = make_sweep(conditions=(Condition("test_bad", (5.0, 9.0), 2), *CONDITIONS[:1]), batch_size=64)
        wanted = np.ones((len(batch[0]), len(sweep.entrants), len(sweep.cells())), bool)
        undegraded, bad, other = Evaluator(sweep, loaded(sweep)).evaluate(*batch, wanted)
        draws = [degradations["test_bad"].draw(Streams(0, "data", batch[0], t), 40) for t in (0, 1)]
        hit = [set(np.flatnonzero(draw < 0.3)) for draw in draws]
        if geometric:  # one motion for all: nobody's draw is good alone
            assert {image for image, _, _ in bad.failures} == set(range(len(batch[0])))
        else:
            assert {image for image, _, _ in bad.failures} == hit[0] | hit[1]
            rows = pd.DataFrame(bad.columns)
            for trial in (0, 1):
                assert set(rows[rows["trial"] == trial]["image"]) == set(range(len(batch[0]))) - hit[trial]
        assert 0 < len(hit[0]) < len(batch[0])
        assert all(stage == "degrade" and text.startswith(sentence) for _, stage, text in bad.failures)
        assert all("(first at level 5, trial " in text or "(first at trial" in text for _, _, text in bad.failures)
        assert not undegraded.failures + other.failures
        assert len(other.columns["image"]) == wanted[:, :, -len(CONDITIONS[0].levels) * CONDITIONS[0].trials :].sum()
    finally:
        del degradations.data["test_bad"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("geometric", [False, True])
def test_a_draw_that_has_no_rows_fails_where_only_some_are_wanted(batch: tuple, geometric: bool) -> None:
    """A sweep goes on, whatever the tries before it let through."""
    functions = (lambda pixels, draw, level: pixels, lambda draw, level: Motion(dx=1.0))
    draw = lambda streams, size: {"a": uniform_per_image(streams, size)}  # noqa: E731
    degradation("test_bad", draw=draw, levels=(1,), geometric=geometric)(functions[geometric])
    try:
        sweep = make_sweep(conditions=(Condition("test_bad", (1.0, 2.0), 1), CONDITIONS[-1]))
        wanted = np.ones((len(batch[0]), len(sweep.entrants), len(sweep.cells())), bool)
        wanted[0, :, 1] = False
        _, bad, other = Evaluator(sweep, loaded(sweep)).evaluate(*batch, wanted)
        assert {image for image, _, _ in bad.failures} == set(range(1, len(batch[0])))
        assert all("(first at level 1, trial 0)" in text for _, _, text in bad.failures)
        assert len(other.columns["image"]) == wanted[:, :, -1].sum()
    finally:
        del degradations.data["test_bad"]  # type: ignore[attr-defined]


def test_motions_that_are_none_fail_alone(batch: tuple) -> None:
    degradation("test_bad", levels=(1,), geometric=True)(lambda draw, level: Motion(dx=torch.zeros(99)))
    try:
        sweep = make_sweep(conditions=(Condition("test_bad", (1.0,), 1), CONDITIONS[-1]))
        wanted = np.ones((len(batch[0]), len(sweep.entrants), len(sweep.cells())), bool)
        _, bad, other = Evaluator(sweep, loaded(sweep)).evaluate(*batch, wanted)
        assert {image for image, _, _ in bad.failures} == set(range(len(batch[0])))
        assert len(other.columns["image"]) == wanted[:, :, -1].sum()
    finally:
        del degradations.data["test_bad"]  # type: ignore[attr-defined]
