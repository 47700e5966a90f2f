"""Networks that are built without initial weights."""

import pytest
import torch
import torchvision
from torch import nn

from cnnsens_bench.models.uninitialised import UninitialisedWeights


@pytest.mark.parametrize("bounds", [(-2.0, 2.0), (-0.04, 0.04), (0.01, 5.0), (-5.0, -0.01)])
@pytest.mark.parametrize("filling", [float("nan"), 1e30, 0.0])
def test_truncated_normal_values_are_not_drawn_for_ever(bounds: tuple[float, float], filling: float) -> None:
    """torch draws again what lies outside the bounds, and memory that nothing has filled can hold anything."""
    tensor = torch.full((64, 64), filling)
    with UninitialisedWeights():
        nn.init.trunc_normal_(tensor, 0.0, 0.02, *bounds)
    assert tensor.min() >= bounds[0]
    assert tensor.max() <= bounds[1]


def test_a_network_is_as_it_was_once_its_weights_are_loaded() -> None:
    state = torchvision.models.vit_b_32(num_classes=3).state_dict()
    with UninitialisedWeights():
        network = torchvision.models.vit_b_32(num_classes=3)
    network.load_state_dict(state)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
