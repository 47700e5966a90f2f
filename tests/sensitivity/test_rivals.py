"""The probability that one of several normal margins is negative, against SciPy and against samples."""

import numpy as np
import pytest
from scipy import stats

from cnnsens_bench.sensitivity.rivals import any_negative, any_negative_sigmoid


def margins(count: int, images: int, seed: int, closeness: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return means and covariances of margins; with a `closeness` near 1 they are nearly one."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(images, count, count + 2)) * np.sqrt(1 - closeness)
    factors[:, :, :1] += np.sqrt(closeness * (count + 2))
    scale = np.exp(rng.normal(size=(images, count, 1)))
    factors *= scale
    return rng.normal(0.7, 1.2, (images, count)) * scale[..., 0] * 2, factors @ factors.transpose(0, 2, 1)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize(("closeness", "within"), [(0.0, 2e-4), (0.99, 6e-3)])
def test_it_is_the_multivariate_normal(count: int, closeness: float, within: float) -> None:
    mean, covariance = margins(count, 40, count, closeness)
    found = any_negative(mean, covariance)
    for i in range(len(mean)):
        orthant = stats.multivariate_normal.cdf(mean[i], np.zeros(count), covariance[i], rng=np.random.default_rng(0))
        assert found[i] == pytest.approx(1 - orthant, abs=within)
    assert found.std() > 0.1


def test_an_image_does_not_depend_on_its_batch_or_on_the_order_of_rivals() -> None:
    mean, covariance = margins(3, 9, 5)
    whole = any_negative(mean, covariance)
    alone = [any_negative(mean[i : i + 1], covariance[i : i + 1])[0] for i in range(9)]
    np.testing.assert_array_equal(whole, alone)
    order = [2, 0, 1]
    np.testing.assert_allclose(any_negative(mean[:, order], covariance[:, order][:, :, order]), whole, atol=1e-12)


def test_values_without_variance_count_by_their_sign() -> None:
    covariance = np.zeros((3, 2, 2))
    covariance[:, 1, 1] = 1.0
    found = any_negative(np.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 50.0]]), covariance)
    np.testing.assert_allclose(found, [0.5, 1, 0], atol=1e-12)


def test_one_margin_thrice_is_one_margin() -> None:
    """The covariance is singular."""
    mean = np.array([[0.4, 0.4, 0.4], [2.0, 2.0, 2.0]])
    np.testing.assert_allclose(any_negative(mean, np.ones((2, 3, 3))), stats.norm.cdf(-mean[:, 0]), atol=1e-3)


def test_the_sigmoid_is_close_for_margins_of_one_correlation() -> None:
    rng = np.random.default_rng(0)
    mean = rng.normal(1, 1.5, (200, 3))
    covariance = np.broadcast_to((np.eye(3) + 1) / 2, (200, 3, 3))
    exact, found = any_negative(mean, covariance), any_negative_sigmoid(mean, covariance)
    assert np.abs(found - exact).max() < 0.08
    assert np.abs(found - exact).mean() < 0.04
    doubled = any_negative_sigmoid(2 * mean, 4 * covariance)
    np.testing.assert_allclose(doubled, found)
