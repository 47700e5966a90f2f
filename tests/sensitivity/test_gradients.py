"""Gradients and the scores of section 4 of the paper against closed forms, finite differences and samples."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cnnsens_bench.models import Classifier, Preprocessing, split_name
from cnnsens_bench.sensitivity.gradients import (
    FIRST_ORDER,
    OUTPUTS,
    blackening,
    central_differences,
    differentiate,
    first_order,
    level_free,
    outputs_of,
)

SIZE, CLASSES = 6, 3
ARCHITECTURES = ["timm/test_resnet", "torchvision/alexnet", "timm/tf_efficientnet_lite0"]


class Linear(nn.Module):
    """A network that maps normalised pixels to logits by one matrix."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(CLASSES, 3 * SIZE * SIZE, generator=generator))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1) @ self.weight.T


@pytest.fixture
def linear() -> Classifier:
    preprocessing = Preprocessing(SIZE, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    return Classifier(Linear(), preprocessing).double().requires_grad_(False)


def images_of(count: int, size: int = SIZE, seed: int = 0) -> Tensor:
    return 60 + 120 * torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)).double()


def columns_of(network: Classifier, pixels: Tensor, wide: Tensor) -> dict[str, Tensor]:
    return level_free(differentiate(network, pixels), pixels, *central_differences(wide))


def network_of(model: str, size: int = 64, classes: int = 5) -> Classifier:
    torch.manual_seed(1)
    source, name = split_name(model)
    described = source.describe(name)
    network = source.build(name, classes, size)
    preprocessing = Preprocessing(size, described.mean, described.std)
    return Classifier(network, preprocessing).double().eval().requires_grad_(False)


@pytest.mark.parametrize("degradation", FIRST_ORDER)
def test_a_linear_network_is_predicted_exactly(linear: Classifier, degradation: str) -> None:
    """Compare with 100,000 samples within their sampling error and with the closed form, through the normalisation."""
    generator = np.random.default_rng(5)
    samples, level = 100_000, {"gaussian_rgb": 4.0, "pepper_pixel": 0.02, "translation": 2.0}[degradation]
    # The image is a ramp, which a translation shifts exactly; the other two work on any image.
    ys, xs = torch.meshgrid(*(torch.arange(-1, SIZE + 1).double(),) * 2, indexing="ij")
    slopes = torch.tensor([[3.0, -2.0], [1.0, 4.0], [-2.5, 0.5]]).double()
    wide = 120 + slopes[:, :1, None] * xs + slopes[:, 1:, None] * ys
    pixels = wide[None, :, 1:-1, 1:-1]
    if degradation != "translation":
        pixels = images_of(1)
    columns = columns_of(linear, pixels, wide[None])
    change = first_order(columns, degradation, level)
    reference = linear(pixels).argmax(1)
    weight = linear.network.weight.view(CLASSES, 3, SIZE, SIZE) * linear.scale
    own = weight[reference[0]]
    if degradation == "gaussian_rgb":
        closed = level * own.norm()
        noise = torch.from_numpy(generator.normal(0, level, (samples, 3 * SIZE * SIZE)))
        changes = noise @ own.flatten()
        mean = 0.0
    elif degradation == "pepper_pixel":
        v = -(pixels[0] * own).sum(0)
        closed, mean = np.sqrt(level * (1 - level)) * v.norm(), level * float(v.sum())
        black = torch.from_numpy(generator.random((samples, SIZE * SIZE)) < level).double()
        changes = black @ v.flatten()
    else:
        along = torch.stack([(own * slopes[:, i, None, None]).sum() for i in (0, 1)])
        closed, mean = level * along.norm(), 0.0
        changes = torch.from_numpy(generator.normal(0, level, (samples, 2))) @ along
    logit = OUTPUTS.index("logit")
    assert float(change.deviation[logit, 0]) == pytest.approx(float(closed), rel=1e-9)
    assert float(change.mean[logit, 0]) == pytest.approx(mean, rel=1e-9, abs=1e-9)
    # This is the standard error of a sample's deviation, from its fourth moment.
    centred = changes - changes.mean()
    error = float((((centred**4).mean() / centred.var() ** 2 - 1) / (4 * samples)) ** 0.5)
    assert float(changes.std()) == pytest.approx(float(closed), rel=4 * error)
    # The paper's V is the second moment.
    assert float((changes**2).mean()) == pytest.approx(float(closed) ** 2 + mean**2, rel=10 * error)


def test_the_margin_of_a_linear_network(linear: Classifier) -> None:
    pixels = images_of(4)
    outputs = differentiate(linear, pixels)
    best = linear(pixels).topk(2, dim=1)
    weight = linear.network.weight.view(CLASSES, 3, SIZE, SIZE) * linear.scale
    margin = OUTPUTS.index("margin")
    assert torch.equal(outputs.reference, best.indices[:, 0])
    torch.testing.assert_close(outputs.values[margin], best.values[:, 0] - best.values[:, 1])
    torch.testing.assert_close(outputs.gradients[margin], weight[best.indices[:, 0]] - weight[best.indices[:, 1]])


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_gradients_equal_finite_differences(model: str) -> None:
    network, pixels = network_of(model), images_of(2, 64)
    outputs = differentiate(network, pixels)
    generator = torch.Generator().manual_seed(0)
    step = 1e-5
    for _ in range(3):
        direction = torch.randn(pixels.shape, generator=generator).double()
        ahead, behind = (outputs_of(network(pixels + s * direction), outputs.reference) for s in (step, -step))
        numeric = (ahead - behind) / (2 * step)
        exact = torch.stack([(gradient * direction).flatten(1).sum(1) for gradient in outputs.gradients])
        scale = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in outputs.gradients])
        assert float(((numeric - exact).abs() / scale).max()) < 1e-4


def test_a_confident_network_in_single_precision_has_the_gradient_of_double() -> None:
    """1 − p is below the rounding of single precision here."""
    torch.manual_seed(0)
    weight = torch.randn(3, 3 * SIZE * SIZE) / 20
    pixels = images_of(4).float()

    def network(z: Tensor) -> Tensor:
        logits = z.flatten(1) @ weight.to(z.dtype).T
        return logits + torch.tensor([25.0, 0, 0]).to(z) - logits.detach() * 0.9

    single, double = (differentiate(network, z, torch.zeros(4, dtype=torch.long)) for z in (pixels, pixels.double()))
    assert (1 - double.values[1] < 1e-7).any()
    for here, there in zip(single.gradients, double.gradients, strict=True):
        error = (here.double() - there).flatten(1).norm(dim=1) / there.flatten(1).norm(dim=1)
        assert float(error.max()) < 1e-3


@pytest.mark.parametrize("model", ARCHITECTURES[:2])
def test_an_image_has_its_own_gradient_whatever_it_is_with(model: str) -> None:
    network = network_of(model).float()
    pixels = images_of(4, 64).float().contiguous(memory_format=torch.channels_last)
    turned = differentiate(network, pixels.flip(0).contiguous(memory_format=torch.channels_last))
    for here, there in zip(differentiate(network, pixels).gradients, turned.gradients, strict=True):
        assert torch.equal(here, there.flip(0))


def test_the_reference_is_the_class_that_is_asked_for(linear: Classifier) -> None:
    pixels = images_of(3)
    asked = torch.tensor([2, 0, 1])
    outputs = differentiate(linear, pixels, asked)
    assert torch.equal(outputs.values[0], linear(pixels)[torch.arange(3), asked])
    assert torch.equal(outputs.values[1], linear(pixels).softmax(1)[torch.arange(3), asked]) or torch.allclose(
        outputs.values[1], linear(pixels).softmax(1)[torch.arange(3), asked], rtol=1e-12
    )
    assert not pixels.requires_grad


def test_one_class_has_no_margin() -> None:
    with pytest.raises(ValueError, match="two classes"):
        differentiate(lambda pixels: pixels.mean((1, 2, 3))[:, None], images_of(1))


def test_central_differences_are_numpys() -> None:
    wide = images_of(2, 9)
    across, down = central_differences(wide)
    by_rows, by_columns = np.gradient(wide.numpy(), axis=(2, 3))
    np.testing.assert_allclose(across.numpy(), by_columns[..., 1:-1, 1:-1])
    np.testing.assert_allclose(down.numpy(), by_rows[..., 1:-1, 1:-1])


def test_blackening_a_pixel() -> None:
    pixels, gradient = images_of(1), torch.randn(1, 3, SIZE, SIZE).double()
    black = pixels.clone()
    black[0, :, 2, 3] = 0
    assert float(((black - pixels) * gradient).sum()) == pytest.approx(float(blackening(gradient, pixels)[0, 2, 3]))


def test_an_unknown_degradation_is_a_key_error(linear: Classifier) -> None:
    pixels = images_of(1)
    with pytest.raises(KeyError):
        first_order(columns_of(linear, pixels, images_of(1, SIZE + 2)), "rotation", 1.0)
