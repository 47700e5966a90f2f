"""Networks in ONNX files: equal to the network they were exported from, whatever their input and output look like."""

import copy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from torch import nn

from cnnsens_bench.defenses import parse_defense
from cnnsens_bench.engine.evaluate import Evaluator
from cnnsens_bench.engine.networks import LoadedEntrant
from cnnsens_bench.engine.sweep import Entrant, Sweep
from cnnsens_bench.models import Checkpoint, Classifier, Preprocessing, WeightsUnavailable, checkpoint_from_bytes
from cnnsens_bench.models.base import build_network, preprocessing_of, split_path
from cnnsens_bench.models.classifier import num_parameters
from cnnsens_bench.models.preprocessing import GivenInput
from cnnsens_bench.models.sources import onnx as source
from cnnsens_bench.models.weights import starting_weights
from cnnsens_bench.utils.errors import UserError

GRAY = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}


def network(classes: int = 5) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    built = nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, classes)).eval()
    with torch.no_grad():
        for layer in built:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight *= 4
    return built


def export(path: Path, built: nn.Module | None = None, batch: int | None = None, size: int | None = 32) -> Path:
    axes = {0: "n"} if batch is None else {}
    axes |= {2: "h", 3: "w"} if size is None else {}
    pixels = torch.zeros(batch or 2, 3, size or 32, size or 32)
    torch.onnx.export(built or network(), (pixels,), path, dynamo=False, input_names=["x"], dynamic_axes={"x": axes})
    return path


def pixels(count: int = 5, size: int = 32) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).uniform(0, 255, (count, 3, size, size)).astype(np.float32))


def loaded(path: Path, input_size: int | None = None, **colours: tuple[float, float, float]) -> Classifier:
    """The classifier as another process gets it, without the file."""
    model, weights = split_path(f"onnx/{path}")
    preprocessing = preprocessing_of(model, input_size, given=GivenInput(**colours), weights=weights)
    state = starting_weights(model, weights).state
    count = source.outputs(weights).count
    saved = Checkpoint(model, tuple(map(str, range(count))), preprocessing, state)
    return checkpoint_from_bytes(saved.to_bytes()).classifier()


@pytest.mark.parametrize("batch", [None, 1, 4])
@pytest.mark.parametrize("size", [None, 32])
def test_logits_are_those_of_the_exported_network(batch: int | None, size: int | None, tmp_path: Path) -> None:
    classifier = loaded(export(tmp_path / "net.onnx", batch=batch, size=size), size or 32, **GRAY)
    expected = Classifier(network(), classifier.preprocessing)
    with torch.inference_mode():
        torch.testing.assert_close(classifier(pixels()), expected(pixels()), atol=1e-4, rtol=1e-4)
    assert num_parameters(classifier) == num_parameters(expected)


def test_an_image_has_the_same_logits_in_any_batch(tmp_path: Path) -> None:
    """A dynamically quantised graph scales its activations by the whole batch, so its images are run one by one."""
    path = export(tmp_path / "net.onnx")
    quantize_dynamic(path, tmp_path / "int8.onnx", weight_type=QuantType.QUInt8)
    classifier = loaded(tmp_path / "int8.onnx", **GRAY)
    bright = pixels() * torch.tensor([1.0, 0.1, 0.5, 0.02, 1.0]).view(5, 1, 1, 1)
    whole = classifier(bright)
    assert torch.equal(whole, torch.cat([classifier(bright[i : i + 1]) for i in range(5)]))
    session = onnxruntime.InferenceSession(tmp_path / "int8.onnx")
    together = session.run(None, {"x": ((bright / 255 - 0.5) / 0.25).numpy()})[0]
    assert not np.allclose(whole.numpy(), together, atol=1e-4)  # or this test shows nothing


class Calibration(CalibrationDataReader):
    def __init__(self) -> None:
        self.batches = iter([{"x": ((pixels() / 255 - 0.5) / 0.25).numpy()}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
def test_statically_quantised_graphs_run(form: QuantFormat, tmp_path: Path) -> None:
    path = export(tmp_path / "net.onnx")
    quantize_static(path, tmp_path / "int8.onnx", Calibration(), quant_format=form)
    classifier = loaded(tmp_path / "int8.onnx", **GRAY)
    expected = Classifier(network(), classifier.preprocessing)(pixels())
    assert 0 < (classifier(pixels()) - expected).abs().max() < 0.1 * expected.abs().max()


def test_probabilities_become_logits(tmp_path: Path) -> None:
    softmaxed = nn.Sequential(network(), nn.Softmax(1)).eval()
    classifier = loaded(export(tmp_path / "net.onnx", softmaxed), **GRAY)
    expected = Classifier(network(), classifier.preprocessing)(pixels())
    torch.testing.assert_close(classifier(pixels()), expected.log_softmax(1), atol=1e-4, rtol=1e-4)
    assert classifier.network.notes == (source.PROBABILITIES,)


def graph(path: Path, kind: int, shape: list, nodes: list, outputs: list, initializers: list | None = None) -> Path:
    """Write a graph of given nodes."""
    inputs = [helper.make_tensor_value_info("x", kind, shape)]
    made = helper.make_graph(nodes, "net", inputs, outputs, initializers or [])
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def logits(name: str = "y", shape: tuple = ("n", 3)) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


MEAN_OF_CHANNELS = [
    helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
    helper.make_node("ReduceMean", ["f"], ["y"], axes=[2, 3], keepdims=0),
]


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.UINT8])
def test_other_types_of_input(kind: int, tmp_path: Path) -> None:
    path = graph(tmp_path / "net.onnx", kind, ["n", 3, 32, 32], MEAN_OF_CHANNELS, [logits()])
    own = kind == TensorProto.UINT8  # whose normalisation can only be its own
    classifier = loaded(path, **({} if own else {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}))
    whole = pixels().round()
    torch.testing.assert_close(classifier(whole), whole.mean((2, 3)) / (1 if own else 255), atol=1e-3, rtol=1e-3)


def test_channels_may_come_last_and_other_outputs_before(tmp_path: Path) -> None:
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 2], keepdims=0)]
    path = graph(tmp_path / "net.onnx", TensorProto.FLOAT, ["n", 32, 32, 3], nodes, [logits()])
    flat = [helper.make_node("ReduceMean", ["x"], ["z"], axes=[2, 3], keepdims=1), *MEAN_OF_CHANNELS]
    outputs = [logits("z", ("n", 3, 1, 1)), logits()]
    other = graph(tmp_path / "two.onnx", TensorProto.FLOAT, ["n", 3, 32, 32], flat, outputs)
    for one in (path, other):
        classifier = loaded(one, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        torch.testing.assert_close(classifier(pixels()), pixels().mean((2, 3)) / 255, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("text", ['["a", "b", "c"]', "{0: 'a', 1: 'b', 2: 'c'}", '{"0": "a", "1": "b", "2": "c"}'])
def test_class_names_are_read_from_the_metadata(text: str, tmp_path: Path) -> None:
    path = graph(tmp_path / "net.onnx", TensorProto.FLOAT, ["n", 3, 32, 32], MEAN_OF_CHANNELS, [logits()])
    model = onnx.load(path)
    helper.set_model_props(model, {"names": text})
    onnx.save(model, path)
    assert source.outputs(str(path)).names == ("a", "b", "c")


def test_weights_outside_the_file_are_taken_from_its_folder_only(tmp_path: Path) -> None:
    path = export(tmp_path / "net.onnx")
    model = onnx.load(path)
    expected = loaded(path, **GRAY)(pixels())
    onnx.save(model, path, save_as_external_data=True, location="net.data", size_threshold=0)
    assert torch.equal(loaded(path, **GRAY)(pixels()), expected)
    (tmp_path / "inner").mkdir()
    leaving = onnx.load(path, load_external_data=False)
    for tensor in leaving.graph.initializer:
        tensor.external_data[0].value = "../net.data"
    (tmp_path / "inner" / "net.onnx").write_bytes(leaving.SerializeToString())
    with pytest.raises(UserError, match="outside its folder: it is not loaded"):
        source.describe(str(tmp_path / "inner" / "net.onnx"))
    (tmp_path / "inner" / "link.data").symlink_to(tmp_path / "net.data")
    for tensor in leaving.graph.initializer:
        tensor.external_data[0].value = "link.data"
    (tmp_path / "inner" / "net.onnx").write_bytes(leaving.SerializeToString())
    with pytest.raises(UserError, match="outside its folder: it is not loaded"):
        source.describe(str(tmp_path / "inner" / "net.onnx"))
    (tmp_path / "net.data").unlink()
    with pytest.raises(UserError, match="cannot be read as an ONNX graph"):
        source.pretrained(str(path))


def test_a_session_is_released_and_not_copied(tmp_path: Path) -> None:
    classifier = loaded(export(tmp_path / "net.onnx"), **GRAY)
    first = classifier(pixels())
    assert classifier.network.session is not None
    assert copy.deepcopy(classifier).network.session is None
    classifier.network.close()
    assert classifier.network.session is None
    assert torch.equal(classifier(pixels()), first)


def test_threads_are_those_of_torch(tmp_path: Path) -> None:
    classifier, threads = loaded(export(tmp_path / "net.onnx"), **GRAY), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        options = classifier.network.open().session.get_session_options()
    finally:
        torch.set_num_threads(threads)
    assert options.intra_op_num_threads == 3


def test_refusals_are_sentences(tmp_path: Path) -> None:
    path = export(tmp_path / "net.onnx", size=None)
    for given, sentence in (
        ({"input_size": 32}, r"the mean and std that 'onnx/net' expects .* cannot be known: name them"),
        ({"input_size": None, **GRAY}, "takes inputs of any size: give one with input_size"),
    ):
        with pytest.raises(UserError, match=sentence):
            preprocessing_of("onnx/net", given.pop("input_size"), given=GivenInput(**given), weights=str(path))
    fixed = export(tmp_path / "fixed.onnx")
    with pytest.raises(UserError, match="takes inputs of 32 px only"):
        build_network("onnx/fixed", 5, 48, starting_weights("onnx/fixed", str(fixed)).state)(pixels(size=48))
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    custom = [helper.make_node("Mine", ["x"], ["y"], domain="mine")]
    gray = graph(tmp_path / "gray.onnx", TensorProto.FLOAT, ["n", 1, 32, 32], MEAN_OF_CHANNELS, [logits()])
    for name, sentence in (
        (tmp_path / "none.onnx", "there is no ONNX file"),
        (tmp_path / "bad.onnx", "cannot be read as an ONNX graph"),
        (graph(tmp_path / "c.onnx", TensorProto.FLOAT, ["n", 3, 32, 32], custom, [logits()]), "cannot load the graph"),
        (graph(tmp_path / "i.onnx", TensorProto.INT64, ["n", 3, 32, 32], MEAN_OF_CHANNELS, [logits()]), "int64"),
        (gray, "images of 1 channels"),
        (graph(tmp_path / "o.onnx", TensorProto.FLOAT, ["n", 3, 32, 48], MEAN_OF_CHANNELS, [logits()]), "32×48 px"),
    ):
        with pytest.raises(UserError, match=sentence):
            source.describe(str(name))
    whole = [helper.make_node("Relu", ["x"], ["y"])]
    shape = ("n", 3, 32, 32)
    segmenting = graph(tmp_path / "s.onnx", TensorProto.FLOAT, ["n", 3, 32, 32], whole, [logits("y", shape)])
    with pytest.raises(UserError, match="none has a row of at least 2 classes for each image"):
        source.describe(str(segmenting))
    with pytest.raises(UserError, match="has no random weights"):
        build_network("onnx/net", 5, 32)
    with pytest.raises(WeightsUnavailable, match="name a file"):
        source.pretrained("net")


def test_weights_inside_are_the_digest(tmp_path: Path) -> None:
    """Two files of one name are told apart by their weights."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    paths = [export(tmp_path / "a" / "net.onnx"), export(tmp_path / "b" / "net.onnx", network(6))]
    identities = [starting_weights(*split_path(f"onnx/{path}")).identity for path in paths]
    assert split_path(f"onnx/{paths[0]}")[0] == split_path(f"onnx/{paths[1]}")[0] == "onnx/net"
    assert identities[0] != identities[1]
    weight = numpy_helper.to_array(onnx.load(paths[0]).graph.initializer[0])
    assert weight.size  # the digest covers the bytes of the whole graph


def test_a_worker_that_is_closed_releases_sessions(tmp_path: Path) -> None:
    classifier = loaded(export(tmp_path / "net.onnx"), **GRAY)
    sweep = Sweep("r", "d", (Entrant("onnx/net", "net", "none", "onnx/net", gradients=False),), ())
    evaluator = Evaluator(sweep, [LoadedEntrant(classifier, parse_defense("none"))])
    evaluator.entrants[0].classifier(pixels())
    assert classifier.network.session is not None
    evaluator.close()
    assert classifier.network.session is None


def test_whether_there_are_gradients_is_found_by_trying() -> None:
    class Detached(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(x.numpy().mean((2, 3)))  # NumPy refuses a tensor with a gradient

    preprocessing = Preprocessing(16, *GRAY.values())
    assert Classifier(network(), preprocessing).gives_gradients()
    assert not Classifier(Detached(), preprocessing).gives_gradients()
