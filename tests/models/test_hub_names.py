"""Networks of timm that a repository on the Hugging Face hub, or a folder, describes."""

import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import safetensors.torch
import timm
import torch

from cnnsens_bench.models import Checkpoint, split_name
from cnnsens_bench.models.base import build_network, preprocessing_of
from cnnsens_bench.models.loading import head_of, load_network
from cnnsens_bench.models.sources import timm as timm_source
from cnnsens_bench.models.weights import starting_weights
from cnnsens_bench.utils.errors import UserError

WNIDS = ["n01440764", "n01443537", "n01484850"]


@pytest.fixture(autouse=True)
def nothing_is_remembered() -> Iterator[None]:
    timm_source._known_variant.cache_clear()
    yield
    timm_source._known_variant.cache_clear()


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=3, img_size=96)


@pytest.fixture
def folder(network: torch.nn.Module, tmp_path: Path) -> Path:
    """The files of a repository of timm's networks."""
    rule = {"input_size": [3, 96, 96], "fixed_input_size": True, "crop_pct": 0.9, "interpolation": "bilinear"}
    config = {
        "architecture": "test_vit",
        "num_classes": 3,
        "model_args": {"img_size": 96},
        "label_names": WNIDS,
        "label_descriptions": dict(zip(WNIDS, ("tench", "goldfish", "shark"), strict=True)),
        "pretrained_cfg": rule | {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "classifier": "head"},
    }
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "config.json").write_text(json.dumps(config))
    safetensors.torch.save_file(network.state_dict(), tmp_path / "saved" / "model.safetensors")
    return tmp_path / "saved"


@pytest.fixture
def cached(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the same repository in the cache of the hub's client, which cannot reach the hub."""
    cache = folder.parent / "hub"
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = cache / "models--lab--birds"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    folder.rename(repository / "snapshots" / commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return "timm/hf-hub:lab/birds"


def check(model: str, network: torch.nn.Module) -> None:
    """Check all that a run asks about a model."""
    preprocessing = preprocessing_of(model, None, "published")
    assert (preprocessing.input_size, preprocessing.mean) == (96, (0.1, 0.2, 0.3))
    assert (preprocessing.view.size, preprocessing.view.resize_to) == (96, 106)
    start = starting_weights(model, "auto")
    assert all(torch.equal(start.state[key], value) for key, value in network.state_dict().items())
    head = head_of(model, start.state, 96)
    assert (head.wnids, head.names) == (tuple(WNIDS), ("tench", "goldfish", "shark"))
    loaded = load_network(model)
    assert loaded.classes == ("tench", "goldfish", "shark")
    again = Checkpoint(model, ("a", "b", "c"), preprocessing, start.state).classifier()
    pixels = torch.rand(2, 3, 96, 96) * 255
    with torch.no_grad():
        assert torch.equal(loaded.classifier(pixels), again(pixels))
    assert build_network(model, 7, 64)(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_a_folder(folder: Path, network: torch.nn.Module) -> None:
    check(f"timm/local-dir:{folder}", network)


def test_a_repository_in_the_hubs_cache(cached: str, network: torch.nn.Module) -> None:
    check(cached, network)


def test_what_is_not_there_is_one_sentence(cached: str, tmp_path: Path) -> None:
    assert split_name("timm/hf-hub:lab/fish")[1] == "hf-hub:lab/fish"
    with pytest.raises(UserError, match=r"cannot be had from the hub .* copy the repository into") as caught:
        preprocessing_of("timm/hf-hub:lab/fish", None)
    assert f"({tmp_path}/hub)" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot be had from the hub"):
        build_network("timm/hf-hub:", 3, 96)
    [weights] = (tmp_path / "hub").rglob("model.safetensors")
    weights.unlink()
    with pytest.raises(UserError, match=r"'timm/hf-hub:lab/birds' cannot be had from timm's hub .*weights=<path>"):
        starting_weights(cached, "auto")


def test_folders_that_timm_cannot_read(folder: Path) -> None:
    model = f"timm/local-dir:{folder}"
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"cannot be had from that folder \(.*weights=<path>"):
        starting_weights(model, "auto")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architecture": "test_vitt"}))
    timm_source._known_variant.cache_clear()
    with pytest.raises(UserError, match=r"its config names 'test_vitt', which timm .* has not: did you mean 'test_vit"):
        preprocessing_of(model, None)
    (folder / "config.json").write_text("{}")
    timm_source._known_variant.cache_clear()
    with pytest.raises(UserError, match=r"has no config.json that timm reads \("):
        preprocessing_of(model, None)
