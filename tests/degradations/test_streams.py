"""What random numbers depend on, and their distributions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cnnsens_bench.degradations.kernels import philox
from cnnsens_bench.degradations.streams import NORMAL_BINS, NORMAL_MAX, Streams, normal_table, philox_uint64s


def streams(ids: list[str], trial: int = 0, **changes: object) -> Streams:
    given = {"seed": 3, "dataset": "d", "image_ids": ids, "trial": trial, "degradation": "g", **changes}
    return Streams(**given)  # type: ignore[arg-type]


@given(key=st.tuples(*[st.integers(0, 2**64 - 1)] * 2), call=st.integers(1, 9), count=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_torch_philox_gives_numpys_numbers(key: tuple[int, int], call: int, count: int) -> None:
    keys = np.array([key], dtype=np.uint64)
    expected = np.random.Philox(key=keys[0], counter=[0, call, 0, 0]).random_raw(count)
    numbers = philox_uint64s(torch.from_numpy(keys.view(np.int64)), call, count)
    np.testing.assert_array_equal(numbers.numpy().view(np.uint64)[0], expected)


@pytest.mark.parametrize("method", ["normal", "uniform"])
def test_the_device_path_gives_the_same_bits(method: str) -> None:
    """Run on the CPU the torch arithmetic that a GPU runs."""
    here, there = streams(["a", "b"]), streams(["a", "b"])
    there.on_host = False
    assert torch.equal(getattr(here, method)(5, 7), getattr(there, method)(5, 7))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("method", ["normal", "uniform"])
def test_the_gpu_gives_the_same_bits(method: str) -> None:
    on_gpu = getattr(streams(["a", "b"], device="cuda"), method)(3, 33)
    assert torch.equal(getattr(streams(["a", "b"]), method)(3, 33), on_gpu.cpu())


def test_the_table_is_that_of_the_normal_distribution() -> None:
    """Its bits decide all draws, whatever library computes the quantiles."""
    edges = stats.norm.ppf(np.arange(NORMAL_BINS + 1) / NORMAL_BINS)
    means = -np.diff(stats.norm.pdf(edges)) * NORMAL_BINS
    means = (means - means[::-1]) / 2
    np.testing.assert_array_equal(normal_table(), (means / np.sqrt(np.mean(means**2))).astype(np.float32))


def test_a_draw_depends_on_nothing_but_its_key() -> None:
    batch = streams(["a", "b", "c"]).normal(5, 5)
    for i, image_id in enumerate("abc"):
        assert torch.equal(streams([image_id]).normal(5, 5)[0], batch[i])
    assert torch.equal(streams(["c", "a"]).normal(5, 5), batch[[2, 0]])


@pytest.mark.parametrize(
    "change", [{"seed": 4}, {"dataset": "e"}, {"image_ids": ["b"]}, {"trial": 1}, {"degradation": "h"}], ids=str
)
def test_a_draw_depends_on_all_of_its_key(change: dict) -> None:
    base = streams(["a"]).normal(100_000)
    other = streams(change.pop("image_ids", ["a"]), **{"trial": 0, **change}).normal(100_000)
    assert abs(np.corrcoef(base[0], other[0])[0, 1]) < 5 / np.sqrt(100_000)


def test_calls_follow_each_other_without_overlap() -> None:
    source = streams(["a"])
    first, second = source.uniform(50_000)[0], source.uniform(50_000)[0]
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(50_000)
    assert source.integers() != source.integers()


def test_normal_is_normal() -> None:
    draws = streams(["a"]).normal(1_000_000)[0].numpy()
    assert abs(draws.mean()) < 5 / 1e3
    assert abs(draws.std() - 1) < 5 / np.sqrt(2e6)
    assert stats.kstest(draws, "norm").statistic < 1.63 / 1e3  # 1 % point
    assert abs(stats.kurtosis(draws)) < 5 * np.sqrt(24 / 1e6)
    assert abs(draws).max() < NORMAL_MAX


def test_uniform_is_uniform() -> None:
    draws = streams(["a"]).uniform(1_000_000)[0].numpy()
    assert 0 <= draws.min() < draws.max() < 1
    assert stats.kstest(draws, "uniform").statistic < 1.63 / 1e3


def test_the_normal_table_has_exact_moments() -> None:
    table = normal_table().astype(float)
    assert abs(table.mean()) < 1e-9
    assert abs((table**2).mean() - 1) < 1e-7
    assert (np.diff(table) > 0).all()
    np.testing.assert_allclose(stats.norm.cdf(table), (np.arange(65536) + 0.5) / 65536, atol=1 / 65536)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 15, 16, 17, 1003])
def test_compiled_loops_give_numpys_numbers(count: int) -> None:
    keys = np.array([[1, 2**64 - 1], [2**63, 12345]], np.uint64)
    words = [np.random.Philox(key=key, counter=[0, 3, 0, 0]).random_raw(count).astype("<u8") for key in keys]
    uniform, normal = np.empty((2, count), np.float32), np.empty((2, count), np.float32)
    philox.uniform_rows(keys, 3, uniform)
    philox.table_rows(keys, 3, normal_table(), normal)
    for row, numbers in enumerate(words):
        assert (uniform[row] == (numbers.view("<u4")[:count] >> 8) * np.float32(2**-24)).all()
        assert (normal[row] == normal_table()[numbers.view("<u2")[:count]]).all()
