"""Models of noise against the degradations themselves."""

import pytest
import torch

from cnnsens_bench.degradations import Streams, parse_degradation
from cnnsens_bench.sensitivity.noise import ADDITIVE, noise_model

SIZE, COPIES = 20, 300
LEVELS = {"gaussian_rgb": (5.0, 40.0)}


@pytest.mark.parametrize(
    ("name", "level"), [(name, level) for name in ADDITIVE for level in LEVELS.get(name, (1.0, 3.0, 5.0))]
)
def test_the_degradation_has_the_mean_and_the_variance_of_its_model(name: str, level: float) -> None:
    """The variance is that of a function which is linear in the pixels; its gradient at copies sees the clamp."""
    pixels = 60 + 100 * torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    pixels = pixels.to(memory_format=torch.channels_last)
    gradient = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    degradation, model = parse_degradation(name), noise_model(name, level, pixels)
    changes, norms = [], []
    for trial in range(COPIES):
        draw = degradation.draw(Streams(0, "data", ["a"], trial), SIZE)
        copy = degradation.apply(pixels, draw, level).clamp(0, 255)
        changes.append(copy - pixels)
        norms.append(float((model.by_unit_noise(gradient, copy) ** 2).sum()))
    change = torch.cat(changes)
    linear = (change * gradient).sum((1, 2, 3))
    within = 0.15 if level < 5 else 0.3  # the clamp of the strongest levels is not smooth
    assert torch.tensor(norms).mean().sqrt().item() == pytest.approx(linear.std().item(), rel=within)
    if model.mean is not None:
        error = ((change.mean(0) - model.mean[0]) ** 2).mean() / (change.var(0).mean() / COPIES)
        assert error.sqrt() < 1.1  # 1 by chance
    else:
        assert name == "common:shot_noise"


def test_other_degradations_have_no_model() -> None:
    with pytest.raises(KeyError):
        noise_model("common:fog", 1.0, torch.zeros(1, 3, 2, 2))
