"""Files of weights as trainings save them: keys, averages, prefixes, heads, other input sizes."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn
from torch.optim.swa_utils import AveragedModel

from cnnsens_bench.models.base import build_network
from cnnsens_bench.models.loading import head_of, load_network
from cnnsens_bench.models.weights import fit_weights, load_weights, starting_weights
from cnnsens_bench.models.weights_file import read_weights
from cnnsens_bench.predict import main as predict
from cnnsens_bench.run import main as run
from cnnsens_bench.utils.errors import UserError
from tests.conftest import TINY, tiny_checkpoint

STATE = tiny_checkpoint(0, classes=5).state_dict
OTHER = tiny_checkpoint(1, classes=5).state_dict
"""The state dict of another network, which must not be taken."""


def prefixed(prefix: str, state: dict[str, torch.Tensor] = STATE) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in state.items()}


def averaged(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return what torchvision's reference training saves of its moving average."""
    network = timm.create_model("test_resnet", num_classes=5)
    network.load_state_dict(state)
    return AveragedModel(network).state_dict()


def saved(content: object, folder: Path) -> str:
    torch.save(content, folder / "w.pth")
    return str(folder / "w.pth")


def assert_loads(weights: str, classes: int = 5) -> None:
    """Check that a network gets the tensors of `STATE` from a file."""
    network = build_network(TINY, classes, 160)
    assert load_weights(network, starting_weights(TINY, weights).state, TINY) == (classes == 5)
    own = network.state_dict()
    assert all(torch.equal(own[key], STATE[key]) for key in own if own[key].shape == STATE[key].shape)


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"model": STATE, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}, "epoch": 3, "scaler": None},
        {"state_dict": STATE, "arch": "resnet", "best_acc1": torch.tensor(0.5)},
        {"model_state_dict": STATE, "loss": 0.3},
        {"net": prefixed("module."), "acc": 93.1, "epoch": 7},
        {"generator": STATE},
        prefixed("module."),
        prefixed("_orig_mod.module.model."),
        {"state_dict": prefixed("model.") | {"criterion.weight": torch.ones(5)}, "hyper_parameters": {"lr": 0.1}},
        {"network": prefixed("backbone.")},
        {"model": OTHER, "model_ema": averaged(STATE), "optimizer": {}, "epoch": 299},
        {"state_dict": OTHER, "state_dict_ema": STATE, "metric": 0.8, "version": 2},
        {"model": OTHER, "ema": {"module": STATE, "decay": 0.9999, "updates": 10}},
    ],
)
def test_forms_in_which_trainings_save(content: dict, tmp_path: Path) -> None:
    assert_loads(saved(content, tmp_path))


def test_a_moving_average_is_taken_and_told(tmp_path: Path) -> None:
    path = saved({"model": OTHER, "model_ema": averaged(STATE), "epoch": 3}, tmp_path)
    start = starting_weights(TINY, path)
    assert start.notes == (
        f"{path}: the moving average of the weights, 'model_ema', is taken; {path}#model takes 'model'",
    )
    other = starting_weights(TINY, f"{path}#model")
    assert torch.equal(other.state["fc.weight"], OTHER["fc.weight"])
    assert other.notes == ()
    assert len({start.identity, other.identity}) == 2
    with pytest.raises(UserError, match="no weights under the key 'ema': it has those under 'model', 'model_ema'"):
        starting_weights(TINY, f"{path}#ema")


def test_weights_that_could_be_several(tmp_path: Path) -> None:
    path = saved({"student": STATE, "teacher": OTHER}, tmp_path)
    with pytest.raises(UserError, match=f"several state dicts, 'student', 'teacher': choose one with {path}#student"):
        read_weights(path)
    assert_loads(f"{path}#student")
    assert "its only key that has one, 'student'" in read_weights(saved({"student": STATE}, tmp_path)).notes[0]
    assert read_weights(saved({"net": STATE}, tmp_path)).notes == ()
    with pytest.raises(UserError, match="the key 'model': it has one state dict without a key"):
        read_weights(saved(STATE, tmp_path) + "#model")


def test_a_file_whose_name_has_the_sign_of_a_key(tmp_path: Path) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "run#3.safetensors")
    assert_loads(str(tmp_path / "run#3.safetensors"))


@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_the_arguments_of_a_training_are_read_as_plain_values(key: str, tmp_path: Path) -> None:
    """The reference trainings of torchvision and timm save an `argparse.Namespace` beside the weights."""
    assert_loads(saved({key: STATE, "epoch": 1, "args": argparse.Namespace(lr=0.1)}, tmp_path))
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


class Touching:
    """An object whose pickle makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_objects_beside_the_weights_are_not_loaded(tmp_path: Path) -> None:
    """Not even inside the arguments that are read as plain values."""
    made = tmp_path / "made"
    for args in (Touching(made), argparse.Namespace(hidden=Touching(made))):
        path = saved({"model": STATE, "args": args}, tmp_path)
        with pytest.raises(UserError, match="since it would run code: it holds Python objects") as caught:
            read_weights(path)
        assert "\n" not in str(caught.value)
        assert "save its state dict alone" in str(caught.value)
    assert not made.exists()


def test_a_whole_network_in_a_file_is_answered_with_how_to_save_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "whole.pth"
    torch.save(nn.Sequential(nn.Linear(2, 2)), path)
    with pytest.raises(UserError, match=r"torch.load\(path, weights_only=False\).state_dict\(\), 'mine.pth'\)$"):
        read_weights(str(path))


def test_a_checkpoint_without_a_head(tmp_path: Path) -> None:
    body = {key: value for key, value in STATE.items() if not key.startswith("fc.")}
    network = build_network(TINY, 4, 160)
    assert not load_weights(network, body, TINY)
    assert not network.state_dict()["fc.weight"].any()
    assert torch.equal(network.state_dict()["conv1.0.weight"], STATE["conv1.0.weight"])
    assert fit_weights(network, body, TINY).notes() == ["the weights have no head: it starts at 0"]
    with pytest.raises(UserError, match="have no head: fine-tune it"):
        head_of(TINY, body, 160)
    with pytest.raises(UserError, match="have no head: fine-tune it"):
        load_network(TINY, Path(saved({"model": body}, tmp_path)))
    del body["bn1.weight"]
    with pytest.raises(UserError, match=r"tensor 'bn1.weight' is missing"):
        load_weights(network, body, TINY)


def test_two_heads_are_replaced_together() -> None:
    model = "timm/deit_tiny_distilled_patch16_224"
    state = build_network(model, 9, 224).state_dict()
    network = build_network(model, 4, 224)
    assert not load_weights(network, state, model)
    own = network.state_dict()
    changed = {key for key in own if own[key].shape != state[key].shape}
    assert changed == {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}
    assert not any(own[key].any() for key in changed)
    assert all(torch.equal(own[key], state[key]) for key in own if key not in changed)


def test_tensors_beside_a_prefix_are_told() -> None:
    state = prefixed("model.") | {"criterion.weight": torch.ones(5), "metric.sum": torch.ones(1)}
    [note] = fit_weights(build_network(TINY, 5, 160), state, TINY).notes()
    assert note == "'criterion.weight' and 1 more of the weights' tensors are no part of the network and left out"


def small_swin(size: int) -> torch.nn.Module:
    return timm.models.SwinTransformer(size, embed_dim=16, depths=(1,) * 4, num_heads=(1,) * 4, num_classes=3)


def small_vit(size: int) -> torch.nn.Module:
    return torchvision.models.VisionTransformer(size, 16, 1, 2, 16, 16, num_classes=3)


@pytest.mark.parametrize(
    ("model", "build", "tensor"),
    [
        ("timm/test_vit", lambda size: build_network("timm/test_vit", 3, size), "pos_embed"),
        ("timm/swin_tiny_patch4_window7_224", small_swin, "layers.3.blocks.0.attn.relative_position_bias_table"),
        ("torchvision/vit_b_16", small_vit, "encoder.pos_embedding"),
    ],
)
def test_position_embeddings_follow_the_input_size(
    model: str, build: Callable[[int], torch.nn.Module], tensor: str
) -> None:
    state = build(224).state_dict()
    network = build(160)
    assert load_weights(network, dict(state), model)
    assert network.state_dict()[tensor].shape != state[tensor].shape
    fitted = fit_weights(network, state, model)
    assert tensor in fitted.resized
    assert "is resized" in fitted.notes()[0]
    assert network(torch.zeros(1, 3, 160, 160)).shape == (1, 3)
    with pytest.raises(UserError, match=f"not of '{model}'"):
        load_weights(network, STATE, model)


def test_embeddings_are_those_of_timms_own_loading(tmp_path: Path) -> None:
    """Published weights at another size are what timm makes of them itself, given the same file."""
    torch.manual_seed(0)
    state = timm.create_model("test_vit").state_dict()
    torch.nn.init.normal_(state["pos_embed"])
    torch.save(state, tmp_path / "vit.pth")
    overlay = {"file": str(tmp_path / "vit.pth"), "hf_hub_id": None}
    theirs = timm.create_model("test_vit", pretrained=True, img_size=96, pretrained_cfg_overlay=overlay).state_dict()
    network = build_network("timm/test_vit", 1000, 96)
    load_weights(network, state, "timm/test_vit")
    assert all(torch.equal(value, theirs[key]) for key, value in network.state_dict().items())


def test_published_densenets_have_names_of_their_own() -> None:
    """Torchvision renames the tensors of these files when it loads them itself."""
    network = torchvision.models.DenseNet(8, (1, 1), 8, num_classes=3)
    state = network.state_dict()
    old = {key.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): value for key, value in state.items()}
    assert old.keys() != state.keys()
    assert load_weights(network, old, "torchvision/densenet121")


@pytest.mark.parametrize(
    ("model", "size", "sentence"),
    [
        ("torchvision/vit_b_32", 100, "cannot be built for inputs of 100 px: Input shape indivisible by patch size"),
        ("torchvision/maxvit_t", 160, "cannot be built for inputs of 160 px: Input size .* is not divisible"),
        ("timm/efficientformer_l1", 160, "fails on inputs of 160 px: The size of tensor"),
        ("timm/halonet26t", 160, "fails on inputs of 160 px: AssertionError"),
        ("torchvision/alexnet", 20, "fails on inputs of 20 px"),
    ],
)
def test_sizes_that_a_network_cannot_have(model: str, size: int, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        build_network(model, 3, size)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_names_its_classes(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(classes=4)
    checkpoint.save(tmp_path / "c.pt")
    start = starting_weights(TINY, str(tmp_path / "c.pt"))
    assert start.classes == checkpoint.classes
    assert head_of(TINY, start.state, 48, start.classes).names == checkpoint.classes
    assert starting_weights(TINY, saved(checkpoint.state_dict, tmp_path)).classes == ()


@pytest.mark.slow
def test_notes_reach_the_user(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run says what was chosen and left out, also where the checkpoint comes from the cache; so does `predict`."""
    body = {key: value for key, value in STATE.items() if not key.startswith("fc.")}
    path = saved({"model": OTHER, "model_ema": prefixed("module.", body)}, tmp_path)
    words = [
        f"dataset.root={pictures}", "dataset=folder", f"models=[{TINY}]", f"weights={path}", "input_size=48", "limit=2",
        "degradations=[]", "tracking=off", "training.epochs=1", "fine_tune=always", f"cache={tmp_path / 'cache'}",
    ]  # fmt: skip
    for output in ("first", "second"):
        assert run([*words, f"output={tmp_path / output}"]) == 0
        said = capsys.readouterr().out + capsys.readouterr().err
        assert f"note: {TINY}: {path}: the moving average of the weights, 'model_ema', is taken" in said
        assert f"note: {TINY}: the weights have no head: it starts at 0\n" in said
    path = saved({"model": OTHER, "model_ema": averaged(STATE)}, tmp_path)
    photograph = str(next(pictures.rglob("*.png")))
    assert predict([photograph, f"checkpoint={path}", f"model={TINY}", "input_size=48", "sigma=4"]) == 0
    assert f"note: {path}: the moving average of the weights" in capsys.readouterr().err
    assert predict([photograph, f"checkpoint={path}#ema", f"model={TINY}", "sigma=4"]) == 2
    assert "no weights under the key 'ema'" in capsys.readouterr().err


def test_what_a_loaded_network_sees(checkpoint: Path) -> None:
    """Published weights see what their library evaluates with; others the box, unless something else is asked for."""
    model = "timm/tf_efficientnet_lite0"
    published = load_network(model).classifier.preprocessing
    assert (published.view.size, published.view.resize_to) == (224, 256)
    assert load_network(model, view="box").classifier.preprocessing.view is None
    assert load_network(model, input_size=96).classifier.preprocessing.view.size == 96
    assert load_network(checkpoint=checkpoint).classifier.preprocessing.view is None
    assert load_network(checkpoint=checkpoint, view="published").classifier.preprocessing.view.size == 48
