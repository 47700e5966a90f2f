"""What several tests need: the real data where it lies, a small folder of pictures, tiny networks."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cnnsens_bench.datasets import Samples, load
from cnnsens_bench.models import Checkpoint, Preprocessing, split_name
from cnnsens_bench.utils.reporter import Reporter

TINY = "timm/test_resnet"
"""A real architecture of timm's, made for tests."""


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The real data sets, in their official layouts."""
    named = os.environ.get("CNNSENS_DATA")
    root = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not (root / "CUB_200_2011").is_dir():
        pytest.skip(f"no real data: {root} has no CUB_200_2011 (set CNNSENS_DATA to the folder that has it)")
    return root


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `folder` data set of 3 classes × 14 noisy pictures of various sizes, each class of a colour of its own."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for label, colour in enumerate([(200, 60, 60), (60, 190, 70), (70, 70, 210)]):
        (root / f"class_{label}").mkdir()
        for index in range(14):
            height, width = rng.integers(60, 110, 2)
            pixels = np.clip(rng.normal(colour, 40, (height, width, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"class_{label}" / f"{index:02d}.png")
    boxes = [
        {"path": f"class_{label}/{index:02d}.png", "x": 5.5, "y": 3.0, "w": 40.0, "h": 50.25}
        for label in range(3)
        for index in range(14)
    ]
    pd.DataFrame(boxes).to_csv(root / "boxes.csv", index=False)
    return root


@pytest.fixture(scope="session")
def samples(pictures: Path) -> Samples:
    """The sample table of `pictures`."""
    return load("folder", pictures, None, {})


@pytest.fixture(scope="session")
def photographs(pictures: Path) -> list[str]:
    """Two of each class of `pictures`."""
    return [str(pictures / f"class_{i % 3}" / f"{i:02d}.png") for i in range(6)]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of `tiny_checkpoint(1)`."""
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pt"
    tiny_checkpoint(1).save(path)
    return path


def tiny_checkpoint(seed: int = 0, classes: int = 3, input_size: int = 48, model: str = TINY) -> Checkpoint:
    """Random weights whose predictions differ from image to image."""
    torch.manual_seed(seed)
    source, name = split_name(model)
    network = source.build(name, classes, input_size)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.kaiming_normal_(parameter)
    described = source.describe(name)
    preprocessing = Preprocessing(input_size, described.mean, described.std)
    names = tuple(f"class_{i}" for i in range(classes))
    return Checkpoint(model, names, preprocessing, network.state_dict())


class RecordingReporter(Reporter):
    """Appends the messages that it hears to a list, and counts evaluations."""

    def __init__(self, messages: list[str]) -> None:
        self.messages, self.total = messages, 0

    def message(self, sentence: str) -> None:
        self.messages.append(sentence)

    def evaluations(self, count: int) -> None:
        self.total += count
