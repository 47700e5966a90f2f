"""Models named `module:function`: networks of the user's own code."""

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from cnnsens_bench import UserError, open_results
from cnnsens_bench.models import Checkpoint, split_name
from cnnsens_bench.models.loading import load_network
from cnnsens_bench.models.sources import python
from cnnsens_bench.run import main

CODE = """
import torch
from torch import nn
from cnnsens_bench import Network

def module(classes=3):
    layers = nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(4, classes))

def described():
    return Network(module(), input_size=32, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))

def function():
    return lambda images: 1 - images.mean((2, 3))

instance = described()

def none():
    pass

def broken():
    raise RuntimeError("its weights are not here")

def needs(path):
    return path

def number():
    return 3

text = "a network"
"""


@pytest.fixture(autouse=True, scope="module")
def own_module(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_networks.py").write_text(CODE)
    (folder / "broken_networks.py").write_text("import torch\n1 / 0\n")
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


def words(pictures: Path, folder: Path, *more: str) -> list[str]:
    return ["dataset=folder", f"dataset.root={pictures}", f"output={folder / 'out'}", f"cache={folder / 'cache'}",
            "limit=6", "trials=1", "tracking=off", "degradations=[flip_lr]", *more]  # fmt: skip


def test_a_run_of_functions(pictures: Path, tmp_path: Path) -> None:
    other = "{name: 'own_networks:function', mean: [0, 0, 0], std: [1, 1, 1], input_size: 24}"
    asked = words(pictures, tmp_path, f"models=['own_networks:described',{other}]", "view=box")
    assert main(asked) == 0
    found = open_results(tmp_path / "out").models.set_index("model")
    assert found["source"].to_dict() == {"own_networks:described": "python", "own_networks:function": "python"}
    assert found["input_size"].to_dict() == {"own_networks:described": 32, "own_networks:function": 24}
    assert found["num_parameters"].to_dict() == {
        "own_networks:described": 4 * 27 + 4 + 8 + 15,
        "own_networks:function": 0,
    }
    before = open_results(tmp_path / "out").predictions
    assert main(asked) == 0  # its random weights are the same each time
    pd.testing.assert_frame_equal(open_results(tmp_path / "out").predictions, before)


def test_a_module_is_fine_tuned_where_it_has_an_output_for_each_class(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["fine_tune=always", "training.epochs=1", "input_size=32"]
    given = "mean: [0, 0, 0], std: [1, 1, 1]}]"
    assert main(words(pictures, tmp_path, f"models=[{{name: 'own_networks:module', {given}", *asked)) == 0
    checkpoints = list((tmp_path / "cache" / "checkpoints").glob("own_networks*"))
    assert len(checkpoints) == 1
    with pytest.raises(UserError, match="whose code would be run"):
        load_network(checkpoint=checkpoints[0])
    assert load_network("own_networks:module", checkpoints[0]).classes == ("class_0", "class_1", "class_2")
    assert main(words(pictures, tmp_path, f"models=[{{name: 'own_networks:function', {given}", *asked)) == 2
    assert "has no weights to fine-tune" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("own_networks:none", "returned None: it must return a torch.nn.Module"),
        ("own_networks:number", "returned a int"),
        ("own_networks:broken", "fails in line 22 of own_networks.py: RuntimeError: its weights are not here"),
        ("own_networks:needs", "needs path: it is called without arguments"),
        ("own_networks:modul", "own_networks has no 'modul': did you mean 'module'"),
        ("own_networks:text", "is a str: name a function"),
        ("broken_networks:a", "fails in line 2 of broken_networks.py: ZeroDivisionError"),
        ("absent_networks:a", "cannot be imported"),
        ("python/absent", "was a network in the memory of another process"),
    ],
)
def test_what_is_no_network_is_one_sentence(model: str, sentence: str) -> None:
    source, architecture = split_name(model)
    with pytest.raises(UserError, match=sentence) as raised:
        source.describe(architecture)
    assert "\n" not in str(raised.value)


def test_what_cannot_be_known_must_be_given(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(pictures, tmp_path, "models=['own_networks:module']", "input_size=32")) == 2
    assert "mean and std" in capsys.readouterr().err


def test_a_worker_gets_the_weights_and_calls_the_function() -> None:
    state = python.pretrained("own_networks:described")
    state["network.5.bias"] = torch.tensor([1.0, 2.0, 3.0])
    described = python.describe("own_networks:described")
    checkpoint = Checkpoint("own_networks:described", ("a", "b", "c"), described, state)
    assert checkpoint.classifier().network.network[5].bias.tolist() == [1.0, 2.0, 3.0]
    assert python.pretrained("own_networks:instance")["network.5.bias"].tolist() != [1.0, 2.0, 3.0]
