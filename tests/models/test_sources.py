"""Model sources: what a decorated function is enough for, and what is refused."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from cnnsens_bench.models import Preprocessing, model_source, model_sources, split_name
from cnnsens_bench.models.base import build_network, preprocessing_of
from cnnsens_bench.models.loading import load_network
from cnnsens_bench.models.weights import StartingWeights, starting_weights
from cnnsens_bench.utils.errors import UserError

PREPROCESSING = {"small": Preprocessing(16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))}


def build(architecture: str, num_classes: int, input_size: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes))


@pytest.fixture(autouse=True)
def only_built_in_sources_afterwards() -> Iterator[None]:
    before = set(model_sources)
    yield
    for name in set(model_sources) - before:
        del model_sources.data[name]


def test_one_decorated_function_is_a_source() -> None:
    state = build("small", 1000, 16).state_dict()
    own = model_source(
        "lab",
        names=lambda: list(PREPROCESSING),
        describe=PREPROCESSING.__getitem__,
        pretrained=lambda architecture: state,
    )
    assert own(build) is build
    source, architecture = split_name("lab/small")
    assert (source.name, architecture) == ("lab", "small")
    assert preprocessing_of("lab/small", None).input_size == 16
    network = load_network("lab/small")
    assert len(network.classes) == 1000
    assert torch.equal(network.classifier.network[2].weight, state["2.weight"])
    with pytest.raises(UserError, match="unknown model 'lab/smal': did you mean 'small'"):
        split_name("lab/smal")
    own(build)  # the same definition again, as in a notebook


def test_a_source_without_weights_says_so() -> None:
    model_source("lab", names=lambda: ["small"], describe=PREPROCESSING.__getitem__)(build)
    assert build_network("lab/small", 7, 16)(torch.zeros(2, 3, 16, 16)).shape == (2, 7)
    assert starting_weights("lab/small", "random") == StartingWeights(None, "random")
    with pytest.raises(UserError, match="'lab/small' cannot be had from its source, which has none; or give a file"):
        starting_weights("lab/small", "auto")


def test_two_sources_of_one_name_are_refused() -> None:
    register = model_source("timm", names=lambda: ["small"], describe=PREPROCESSING.__getitem__)
    with pytest.raises(UserError, match="the model source 'timm' is registered twice"):
        register(build)
