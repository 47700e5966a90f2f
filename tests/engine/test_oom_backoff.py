"""Where memory runs out, a batch is halved and goes on; a network that does not fit at all fails its images."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cnnsens_bench import images
from cnnsens_bench.datasets import Samples
from cnnsens_bench.defenses import parse_defense
from cnnsens_bench.engine.evaluate import Evaluator
from cnnsens_bench.engine.networks import LoadedEntrant
from cnnsens_bench.engine.oom_backoff import OomBackoff, fewer_images, out_of_memory
from cnnsens_bench.engine.score import Scorer
from cnnsens_bench.engine.sweep import Condition, Entrant, Sweep
from cnnsens_bench.models import Classifier
from tests.conftest import RecordingReporter, tiny_checkpoint

CPU = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"


class Large(nn.Module):
    """Raises as a device or the system does where a batch has more than `most` images."""

    def __init__(self, network: nn.Module, most: int, error: Exception) -> None:
        super().__init__()
        self.network, self.most, self.error = network, most, error
        self.seen: list[int] = []

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(pixels))
        if len(pixels) > self.most:
            raise self.error
        return self.network(pixels)


SWEEP = Sweep(
    "r",
    "d",
    (Entrant("s/large", "large", "none", "a"), Entrant("s/small", "small", "none", "b")),
    (Condition("pepper", (0.04, 0.3), 2), Condition("flip_lr", (0.0,), 1)),
    batch_size=8,
    sensitivity=True,
)


@pytest.fixture(scope="module")
def batch(samples: Samples) -> tuple[list[str], list[int], list[images.Decoded]]:
    table = samples.table.iloc[::7]
    decoded = [images.decode(r.uri, (r.box_x, r.box_y, r.box_w, r.box_h)) for r in table.itertuples()]
    return table["image_id"].tolist(), table["label"].tolist(), decoded


def entrants(most: int, error: Exception) -> tuple[Large, list[LoadedEntrant]]:
    checkpoint = tiny_checkpoint(0, input_size=32)
    large = Large(checkpoint.classifier().network, most, error)
    plain = tiny_checkpoint(1, input_size=32).classifier()
    defense = parse_defense("none")
    return large, [
        LoadedEntrant(Classifier(large, checkpoint.preprocessing).eval(), defense),
        LoadedEntrant(plain, defense),
    ]


def predicted(batch: tuple, loaded: list[LoadedEntrant], notes: list[str]) -> tuple[pd.DataFrame, list]:
    wanted = np.ones((len(batch[0]), 2, len(SWEEP.cells())), bool)
    results = list(Evaluator(SWEEP, loaded, reporter=RecordingReporter(notes)).evaluate(*batch, wanted))
    table = pd.concat([pd.DataFrame(r.columns).assign(degradation=r.degradation) for r in results])
    keys = ["entrant", "image", "degradation", "level", "trial"]
    return table.sort_values(keys).set_index(keys), [failure for r in results for failure in r.failures]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried"), RuntimeError(CPU)])
def test_a_batch_is_halved_and_goes_on(batch: tuple, error: Exception) -> None:
    expected, _ = predicted(batch, entrants(8, error)[1], [])
    large, loaded = entrants(3, error)
    notes: list[str] = []
    table, failures = predicted(batch, loaded, notes)
    assert not failures
    pd.testing.assert_frame_equal(table, expected, check_exact=False, rtol=1e-4, atol=1e-5)
    # It is said once for each halving, and never tried again.
    assert notes == [
        f"note: memory is short: s/large goes on with {after} images at a time instead of {before}"
        for before, after in ((8, 4), (4, 2))
    ]
    assert large.seen[:2] == [8, 4]
    assert set(large.seen[2:]) == {2}


def test_a_network_that_does_not_fit_fails_and_the_others_go_on(batch: tuple) -> None:
    expected, _ = predicted(batch, entrants(8, MemoryError())[1], [])
    table, failures = predicted(batch, entrants(0, MemoryError())[1], [])
    pd.testing.assert_frame_equal(table, expected.loc[[1]], check_exact=True)
    sentence = "s/large does not fit into the memory with one image at a time"
    assert set(failures) == {(i, "predict", sentence) for i in range(len(batch[0]))}


def test_another_error_is_no_lack_of_memory(batch: tuple) -> None:
    assert not out_of_memory(RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        predicted(batch, entrants(3, RuntimeError("shapes do not match"))[1], [])


def test_scores_too(batch: tuple) -> None:
    ids, _, decoded = batch

    def scored(most: int) -> tuple[pd.DataFrame, list, list[str]]:
        evaluator = Evaluator(SWEEP, entrants(most, MemoryError())[1])
        notes: list[str] = []
        scorer = Scorer(
            SWEEP, evaluator.entrants, torch.device("cpu"), evaluator.pool, reporter=RecordingReporter(notes)
        )
        scores = scorer.score(ids, decoded, np.ones((len(ids), 2, 1), bool))
        table = pd.DataFrame(scores.sensitivity).sort_values(["entrant", "image", "output"], ignore_index=True)
        return table, scores.failures, notes

    expected, none, _ = scored(8)
    table, failures, notes = scored(3)
    assert not none
    assert not failures
    assert len(notes) == 2
    pd.testing.assert_frame_equal(table, expected, check_exact=False, rtol=1e-3)
    table, failures, _ = scored(0)
    assert set(table["entrant"]) == {1}
    assert {stage for _, stage, _ in failures} == {"score"}
    assert {image for image, _, _ in failures} == set(range(len(ids)))


def test_parts_are_in_order_and_whole() -> None:
    backoff = OomBackoff()
    seen = []

    def compute(part: slice) -> range:
        if part.stop - part.start > 3:
            raise MemoryError
        seen.append(part)
        return range(10)[part]

    assert [i for part in backoff.run("k", 10, compute, fewer_images("k")) or [] for i in part] == list(range(10))
    assert backoff.limits == {"k": 2}
