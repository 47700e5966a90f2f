"""One network as a folder of transformers and as ONNX graphs, in whole runs: equal labels, and no gradients."""

import json
from pathlib import Path

import onnx
import pytest
import torch
import transformers
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn

from cnnsens_bench import benchmark, open_results
from cnnsens_bench.cli import main as command
from cnnsens_bench.results import Results
from cnnsens_bench.run import main

SIZE = 32
KNOWN = "mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]"
CLASSES = ["class_2", "class_0", "class_1"]  # in another order than the folders


class Logits(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels).logits


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one network in three forms. It tells the pictures of `pictures` apart by their colour."""
    folder = tmp_path_factory.mktemp("nets")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 3], depths=[1, 1], layer_type="basic")
    config.id2label = dict(enumerate(CLASSES))
    network = transformers.ResNetForImageClassification(config).eval()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.mul_(0.05)
                middle = layer.weight.shape[-1] // 2
                for channel in range(3):
                    layer.weight[channel, channel, middle, middle] += 1
        network.classifier[-1].weight.copy_(torch.eye(3)[[2, 0, 1]] * 5)
        network.classifier[-1].bias.zero_()
    network.save_pretrained(folder / "hf")
    transformers.ViTImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder / "hf")
    axes = {"x": {0: "n"}}
    pixels = torch.zeros(2, 3, SIZE, SIZE)
    graph = folder / "float.onnx"
    torch.onnx.export(Logits(network), (pixels,), graph, dynamo=False, input_names=["x"], dynamic_axes=axes)
    model = onnx.load(graph)
    onnx.helper.set_model_props(model, {"names": json.dumps(CLASSES)})
    onnx.save(model, graph)
    quantize_dynamic(graph, folder / "int8.onnx", weight_type=QuantType.QUInt8)
    return folder


def words(pictures: Path, output: Path, models: str, *more: str) -> list[str]:
    degradations = "degradations=[{name: gaussian_rgb, levels: [16, 64]}, {name: translation, levels: [4]}]"
    here = [f"dataset.root={pictures}", f"output={output}", f"cache={output.parent}/cache", f"models=[{models}]"]
    fixed = ["dataset=folder", "view=box", "cluster.engine=local", "tracking.uri=null", "trials=2", degradations]
    return [*fixed, *here, *more]


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out + captured.err


SCORES = ("sensitivity=on", "sensitivity.predictors=['sampling(copies=2)', 'noisy_gradients(copies=2)']", "limit=12")


@pytest.fixture(scope="module")
def scored(nets: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    graphs = [f"{{name: onnx/{nets}/{name}.onnx, {KNOWN}}}" for name in ("float", "int8")]
    output = tmp_path_factory.mktemp("scored") / "run"
    return words(pictures, output, f"hf/{nets}/hf,{','.join(graphs)}", *SCORES)


@pytest.fixture(scope="module")
def printed(scored: list[str]) -> str:
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("cnnsens_bench.experiment.runner.say", lambda console, *sentences: lines.extend(sentences))
        assert main(scored) == 0
    return "\n".join(lines)


@pytest.fixture
def results(scored: list[str], printed: str) -> Results:
    return open_results(next(word for word in scored if word.startswith("output=")).removeprefix("output="))


def test_labels_are_equal_and_agreement_is_reported(results: Results) -> None:
    labels = results.predictions.query("model == 'hf/hf'")["prediction"]
    assert labels.nunique() == 3
    found = results.agreement("hf/hf").set_index(["model", "degradation", "level"])["value"]
    assert (found["onnx/float"] == 1).all()
    assert found["onnx/int8"].between(0.7, 1).all()
    accuracy = results.accuracy.query("degradation == 'none'").set_index("model")["value"]
    assert (accuracy > 0.9).all()  # the names were matched, not the order


@pytest.mark.slow
def test_one_call_gives_equal_labels_for_every_form_of_a_network(nets: Path, pictures: Path, tmp_path: Path) -> None:
    """A function, a module, a graph, a quantised graph and a folder of transformers: one network, by `benchmark`."""
    module = Logits(transformers.ResNetForImageClassification.from_pretrained(nets / "hf")).eval()
    forms = {
        "module": module,
        "function": lambda images: module(images).detach().numpy(),
        "onnx": f"onnx/{nets}/float.onnx",
        "int8": f"onnx/{nets}/int8.onnx",
        "hf": f"hf/{nets}/hf",
    }
    known = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "size": SIZE, "classes": CLASSES, "view": "box"}
    labels = {}
    for form, network in forms.items():
        options = {"cache": str(tmp_path), "progress": False}
        found = benchmark(network, pictures, ["gaussian_rgb(32)", "flip_lr"], trials=2, **known, **options)
        rows = found.predictions.sort_values(["image_id", "degradation", "trial"])
        assert found.summary()["accuracy"].iloc[0] > 90
        labels[form] = rows["prediction"].tolist()
    assert labels["function"] == labels["module"] == labels["onnx"] == labels["hf"]
    agreeing = sum(a == b for a, b in zip(labels["int8"], labels["module"], strict=True))
    assert agreeing > 0.7 * len(labels["module"])


def test_scores_without_gradients_are_those_of_forward_passes(results: Results, printed: str) -> None:
    left_out = "the score of gradients and noisy_gradients(copies=2) left out"
    assert f"onnx/float and onnx/int8 without gradients: {left_out}" in printed
    assert set(results.sensitivity["model"]) == {"hf/hf"}
    by = results.sensitivity_predictions.groupby("model")["predictor"].unique().map(sorted)
    assert by["hf/hf"] == ["noisy_gradients(copies=2)", "sampling(copies=2)"]
    assert by["onnx/float"] == by["onnx/int8"] == ["sampling(copies=2)"]
    key = ["image_id", "degradation", "level", "output"]
    deviation = results.sensitivity_predictions.query("predictor == 'sampling(copies=2)'").set_index(key)
    one, other = (deviation[deviation["model"] == name]["deviation"] for name in ("hf/hf", "onnx/float"))
    assert (one - other).abs().max() < 1e-3 * one.abs().max()


def test_a_finished_run_has_nothing_left(scored: list[str], printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(scored, capsys)
    assert code == 0
    done = next(line for line in out.splitlines() if line.startswith("resuming: "))
    assert done.split()[1] == done.split()[3], done


def test_the_table_of_models_counts_what_graphs_have(results: Results) -> None:
    models = results.models.set_index("model")
    assert models.loc["onnx/float", "source"] == "onnx"
    assert models.loc["hf/hf", "matched_by"] == models.loc["onnx/float", "matched_by"] == "name"
    assert 0 < models.loc["onnx/float", "num_parameters"] <= models.loc["hf/hf", "num_parameters"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["fine_tune=always"], "'onnx/float' cannot be fine-tuned: evaluate it as it is"),
        (["fine_tune=never", "defenses=['input_dropout(p=0.1)']"], "is trained, but 'onnx/float' is not"),
        (["fine_tune=never", "input_size=48"], "takes inputs of 32 px only"),
        (["fine_tune=never", "weights=random", "models=[onnx/float]"], "has weights=random, and fine_tune=never"),
        (["fine_tune=never", "models=[onnx/float]"], "there is no ONNX file"),
    ],
)
def test_what_a_graph_cannot_is_a_sentence(
    more: list[str], sentence: str, nets: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = f"{{name: onnx/{nets}/float.onnx, {KNOWN}}}"
    more = [word for word in more if not word.startswith("models=")] + [w for w in more if w.startswith("models=")]
    given = [w for w in words(pictures, tmp_path / "run", models) if not (w[:7] == "models=" and "models" in str(more))]
    code, out = run([*given, *more], capsys)
    assert code == 2
    assert sentence in " ".join(out.split()), out


def test_predict_refuses_a_network_without_gradients(
    scored: list[str], printed: str, photographs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    cache = Path(next(word for word in scored if word.startswith("cache=")).removeprefix("cache="))
    checkpoint = next((cache / "checkpoints").glob("float-*.pt"))
    assert command(["predict", photographs[0], f"checkpoint={checkpoint}"]) == 2
    assert "gives no gradients" in capsys.readouterr().err
