"""Networks of transformers: their folder, view, classes, weights and refusals, with small random networks."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from timm.data import ImageNetInfo

from cnnsens_bench.datasets import Samples
from cnnsens_bench.images.published import render_published
from cnnsens_bench.models import Checkpoint, WeightsUnavailable, checkpoint_from_bytes
from cnnsens_bench.models.base import build_network, preprocessing_of, split_path
from cnnsens_bench.models.classifier import num_parameters
from cnnsens_bench.models.sources import hf
from cnnsens_bench.models.weights import load_weights, starting_weights
from cnnsens_bench.training.finetune import finetune
from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.utils.errors import UserError

VIT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "patch_size": 8}
CONFIGS = {
    "vit": transformers.ViTConfig(image_size=32, **VIT),
    "dinov2": transformers.Dinov2Config(image_size=32, mlp_ratio=1, **VIT),
    "convnext": transformers.ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1]),
    "resnet": transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic"),
    "mobilenet": transformers.MobileNetV2Config(depth_multiplier=0.2, image_size=64),
}
PROCESSORS = {
    "vit": transformers.ViTImageProcessor(size={"height": 32, "width": 32}),
    "dinov2": transformers.BitImageProcessor(
        size={"shortest_edge": 41}, crop_size={"height": 32, "width": 32}, resample=3
    ),
    "convnext": transformers.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875),
    "resnet": transformers.ConvNextImageProcessor(size={"shortest_edge": 384}),
    "mobilenet": transformers.MobileNetV2ImageProcessor(
        size={"shortest_edge": 73}, crop_size={"height": 64, "width": 64}
    ),
}


def save(folder: Path, kind: str, processor: object | None = None, labels: list[str] | None = None) -> Path:
    """Write a network with random weights that tell images apart."""
    torch.manual_seed(0)
    labels = labels or ["wren", "finch", "robin"]
    config = type(CONFIGS[kind]).from_dict(CONFIGS[kind].to_dict())
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}
    network = transformers.AutoModelForImageClassification.from_config(config)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.xavier_normal_(parameter)
    network.save_pretrained(folder)
    (processor or PROCESSORS[kind]).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_folder_gives_the_processors_pixels_and_the_networks_logits(kind: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "net", kind)
    model, weights = split_path(f"hf/{folder}")
    assert model == "hf/net"
    preprocessing = preprocessing_of(model, None, "published", weights=weights)
    state = starting_weights(model, weights).state
    saved = Checkpoint(model, ("wren", "finch", "robin"), preprocessing, state)
    classifier = checkpoint_from_bytes(saved.to_bytes()).classifier()  # as another process gets it, without the folder
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    network = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    for width, height in ((90, 131), (403, 260), (64, 64), (511, 77)):
        image = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
        pixels = render_published(image, preprocessing.view)
        theirs = processor(Image.fromarray(image), do_rescale=False, do_normalize=False)["pixel_values"][0]
        np.testing.assert_array_equal(pixels.transpose(2, 0, 1), np.asarray(theirs))
        with torch.inference_mode():
            logits = classifier(torch.from_numpy(pixels).permute(2, 0, 1)[None].float())
            expected = network(**processor(Image.fromarray(image), return_tensors="pt")).logits
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    assert num_parameters(classifier) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("processor", "size", "resize", "to"),
    [
        (transformers.DeiTImageProcessor(), 224, "both", 256),
        (transformers.CLIPImageProcessor(), 224, "shorter", 224),
        (transformers.LevitImageProcessor(), 224, "shorter", 256),
        (transformers.PoolFormerImageProcessor(crop_pct=0.9), 224, "shorter", 248),
        (transformers.SiglipImageProcessor(), 224, "both", 224),
        (transformers.BeitImageProcessor(size={"height": 256, "width": 256}, do_center_crop=True), 224, "both", 256),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "preprocess") else str(value),
)
def test_rules_of_other_processors(processor: object, size: int, resize: str, to: int, tmp_path: Path) -> None:
    view = hf.published(str(save(tmp_path, "resnet", processor)), None).view
    assert (view.size, view.resize, view.resize_to) == (size, resize, to)
    assert view.tensors


def test_a_processor_may_resize_pillows_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crop = {"height": 201, "width": 201}
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 230}, crop_size=crop)
    monkeypatch.setattr(hf, "_processor", lambda location: processor)
    view = hf.published(str(tmp_path), None).view
    assert (view.size, view.resize, view.resize_to, view.tensors) == (201, "shorter", 230, False)


def test_a_processor_that_is_saved_again_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("first", "second"):
        save(tmp_path / folder / "net", "resnet")
    monkeypatch.chdir(tmp_path / "first")
    before = hf.published("./net", None)
    other = transformers.ViTImageProcessor(size={"height": 48, "width": 48}, image_mean=[0.1, 0.2, 0.3])
    other.save_pretrained("net")
    after = hf.published("./net", None)
    assert (after.mean, after.input_size) == ((0.1, 0.2, 0.3), 48)
    assert hf.describe("./net").mean == (0.1, 0.2, 0.3)
    monkeypatch.chdir(tmp_path / "second")
    assert hf.published("./net", None) == before


def test_another_size_keeps_the_share_that_is_cropped_and_moves_position_embeddings(tmp_path: Path) -> None:
    folder = str(save(tmp_path, "vit"))
    preprocessing = preprocessing_of("hf/net", 48, "published", weights=folder)
    assert (preprocessing.view.size, preprocessing.view.resize_to) == (48, 48)
    network = build_network("hf/net", 3, 48, starting_weights("hf/net", folder).state)
    assert network(torch.zeros(1, 3, 48, 48)).shape == (1, 3)


def test_a_network_is_fine_tuned_to_other_classes(tmp_path: Path, samples: Samples) -> None:
    folder = str(save(tmp_path / "net", "resnet", PROCESSORS["mobilenet"], labels=list("abcdefg")))
    recipe = Recipe(epochs=1, batch_size=8)
    trained = finetune("hf/net", samples, recipe, weights=folder, input_size=32, cache=tmp_path / "cache")
    assert trained.path.parent == tmp_path / "cache" / "checkpoints"
    network = build_network("hf/net", 3, 32, starting_weights("hf/net", folder).state)
    assert not load_weights(network, starting_weights("hf/net", folder).state, "hf/net")
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


def test_names_become_classes_and_those_of_imagenet_have_wordnet_ids(tmp_path: Path) -> None:
    assert hf.outputs(str(save(tmp_path / "birds", "vit"))).names == ("wren", "finch", "robin")
    plain = hf.outputs(str(save(tmp_path / "plain", "vit", labels=["LABEL_0", "LABEL_1"])))
    assert (plain.count, plain.names) == (2, ())
    known = ImageNetInfo("imagenet-1k")
    labels = [known.index_to_description(number) for number in range(1000)]
    assert hf.outputs(str(save(tmp_path / "known", "vit", labels=labels))).wnids[:2] == ("n01440764", "n01443537")
    assert not hf.outputs(str(save(tmp_path / "shuffled", "vit", labels=labels[::-1]))).wnids


def test_a_processor_that_does_more_is_refused(tmp_path: Path) -> None:
    reversing = transformers.MobileViTImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32})
    with pytest.raises(UserError, match="does more to colours than a mean and std"):
        hf.describe(str(save(tmp_path / "bgr", "mobilenet", reversing)))
    oblong = transformers.ViTImageProcessor(size={"height": 32, "width": 40})
    with pytest.raises(UserError, match="to a square: take view=box"):
        hf.published(str(save(tmp_path / "oblong", "vit", oblong)), None)


def test_refusals_are_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"holds no network of transformers: name a folder that save_pretrained wrote"):
        hf.describe(str(tmp_path))
    with pytest.raises(UserError, match="neither the name of a repository"):
        hf.describe("a/b/c")
    folder = save(tmp_path / "net", "vit")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match="save it beside the network"):
        hf.describe(str(folder))
    (folder / "model.safetensors").unlink()
    torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsUnavailable, match="in safetensors files"):
        hf.pretrained(str(folder))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "none", "auto_map": {"AutoConfig": "x.Y"}}))
    with pytest.raises(UserError, match="no configuration that is understood"):
        hf.outputs(str(folder))
