"""Networks: safe ways to their weights, checkpoints, and the normalisation inside."""

import dataclasses
import pickle
from pathlib import Path

import pytest
import timm
import torch
import torchvision

from cnnsens_bench.models import (
    Checkpoint,
    Classifier,
    Preprocessing,
    checkpoint_from_bytes,
    load_checkpoint,
    split_name,
)
from cnnsens_bench.models.weights import (
    PACKAGES,
    load_weights,
    package_file,
    starting_weights,
    state_digest,
)
from cnnsens_bench.models.weights_file import read_weights
from cnnsens_bench.utils.errors import UserError
from tests.conftest import TINY, tiny_checkpoint

LISTED = [
    "torchvision/alexnet",
    "torchvision/vgg19",
    "torchvision/googlenet",
    "torchvision/resnet18",
    "torchvision/resnet50",
    "timm/tf_efficientnet_lite0",
    "timm/resnet18",
    TINY,
]


@pytest.mark.parametrize("model", [name for name in LISTED if "vgg" not in name])
def test_networks_build_at_several_sizes(model: str) -> None:
    source, name = split_name(model)
    preprocessing = source.describe(name)
    network = source.build(name, 7, 64).eval()
    with torch.inference_mode():
        logits = Classifier(network, preprocessing)(torch.rand(2, 3, 64, 64) * 255)
    assert logits.shape == (2, 7)


def test_vgg_is_known() -> None:
    source, name = split_name("torchvision/vgg19")
    assert source.describe(name).input_size == 224


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("alexnet", "write torchvision/alexnet or timm/alexnet"),
        ("torchvision/alexnett", "unknown model 'torchvision/alexnett': did you mean 'alexnet'"),
        ("timm/resnet118", "unknown model 'timm/resnet118'"),
        ("keras/alexnet", "unknown model source 'keras'"),
        ("timm/", "unknown model 'timm/'"),
    ],
)
def test_misspelt_models(model: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        split_name(model)


def test_normalisation_is_inside_and_per_pixel_unit() -> None:
    """The result agrees with torchvision's normalisation, and the gradient is per unit of [0, 255]."""
    preprocessing = Preprocessing(8, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    classifier = Classifier(torch.nn.Identity(), preprocessing)
    pixels = torch.rand(2, 3, 8, 8) * 255
    pixels.requires_grad_()
    expected = torchvision.transforms.functional.normalize(pixels / 255, preprocessing.mean, preprocessing.std)
    torch.testing.assert_close(classifier(pixels), expected)
    classifier(pixels).sum().backward()
    torch.testing.assert_close(pixels.grad[0, 0, 0, 0], torch.tensor(1 / (255 * 0.229)))


def test_the_package_weights_fit_timms_network() -> None:
    path = package_file("timm/tf_efficientnet_lite0")
    assert path is not None
    start = starting_weights("timm/tf_efficientnet_lite0", "auto")
    assert start.identity == f"package:{path.name}"
    network = timm.create_model("tf_efficientnet_lite0")
    assert load_weights(network, start.state, "timm/tf_efficientnet_lite0")
    packaged = list(torch.load(path, weights_only=True).values())
    for ours, theirs in zip(network.state_dict().values(), packaged, strict=True):
        assert torch.equal(ours, theirs)
    assert package_file("timm/resnet18") is None
    assert set(PACKAGES) >= {"timm/tf_efficientnet_lite0", "timm/tf_efficientnet_lite1", "timm/tf_efficientnet_lite2"}


def test_a_new_head_starts_at_zero_and_the_body_is_kept() -> None:
    state = tiny_checkpoint(classes=5).state_dict
    source, name = split_name(TINY)
    network = source.build(name, 3, 48)
    assert not load_weights(network, dict(state), TINY)
    own = network.state_dict()
    changed = [key for key in own if own[key].shape != state[key].shape]
    assert sorted(changed) == ["fc.bias", "fc.weight"]
    assert not own["fc.weight"].any()
    assert all(torch.equal(own[key], state[key]) for key in own if key not in changed)


def test_weights_of_another_network_are_refused() -> None:
    state = torchvision.models.squeezenet1_1().state_dict()
    source, name = split_name(TINY)
    with pytest.raises(UserError, match="not of 'timm/test_resnet'"):
        load_weights(source.build(name, 3, 48), state, TINY)


def test_the_librarys_cache_is_used_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the folder in which torch.hub keeps downloads is loaded without a network connection."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    weights = torchvision.models.get_model_weights("squeezenet1_1").DEFAULT
    network = torchvision.models.squeezenet1_1()
    (tmp_path / "checkpoints").mkdir()
    cached = tmp_path / "checkpoints" / weights.url.rpartition("/")[2]
    torch.save(network.state_dict(), cached)
    start = starting_weights("torchvision/squeezenet1_1", "auto")
    assert start.identity == f"torchvision:{state_digest(network.state_dict())}"
    assert start.state.keys() == network.state_dict().keys()


@pytest.mark.parametrize("model", ["torchvision/squeezenet1_0", TINY])
def test_unreachable_weights_name_the_ways_out(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setattr("timm.create_model", refuse)
    with pytest.raises(UserError, match=r"no route to host.*weights=<path>.*weights=random") as caught:
        starting_weights(model, "auto")
    assert "\n" not in str(caught.value)


class Evil:
    def __reduce__(self) -> tuple:
        return (Path("/tmp/cnnsens_bench_was_here").touch, ())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: p.write_bytes(pickle.dumps(Evil())), "would run code"),
        (lambda p: torch.save({"a": Evil()}, p), "would run code"),
        (lambda p: p.write_text("hello"), "cannot be read|would run code"),
        (lambda p: p.write_bytes(b""), "cannot be read"),
        (lambda p: torch.save({"epoch": 3}, p), "holds no state dict"),
        (lambda p: torch.save([1, 2], p), "holds no state dict"),
    ],
)
def test_files_that_are_no_weights(make: object, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    make(path)  # type: ignore[operator]
    with pytest.raises(UserError, match=sentence):
        read_weights(str(path))
    assert not Path("/tmp/cnnsens_bench_was_here").exists()


def test_truncated_and_missing_weights(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.rand(1000)}, path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(UserError, match="damaged"):
        read_weights(str(path))
    with pytest.raises(UserError, match="no weights file"):
        starting_weights(TINY, str(tmp_path / "none.pth"))


def test_a_checkpoint_carries_all_it_needs(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(classes=4, input_size=56)
    checkpoint.save(tmp_path / "deep" / "c.pt")
    pixels = torch.rand(2, 3, 56, 56) * 255
    for again in (load_checkpoint(tmp_path / "deep" / "c.pt"), checkpoint_from_bytes(checkpoint.to_bytes())):
        assert (again.model, again.classes, again.preprocessing) == (
            checkpoint.model, checkpoint.classes, checkpoint.preprocessing
        )  # fmt: skip
        assert again.digest() == checkpoint.digest()
        with torch.inference_mode():
            assert torch.equal(again.classifier()(pixels), checkpoint.classifier()(pixels))
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["c.pt"]
    # A checkpoint is also a file of weights to start from.
    assert starting_weights(TINY, str(tmp_path / "deep" / "c.pt")).state.keys() == checkpoint.state_dict.keys()


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    mixed = Checkpoint("timm/test_efficientnet", ("a", "b", "c"), Preprocessing(48, (0,) * 3, (1,) * 3), tiny_checkpoint().state_dict)  # fmt: skip  # noqa: E501
    with pytest.raises(UserError, match="does not fit 'timm/test_efficientnet'"):
        mixed.classifier()
    torch.save({"a": torch.rand(3)}, tmp_path / "plain.pt")
    with pytest.raises(UserError, match="not a checkpoint of this program"):
        load_checkpoint(tmp_path / "plain.pt")


@pytest.mark.parametrize("model", [TINY, "torchvision/alexnet", "torchvision/resnet18"])
def test_shared_weights_are_those_of_the_checkpoint(model: str) -> None:
    checkpoint = tiny_checkpoint(model=model, input_size=64)
    pixels = torch.rand(2, 3, 64, 64) * 255
    shared, own = checkpoint.classifier(share_weights=True), checkpoint.classifier()
    assert torch.equal(shared(pixels), own(pixels))
    held = {tensor.data_ptr() for tensor in checkpoint.state_dict.values()}
    assert {tensor.data_ptr() for tensor in shared.network.state_dict().values()} == held
    assert not held & {tensor.data_ptr() for tensor in own.network.state_dict().values()}


def test_weights_of_another_type_are_copied() -> None:
    checkpoint = tiny_checkpoint(input_size=64)
    halves = {
        key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in checkpoint.state_dict.items()
    }
    shared = dataclasses.replace(checkpoint, state_dict=halves).classifier(share_weights=True)
    assert {tensor.dtype for tensor in shared.parameters()} == {torch.float32}
