"""Scores of an image batch against a plain loop, and what they must not depend on."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch

from cnnsens_bench import images
from cnnsens_bench.datasets import Samples
from cnnsens_bench.defenses import parse_defense
from cnnsens_bench.engine.evaluate import Evaluator
from cnnsens_bench.engine.networks import LoadedEntrant
from cnnsens_bench.engine.score import Scorer
from cnnsens_bench.engine.sweep import Condition, Entrant, ScoreCell, Sweep
from cnnsens_bench.models import Classifier
from cnnsens_bench.sensitivity.gradients import COLUMNS, OUTPUTS, outputs_of
from tests.conftest import tiny_checkpoint

CONDITIONS = (
    Condition("gaussian_rgb", (2.0, 8.0), 2),
    Condition("pepper_pixel", (0.02,), 2),
    Condition("translation", (0.5,), 2),
    Condition("flip_lr", (0.0,), 1),
)
DEFENSES = ("none", "median_filter(size=3)", "morphological_closing(size=3)")
PREDICTORS = ("clamped_gradient", "noisy_gradients(copies=2)", "sampling(copies=3)", "cubature")


def make_sweep(**changes: object) -> Sweep:
    entrants = tuple(Entrant(f"s/{m}", m, d, m) for m in ("a", "b") for d in DEFENSES)
    sweep = Sweep("r", "data", entrants, CONDITIONS, batch_size=8, sensitivity=True, predictors=PREDICTORS)
    return dataclasses.replace(sweep, **changes)


def loaded(sweep: Sweep) -> list[LoadedEntrant]:
    classifiers = {"a": tiny_checkpoint(0).classifier(), "b": tiny_checkpoint(1, input_size=32).classifier()}
    return [LoadedEntrant(classifiers[e.checkpoint], parse_defense(e.defense)) for e in sweep.entrants]


@pytest.fixture(scope="module")
def batch(samples: Samples) -> tuple[list[str], list[images.Decoded]]:
    table = samples.table.iloc[::6]
    reach = make_sweep().reach(32)
    decoded = [images.decode(r.uri, (r.box_x, r.box_y, r.box_w, r.box_h), *reach) for r in table.itertuples()]
    return table["image_id"].tolist(), decoded


def frames(sweep: Sweep, batch: tuple, wanted: np.ndarray | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    ids, decoded = batch
    evaluator = Evaluator(sweep, loaded(sweep))
    with ThreadPoolExecutor(2) as pool:
        scorer = Scorer(sweep, evaluator.entrants, torch.device("cpu"), pool)
        if wanted is None:
            wanted = np.ones((len(ids), len(sweep.entrants), len(sweep.score_cells())), bool)
        scores = scorer.score(ids, decoded, wanted)
    assert not scores.failures
    assert scores.cells == wanted.sum()
    tables = []
    for columns in (scores.sensitivity, scores.predictions):
        frame = pd.DataFrame(columns)
        if len(frame):
            frame["image"] = [ids[i] for i in frame["image"]]
            keys = [key for key in ("image", "entrant", "predicted", "output") if key in frame]
            frame = frame.sort_values(keys).reset_index(drop=True)
        tables.append(frame)
    return tables[0], tables[1]


@pytest.fixture(scope="module")
def scores(batch: tuple) -> tuple[pd.DataFrame, pd.DataFrame]:
    return frames(make_sweep(), batch)


def test_cells_of_scores_follow_the_sweep() -> None:
    sweep = make_sweep()
    cells = sweep.score_cells()
    assert cells == [ScoreCell(), *sweep.predicted_cells()]
    # 2 + 1 levels of noise, 1 of translation; the clamp is of Gaussian noise alone.
    assert len(cells) == 1 + 2 + 3 + 3 + 1
    assert make_sweep(sensitivity=False).score_cells() == []


def test_networks_that_follow_the_cell_are_not_scored() -> None:
    entrants = tuple(Entrant("s/a", "a", d, "a") for d in ("none", "batch_norm_recalibration(images=64, prior=16)"))
    sweep = make_sweep(entrants=entrants)
    cells, scores = sweep.needed()
    assert cells.shape == (2, len(sweep.cells()))
    assert cells.all()
    assert scores.tolist() == [[True] * 10, [False] * 10]
    assert len(sweep.cell_table()) == cells.sum()
    assert len(sweep.score_table()) == scores.sum()
    assert sweep.evaluations_per_image() == cells.sum() + scores.sum()


def test_scores_equal_a_plain_loop(batch: tuple, scores: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """Image by image, with autograd of the plainest kind."""
    ids, decoded = batch
    sweep, table = make_sweep(), scores[0].set_index(["image", "entrant", "output"])
    assert len(table) == len(ids) * 6 * 3
    for position, entrant in enumerate(loaded(sweep)):
        size = entrant.classifier.preprocessing.input_size
        for image_id, picture in list(zip(ids, decoded, strict=True))[:3]:
            pixels = torch.from_numpy(images.render(picture, size).copy()).permute(2, 0, 1)[None].float()
            sides = {
                (dx, dy): torch.from_numpy(images.render(picture, size, dx, dy).copy()).permute(2, 0, 1)[None].float()
                for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))
            }
            leaf = pixels.clone().requires_grad_()
            logits = entrant.network()(leaf)
            for output, value in enumerate(outputs_of(logits, logits.argmax(1))):
                (gradient,) = torch.autograd.grad(value, leaf, retain_graph=True)
                v = -(gradient * pixels).sum(1)
                row = table.loc[(image_id, position, output)]
                across, down = (sides[1, 0] - sides[-1, 0]) / 2, (sides[0, 1] - sides[0, -1]) / 2
                expected = {
                    "value": value.detach(),
                    "grad_sq_norm": (gradient**2).sum(),
                    "pepper_sum": v.sum(),
                    "pepper_sq_norm": (v**2).sum(),
                    "shift_x": (gradient * across).sum(),
                    "shift_y": (gradient * down).sum(),
                }
                for name in COLUMNS:
                    # A whole pixel's shift is one window further: its 8-bit rounding may differ here and there.
                    wide = 0.02 * float(gradient.norm()) * size if name.startswith("shift") else 1e-6
                    assert row[name] == pytest.approx(float(expected[name]), rel=1e-3, abs=wide), name
                probabilities = logits.detach().softmax(1)
                assert row["entropy"] == pytest.approx(float(-(probabilities * probabilities.log()).sum()), rel=1e-5)


def test_scores_do_not_depend_on_the_batch(batch: tuple, scores: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    ids, decoded = batch
    order = np.random.default_rng(0).permutation(len(ids))
    parts = [order[:1], order[1:4], order[4:]]
    found = [frames(make_sweep(), ([ids[i] for i in part], [decoded[i] for i in part])) for part in parts]
    for kind, keys in ((0, ["image", "entrant", "output"]), (1, ["image", "entrant", "predicted", "output"])):
        together = pd.concat([frame[kind] for frame in found]).sort_values(keys).reset_index(drop=True)
        pd.testing.assert_frame_equal(together, scores[kind], check_exact=True)


def test_only_what_is_wanted_is_scored(batch: tuple, scores: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    ids, _ = batch
    sweep = make_sweep()
    shape = (len(ids), len(sweep.entrants), len(sweep.score_cells()))
    wanted = np.random.default_rng(1).random(shape) < 0.2
    some = frames(sweep, batch, wanted)
    for kind, keys in ((0, ["image", "entrant", "output"]), (1, ["image", "entrant", "predicted", "output"])):
        every = scores[kind]
        image = every["image"].map({image_id: i for i, image_id in enumerate(ids)})
        cell = every["predicted"] + 1 if kind else 0 * image
        kept = every[wanted[image, every["entrant"], cell]]
        pd.testing.assert_frame_equal(some[kind], kept.sort_values(keys).reset_index(drop=True), check_exact=True)


def test_draws_are_none_of_the_sweeps(batch: tuple) -> None:
    """A predictor that saw the noise it is measured by would be no predictor."""
    ids, decoded = batch
    sweep = make_sweep(predictors=("sampling(copies=2)",), entrants=(Entrant("s/a", "a", "none", "a"),))
    predicted = frames(sweep, batch)[1]
    wanted = np.ones((len(ids), 1, len(sweep.cells())), bool)
    rows = []
    for prediction in Evaluator(sweep, loaded(sweep)).evaluate(ids, [0] * len(ids), decoded, wanted):
        rows.append(pd.DataFrame(prediction.columns).assign(degradation=prediction.degradation))
    table = pd.concat(rows)
    measured = table[(table["degradation"] == "gaussian_rgb") & (table["level"] == 8)]
    deviation = measured.groupby("image")["reference_logit"].std()
    index = sweep.predicted_cells().index(ScoreCell("sampling(copies=2)", "gaussian_rgb", 8.0))
    own = predicted[(predicted["predicted"] == index) & (predicted["output"] == OUTPUTS.index("logit"))]
    own = own.set_index("image")["deviation"][[ids[i] for i in deviation.index]]
    assert np.abs(own.to_numpy() / deviation.to_numpy() - 1).min() > 1e-4


def test_no_finite_gradient_is_a_failure(batch: tuple) -> None:
    ids, decoded = batch
    sweep = make_sweep(entrants=(Entrant("s/a", "a", "none", "a"),))

    class Broken(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            factor = torch.ones(len(pixels), 1)
            factor[1] = float("nan")
            return pixels.flatten(1)[:, :3] * factor

    broken = Classifier(Broken(), tiny_checkpoint(input_size=32).preprocessing)
    with ThreadPoolExecutor(2) as pool:
        scorer = Scorer(sweep, [LoadedEntrant(broken, parse_defense("none"))], torch.device("cpu"), pool)
        wanted = np.ones((len(ids), 1, len(sweep.score_cells())), bool)
        scores = scorer.score(ids, decoded, wanted)
    assert scores.failures == [(1, "score", "s/a has no finite gradient on it")]
    assert 1 not in scores.sensitivity["image"]
    assert set(scores.sensitivity["image"]) == set(range(len(ids))) - {1}
