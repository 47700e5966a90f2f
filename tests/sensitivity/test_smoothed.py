"""The smoothed predictors on linear networks of many classes, where samples and closed forms tell the truth."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from cnnsens_bench.sensitivity.gradients import OutputChange, differentiate
from cnnsens_bench.sensitivity.predictors import PredictorInput, label_change, parse_predictor
from cnnsens_bench.sensitivity.smoothed import margins_of, share_of_upper
from cnnsens_bench.utils.errors import UserError
from tests.sensitivity.test_predictors import SIZE, predictor_input

CLASSES, SIGMA = 6, 6.0


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return 80 + 90 * torch.rand(12, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).double()


def many(pixels: Tensor) -> Tensor:
    """Return logits of a linear network whose classes are close to each other in the middle of the range."""
    weight = torch.randn(CLASSES, pixels[0].numel(), generator=torch.Generator().manual_seed(1)).double()
    return (pixels.flatten(1) - 125) @ weight.T / 120


def sampled_share(given: PredictorInput, count: int) -> np.ndarray:
    reference = given.outputs.reference
    flips = [(given.network(given.degraded(10 + k)).argmax(1) != reference).double() for k in range(count)]
    return torch.stack(flips).mean(0).numpy()


def predicted_share(text: str, given: PredictorInput) -> np.ndarray:
    change = parse_predictor(text).predict(given)
    return label_change(given.outputs.values[-1], change).numpy()


def test_labels_change_as_often_as_predicted(pixels: Tensor) -> None:
    """With all covariances the predictor is exact for Gaussian noise on a linear network."""
    given = predictor_input(many, pixels, "gaussian_rgb", SIGMA)
    truth = sampled_share(given, 2000)
    found = predicted_share("smoothed(copies=2, rivals=4, covariance=True)", given)
    assert truth.max() - truth.min() > 0.3
    chance = 4 * np.sqrt(np.maximum(truth * (1 - truth), 1e-3) / 2000)
    assert (np.abs(found - truth) < chance + 0.01).all()
    one_rival = predicted_share("smoothed(copies=2, rivals=1)", given)
    assert np.abs(one_rival - truth).mean() > 2 * np.abs(found - truth).mean()
    for cheap in ("smoothed(copies=2, rivals=4)", "smoothed_sigmoid(copies=2, rivals=4)"):
        assert np.abs(predicted_share(cheap, given) - truth).mean() < 0.06


@pytest.mark.parametrize(("degradation", "level"), [("gaussian_rgb", SIGMA), ("pepper_pixel", 0.25)])
def test_copies_alone_tell_it_too(degradation: str, level: float, pixels: Tensor) -> None:
    given = predictor_input(many, pixels, degradation, level)
    truth = sampled_share(given, 2000)
    found = predicted_share("smoothed_sampling(copies=500, rivals=4)", given)
    assert truth.max() - truth.min() > 0.3
    assert np.abs(found - truth).mean() < 0.05
    if degradation == "pepper_pixel":
        return  # so few pixels are far from a normal distribution
    few = predicted_share("smoothed_sampling(copies=6, rivals=4)", given)
    plain = np.mean(
        [(given.network(given.degraded(k)).argmax(1) != given.outputs.reference).numpy() for k in range(6)], 0
    )
    assert np.abs(few - truth).mean() < np.abs(plain - truth).mean()


def test_the_cheap_form_is_exact_for_logits_that_scatter_alike(pixels: Tensor) -> None:
    """Orthogonal weights of equal length make margins of equal deviation, with a correlation of 1/2."""
    basis = torch.linalg.qr(torch.randn(3 * SIZE**2, CLASSES, generator=torch.Generator().manual_seed(2)).double())[0]

    def alike(z: Tensor) -> Tensor:
        return (z.flatten(1) - 125) @ basis / 20

    given = predictor_input(alike, pixels, "gaussian_rgb", SIGMA)
    cheap, whole = (
        predicted_share(text, given) for text in ("smoothed(copies=300)", "smoothed(copies=2, covariance=True)")
    )
    np.testing.assert_allclose(cheap, whole, atol=0.02)
    mean = margins_of(given.outputs.logits, given.outputs.reference, given.outputs.logits.topk(4).indices[:, 1:]).T
    covariance = (SIGMA / 20) ** 2 * (np.eye(3) + 1)
    exact = [1 - stats.multivariate_normal.cdf(m, np.zeros(3), covariance) for m in mean.numpy()]
    np.testing.assert_allclose(whole, exact, atol=1e-3)


def test_shifts_are_exact_for_quadratic_margins() -> None:
    """Two classes: their margin is linear in the shift, so its tail is known."""
    slopes = torch.tensor([0.8, -0.3]).double()

    def moved(dx: float, dy: float) -> Tensor:
        return (1 + slopes @ torch.tensor([dx, dy], dtype=torch.float64)).expand(1, 3, SIZE, SIZE)

    def network(z: Tensor) -> Tensor:
        return torch.stack([z[:, 0, 0, 0], z[:, 0, 0, 0] * 0, z[:, 0, 0, 0] * 0 - 50], dim=1)

    still, seen = moved(0, 0), []

    def counted(z: Tensor) -> Tensor:
        seen.append(len(z))
        return network(z)

    outputs = differentiate(network, still)
    given = PredictorInput(counted, still, outputs, "translation", 1.5, lambda k: still, moved)
    for text in ("smoothed", "smoothed(copies=3, covariance=True)", "smoothed_sampling(copies=5)"):
        seen.clear()
        predictor = parse_predictor(text)
        change = predictor.predict(given)
        exact = stats.norm.cdf(-1 / (1.5 * float(slopes.norm())))
        assert float(label_change(outputs.values[-1], change)) == pytest.approx(exact, abs=1e-6)
        assert float(change.deviation[0, 0]) == pytest.approx(1.5 * float(slopes.norm()), rel=1e-9)
        assert len(seen) == predictor.passes - 1


@pytest.mark.parametrize(("text", "forward"), [("smoothed(copies=5)", 5), ("smoothed(copies=3, covariance=True)", 3)])
def test_passes_are_counted(text: str, forward: int, pixels: Tensor) -> None:
    """The forward passes are counted here; the backward passes are two for each margin that is differentiated."""
    seen = []

    def counted(z: Tensor) -> Tensor:
        seen.append(len(z))
        return many(z)

    given = dataclasses.replace(predictor_input(many, pixels, "gaussian_rgb", 2.0), network=counted)
    predictor = parse_predictor(text)
    predictor.predict(given)
    assert len(seen) == forward
    assert predictor.passes == 1 + forward + 2 * (3 if "covariance=True" in predictor.name else 1)


def test_gradients_take_the_chance_of_the_draws_off(pixels: Tensor) -> None:
    """The mean of four copies of a linear network has no error; plain means have one."""
    given = predictor_input(many, pixels, "gaussian_rgb", 3.0)
    for mean in parse_predictor("smoothed").predict(given).mean[:1]:
        np.testing.assert_allclose(mean, 0, atol=1e-6)
    assert parse_predictor("sampling(copies=4)").predict(given).mean[0].abs().max() > 0.01


def test_the_integral_of_the_agreement() -> None:
    shared = torch.tensor([0.02, 0.2, 0.7, 0.999]).double()
    weight, found = share_of_upper(torch.ones(4).double(), shared)
    t = (np.arange(100_000) + 0.5) / 100_000
    for w, agreement in zip(weight.tolist(), shared.tolist(), strict=True):
        exact = np.mean(agreement ** (2 / np.pi * np.arccos(t)))
        assert w + (1 - w) * agreement == pytest.approx(exact, rel=1e-4)
    assert torch.equal(found, shared)
    weight, found = share_of_upper(torch.tensor([0.0, 1.0]).double(), torch.tensor([0.0, -0.5]).double())
    assert torch.isfinite(weight).all()
    assert found.tolist() == [1.0, 0.0]


def test_what_never_changes_is_finite() -> None:
    """A network that ignores its input has no deviation, and one of two classes has one rival."""
    pixels = torch.full((2, 3, SIZE, SIZE), 100.0).double()

    def constant(z: Tensor) -> Tensor:
        return z.flatten(1)[:, :2] * 0 + torch.tensor([1.0, 3.0]).double()

    given = predictor_input(constant, pixels, "gaussian_rgb", 4.0)
    for text in ("smoothed", "smoothed(covariance=True)", "smoothed_sigmoid", "smoothed_sampling"):
        change: OutputChange = parse_predictor(text).predict(given)
        assert torch.isfinite(change.mean).all()
        assert not change.deviation.any()
        assert not label_change(given.outputs.values[-1], change).any()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("smoothed(copies=1)", "copies must be a whole number of at least 2"),
        ("smoothed(rivals=0)", "rivals must be a whole number between 1 and 4"),
        ("smoothed_sigmoid(rivals=5)", "rivals must be a whole number between 1 and 4"),
        ("smoothed(covariance=3)", "covariance must be True or False"),
    ],
)
def test_impossible_arguments_are_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        parse_predictor(text)
