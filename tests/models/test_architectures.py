"""Every architecture of torchvision and timm is built and run at its own size and at another one, without memory."""

import collections
import contextlib
import re

import pytest
import torch

from cnnsens_bench.models.base import UNBUILDABLE, build_network, check_by_running, model_sources, split_name
from cnnsens_bench.models.uninitialised import UninitialisedWeights
from cnnsens_bench.utils.errors import UserError

TOO_LARGE = [f"torchvision/regnet_{name}gf" for name in ("x_32", "y_16", "y_32", "y_128")]
"""Networks that cannot be built without memory, because they read values on the way, and need too much of it."""


def outcome(model: str, size: int) -> str:
    """Return nothing where a model is built and runs at a size, else the sentence with which it is refused."""
    try:
        try:
            with torch.device("meta"):
                split_name(model)[0].build(split_name(model)[1], 7, size)
            context: contextlib.AbstractContextManager = torch.device("meta")
        except NotImplementedError:  # "Cannot copy out of meta tensor": it reads values while it is built
            context = UninitialisedWeights()
        except UNBUILDABLE:
            context = torch.device("meta")
        if model in TOO_LARGE and isinstance(context, UninitialisedWeights):
            return ""
        with context:
            assert check_by_running(model, build_network(model, 7, size), size) == 7
    except UserError as error:
        return str(error).replace(f"'{model}' ", "")
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("source", ["torchvision", "timm"])
def test_all_architectures_are_built_or_refused_in_one_sentence(source: str) -> None:
    """At their own size only encoders without a head are refused, and few others are at another size."""
    own, other = collections.Counter(), collections.Counter()
    for name in model_sources[source].names():
        if not name.endswith(":"):
            size = model_sources[source].describe(name).input_size
            own[outcome(f"{source}/{name}", size)] += 1
            other[outcome(f"{source}/{name}", 160 if size != 160 else 192)] += 1
    encoders = {sentence for sentence in own if "gives features and no classes" in sentence}
    assert set(own) == {"", *encoders}, own
    assert own[""] >= 0.99 * sum(own.values())
    assert other[""] >= 0.95 * sum(other.values())
    assert not [
        sentence for sentence in other if "\n" in sentence or not re.search("^$|inputs of|no classes", sentence)
    ]
