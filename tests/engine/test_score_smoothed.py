"""Smoothed scores of an image batch: they do not depend on the batch, and common corruptions have them too."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch

from cnnsens_bench import images
from cnnsens_bench.datasets import Samples
from cnnsens_bench.engine.evaluate import Evaluator
from cnnsens_bench.engine.score import Scorer
from cnnsens_bench.engine.sweep import Condition, Entrant, Sweep
from cnnsens_bench.sensitivity.gradients import OUTPUTS
from tests.engine.test_score import loaded

SWEEP = Sweep(
    "r",
    "data",
    (Entrant("s/a", "a", "none", "a"),),
    (
        Condition("gaussian_rgb", (0.0, 16.0), 2),
        Condition("pepper_pixel", (0.02,), 2),
        Condition("translation", (0.5,), 2),
        Condition("common:gaussian_noise", (1.0,), 1),
        Condition("common:shot_noise", (5.0,), 1),
        Condition("common:impulse_noise", (1.0,), 1),
        Condition("common:fog", (1.0,), 1),
    ),
    batch_size=4,
    sensitivity=True,
    predictors=("smoothed(copies=3, rivals=3, covariance=False)", "smoothed_sampling(copies=3, rivals=3)"),
)


@pytest.fixture(scope="module")
def batch(samples: Samples) -> tuple[list[str], list[images.Decoded]]:
    table = samples.table.iloc[::9]
    reach = SWEEP.reach(32)
    decoded = [images.decode(r.uri, (r.box_x, r.box_y, r.box_w, r.box_h), *reach) for r in table.itertuples()]
    return table["image_id"].tolist(), decoded


def scored(ids: list[str], decoded: list[images.Decoded]) -> pd.DataFrame:
    evaluator = Evaluator(SWEEP, loaded(SWEEP))
    with ThreadPoolExecutor(2) as pool:
        scorer = Scorer(SWEEP, evaluator.entrants, torch.device("cpu"), pool)
        found = []
        for start in range(0, len(ids), SWEEP.batch_size):
            part = slice(start, start + SWEEP.batch_size)
            wanted = np.ones((len(ids[part]), 1, len(SWEEP.score_cells())), bool)
            scores = scorer.score(ids[part], decoded[part], wanted)
            assert not scores.failures
            frame = pd.DataFrame(scores.predictions)
            found.append(frame.assign(image=[ids[part][i] for i in frame["image"]]))
    return pd.concat(found).sort_values(["image", "predicted", "output"]).reset_index(drop=True)


def test_smoothed_scores_do_not_depend_on_the_batch(batch: tuple[list[str], list[images.Decoded]]) -> None:
    ids, decoded = batch
    whole, reversed_order = scored(ids, decoded), scored(ids[::-1], decoded[::-1])
    alone = scored(ids[:1], decoded[:1])
    assert len(whole) == len(ids) * 2 * 7 * len(OUTPUTS)  # no predictor knows fog
    assert (whole["deviation"] >= 0).all()
    pd.testing.assert_frame_equal(whole, reversed_order, check_exact=True)
    pd.testing.assert_frame_equal(whole[whole["image"] == ids[0]].reset_index(drop=True), alone, check_exact=True)
    positions = [i for i, cell in enumerate(SWEEP.predicted_cells()) if cell.level == 0]
    still = whole[whole["predicted"].isin(positions)]
    assert not still["deviation"].any()
