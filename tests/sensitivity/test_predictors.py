"""Predictors on linear and quadratic functions and on the censored normal, for which the truth is known."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from cnnsens_bench.sensitivity.gradients import Network, OutputChange, differentiate, outputs_of
from cnnsens_bench.sensitivity.predictors import (
    NOISES,
    UPPER_WEIGHT,
    PredictorInput,
    clamped_noise,
    label_change,
    parse_predictor,
    predictors,
)
from cnnsens_bench.utils.errors import UserError

SIZE = 5
ARGUMENTS = {
    "noisy_gradients": "(copies=6)", "sampling": "(copies=400)", "smoothed": "(copies=400)",
    "smoothed_sigmoid": "(copies=400)", "smoothed_sampling": "(copies=400)",
}  # fmt: skip
PREDICTORS = [name + ARGUMENTS.get(name, "") for name in predictors]


def predictor_input(network: Network, pixels: Tensor, degradation: str, level: float) -> PredictorInput:
    def degraded(k: int) -> Tensor:
        generator = torch.Generator().manual_seed(1000 + k)
        if degradation == "gaussian_rgb":
            noisy = pixels + level * torch.randn(pixels.shape, generator=generator).double()
            return noisy.clamp(0, 255)
        kept = torch.rand(len(pixels), 1, SIZE, SIZE, generator=generator) >= level
        return pixels * kept

    def moved(dx: float, dy: float) -> Tensor:
        raise AssertionError("a noise has no use for it")

    return PredictorInput(network, pixels, differentiate(network, pixels), degradation, level, degraded, moved)


@pytest.fixture
def pixels() -> Tensor:
    return 80 + 90 * torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).double()


def linear(pixels: Tensor) -> Tensor:
    weight = torch.randn(2, pixels[0].numel(), generator=torch.Generator().manual_seed(1)).double()
    return pixels.flatten(1) @ weight.T / 50


def quadratic(pixels: Tensor) -> Tensor:
    """Return f = z'Az / 2 + b'z, with z relative to the middle, as the first logit, far above the other."""
    a, b = coefficients(pixels[0].numel())
    z = pixels.flatten(1) - 125
    f = (z @ a * z).sum(1) / 2 + z @ b
    return torch.stack([f, torch.full_like(f, -1e6)], dim=1)


def coefficients(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    a = torch.randn(count, count, generator=generator).double() / 400
    return a + a.T, torch.randn(count, generator=generator).double() / 10


@pytest.mark.parametrize("text", PREDICTORS)
@pytest.mark.parametrize("degradation", NOISES)
def test_every_predictor_is_right_on_a_linear_network(text: str, degradation: str, pixels: Tensor) -> None:
    predictor = parse_predictor(text)
    if degradation not in predictor.degradations:
        return
    level = {"gaussian_rgb": 3.0, "pepper_pixel": 0.05}[degradation]
    given = predictor_input(linear, pixels, degradation, level)
    change = predictor.predict(given)
    gradient = given.outputs.gradients[0]
    if degradation == "gaussian_rgb":
        expected, mean = level * gradient.flatten(1).norm(dim=1), torch.zeros(3)
    else:
        v = -(pixels * gradient).sum(1).flatten(1)
        expected, mean = (level * (1 - level)) ** 0.5 * v.norm(dim=1), level * v.sum(1)
    # The deviation of n samples has a relative error of 1/√(2n), or a little more for the few black pixels.
    replaced = predictor.name.startswith("smoothed") and degradation == "pepper_pixel"
    samples = replaced or predictor.name.startswith(("sampling", "smoothed_sampling"))
    within = 5 / np.sqrt(2 * 400) if samples else 1e-9
    np.testing.assert_allclose(change.deviation[0], expected, rtol=within)
    spread = expected / np.sqrt(6 if predictor.name.startswith("noisy") else 400)
    assert ((change.mean[0] - mean).abs() < 4 * spread).all()
    assert change.mean.dtype == change.deviation.dtype == torch.float64
    assert change.deviation.shape == (3, 3)


def test_noisy_gradients_see_curvature(pixels: Tensor) -> None:
    """For a quadratic f, Var f = σ²‖Az + b‖² + σ⁴/2‖A‖².

    First order misses the second term. The arcsine law, which a smooth f does not follow, misses only a part of it.
    """
    sigma = 16.0
    given = predictor_input(quadratic, pixels, "gaussian_rgb", sigma)
    a, b = coefficients(pixels[0].numel())
    first = sigma**2 * (((pixels.flatten(1) - 125) @ a + b) ** 2).sum(1)
    second = sigma**4 / 2 * (a**2).sum()
    exact = (first + second).sqrt()
    assert (second / first > 0.1).all()
    change = parse_predictor("noisy_gradients(copies=200)").predict(given)
    np.testing.assert_allclose(change.deviation[0], (first + 2 * UPPER_WEIGHT * second).sqrt(), rtol=0.03)
    assert ((change.deviation[0] - exact).abs() < 0.4 * (exact - first.sqrt())).all()
    # Curvature shifts the mean by σ²/2 tr A.
    error = exact / np.sqrt(200)
    assert ((change.mean[0] - sigma**2 / 2 * a.trace()).abs() < 4 * error).all()


def test_noisy_gradients_are_exact_at_kinks() -> None:
    """At the kinks of f = Σ aᵢ|zᵢ − 125| the gradient says nothing; a folded normal has the variance (1 − 2/π)σ²."""
    pixels = torch.full((2, 3, SIZE, SIZE), 125.0).double()
    weight = torch.randn(3 * SIZE * SIZE, generator=torch.Generator().manual_seed(4)).double()

    def network(z: Tensor) -> Tensor:
        f = (z.flatten(1) - 125).abs() @ weight
        return torch.stack([f, f - 1e6], dim=1)

    given = predictor_input(network, pixels, "gaussian_rgb", 5.0)
    change = parse_predictor("noisy_gradients(copies=100)").predict(given)
    exact = 5 * np.sqrt((1 - 2 / np.pi) * float((weight**2).sum()))
    np.testing.assert_allclose(change.deviation[0], exact, rtol=0.03)
    assert not given.outputs.gradients[0].any()


def test_cubature_is_exact_for_a_quadratic_shift() -> None:
    """f(x, y) is quadratic and f² of degree 4, so mean and deviation under a normal shift have closed forms."""
    sigma = 0.7
    slopes = torch.tensor([1.5, -0.5]).double()
    bowl = torch.tensor([[0.3, 0.1], [0.1, 0.2]]).double()

    def moved(dx: float, dy: float) -> Tensor:
        shift = torch.tensor([dx, dy], dtype=torch.float64)
        return (10 + slopes @ shift + shift @ bowl @ shift).expand(1, 3, SIZE, SIZE)

    def network(z: Tensor) -> Tensor:
        return torch.stack([z[:, 0, 0, 0], z[:, 0, 0, 0] * 0 - 5], dim=1)

    still = moved(0, 0)
    given = PredictorInput(network, still, differentiate(network, still), "translation", sigma, lambda k: still, moved)
    change = parse_predictor("cubature").predict(given)
    mean = sigma**2 * bowl.trace()
    variance = sigma**2 * (slopes**2).sum() + 2 * sigma**4 * (bowl**2).sum()
    assert float(change.mean[0, 0]) == pytest.approx(float(mean), rel=1e-9)
    assert float(change.deviation[0, 0]) == pytest.approx(float(variance.sqrt()), rel=1e-9)


def test_the_clamp_is_seen() -> None:
    """Half of the noise on black and white images is cut off; compare with samples."""
    pixels = torch.tensor([0.0, 2.0, 253.0, 255.0]).double().view(4, 1, 1, 1).expand(4, 3, SIZE, SIZE).clone()
    given = predictor_input(linear, pixels, "gaussian_rgb", 4.0)
    truth = parse_predictor("sampling(copies=20000)").predict(given)
    plain = 4.0 * given.outputs.gradients[0].flatten(1).norm(dim=1)
    for text in ("clamped_gradient", "noisy_gradients(copies=50)"):
        change = parse_predictor(text).predict(given)
        # The clamp is not smooth, so the rule has an error of some per cent.
        np.testing.assert_allclose(change.deviation[0], truth.deviation[0], rtol=0.02 if text[0] == "c" else 0.12)
        assert ((change.deviation[0] - truth.deviation[0]).abs() < (plain - truth.deviation[0]).abs()).all()
    np.testing.assert_allclose(
        parse_predictor("clamped_gradient").predict(given).mean[0], truth.mean[0], rtol=0.05, atol=0.1
    )


@pytest.mark.parametrize("sigma", [0.5, 4.0, 64.0])
def test_clamped_noise_is_the_censored_normal(sigma: float) -> None:
    values = torch.tensor([0.0, 1.0, 40.0, 127.5, 250.0, 255.0]).double()
    mean, variance = clamped_noise(values, sigma)
    for z, m, v in zip(values.tolist(), mean.tolist(), variance.tolist(), strict=True):
        nodes = stats.norm.ppf((np.arange(400_000) + 0.5) / 400_000)
        clamped = np.clip(z + sigma * nodes, 0, 255) - z
        assert m == pytest.approx(clamped.mean(), abs=1e-3 * sigma)
        assert v == pytest.approx(clamped.var(), rel=1e-3)


def test_no_noise_changes_nothing(pixels: Tensor) -> None:
    for value in clamped_noise(pixels, 0.0):
        assert not value.any()
    change = parse_predictor("clamped_gradient").predict(predictor_input(linear, pixels, "gaussian_rgb", 0.0))
    assert not change.deviation.any()


def test_label_change_is_the_normal_tail() -> None:
    margin = torch.tensor([1.0, 2.0, 3.0, 4.0, 4.0])
    means, deviations = torch.tensor([[0.0, -1.0, 2.0, 0.0, -5.0], [1.0, 2.0, 0.5, 0.0, 0.0]]).double()
    change = OutputChange(means[None], deviations[None])
    expected = [*stats.norm.cdf([-1.0, -0.5, -10.0]), 0.0, 1.0]
    np.testing.assert_allclose(label_change(margin, change), expected, rtol=1e-12)


def test_labels_change_as_often_as_predicted() -> None:
    """The margin of a linear network of two classes is normal, so the share of changes is its tail."""
    pixels = torch.full((1, 3, SIZE, SIZE), 127.0).double()
    still = linear(pixels)[0]

    def network(z: Tensor) -> Tensor:
        return linear(z) - still + torch.tensor([0.0, 1.5]).double()

    given = predictor_input(network, pixels, "gaussian_rgb", 6.0)
    change = parse_predictor("clamped_gradient").predict(given)
    predicted = label_change(given.outputs.values[-1], change).item()
    flips = [bool(outputs_of(network(given.degraded(k)), given.outputs.reference)[-1, 0] < 0) for k in range(4000)]
    assert 0.01 < predicted < 0.99
    assert np.mean(flips) == pytest.approx(predicted, abs=4 * np.sqrt(predicted * (1 - predicted) / 4000))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("noisy_gradient", "unknown predictor 'noisy_gradient': did you mean 'noisy_gradients'"),
        ("noisy_gradients(copies=1)", "copies must be a whole number of at least 2"),
        ("sampling(copies=2.5)", "copies must be a whole number of at least 2"),
        ("sampling(n=3)", "has no argument 'n': it has copies"),
        ("sampling(3)", "its arguments need their names"),
        ("sampling(", "cannot be read"),
    ],
)
def test_a_wrong_predictor_is_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=r"^[^\n]+$") as caught:
        parse_predictor(text)
    assert sentence in str(caught.value)
