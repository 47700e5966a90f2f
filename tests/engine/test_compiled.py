"""Compiled networks: they predict as the networks themselves do, and what is not compiled stays as it is."""

import dataclasses
import gc
import logging
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch._inductor.config
from torch import Tensor, nn

from cnnsens_bench import images
from cnnsens_bench.datasets import Samples
from cnnsens_bench.defenses import parse_defense
from cnnsens_bench.engine import compiled
from cnnsens_bench.engine.compiled import CompiledNetwork, compile_networks, forget_compiled, require_compiler
from cnnsens_bench.engine.evaluate import Evaluator
from cnnsens_bench.engine.networks import LoadedEntrant, autocast, to_device
from cnnsens_bench.engine.score import Scorer
from cnnsens_bench.engine.sweep import CalibrationImage, Condition, Entrant, Sweep
from cnnsens_bench.models import Classifier, Preprocessing, split_name
from cnnsens_bench.models.network import Network, adapted
from cnnsens_bench.utils.errors import UserError
from tests.conftest import RecordingReporter

SIZE = 32
CPU = torch.device("cpu")
DEFENSES = ("none", "gaussian_filter", "batch_norm_recalibration(images=4)")


def classifier(network: nn.Module | None = None, size: int = SIZE) -> Classifier:
    torch.manual_seed(0)
    if network is None:
        network = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(1800, 3))
        network[1].running_mean.normal_()
        network[1].running_var.uniform_(0.5, 2)
    return to_device(Classifier(network, Preprocessing(size, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))), CPU)


@pytest.fixture(scope="module", autouse=True)
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that torch keeps compiled code in."""
    folder = tmp_path_factory.mktemp("code")
    with pytest.MonkeyPatch.context() as patch, torch._inductor.config.patch({"cpp_cache_precompile_headers": False}):
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
        yield folder
    forget_compiled()


@pytest.fixture(scope="module")
def batch(samples: Samples) -> tuple[list[str], list[int], list[images.Decoded]]:
    table = samples.table.iloc[::5]
    decoded = [images.decode(r.uri, (r.box_x, r.box_y, r.box_w, r.box_h)) for r in table.itertuples()]
    return table["image_id"].tolist(), table["label"].tolist(), decoded


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    entrants = tuple(Entrant("s/tiny", "tiny", parse_defense(defense).name, "tiny") for defense in DEFENSES)
    calibration = tuple(CalibrationImage(str(i), "", 0, 0, 9, 9) for i in range(4))
    conditions = (Condition("gaussian_rgb", (4.0, 64.0), 2), Condition("flip_lr", (0.0,), 1))
    return Sweep("r", "data", entrants, conditions, batch_size=6, calibration=calibration)


def make_evaluator(sweep: Sweep, batch: tuple, reporter: RecordingReporter | None = None) -> Evaluator:
    network = classifier()
    loaded = [LoadedEntrant(network, parse_defense(entrant.defense)) for entrant in sweep.entrants]
    return Evaluator(sweep, loaded, calibration=batch[2][:4], reporter=reporter or RecordingReporter([]))


@pytest.fixture(scope="module")
def messages() -> list[str]:
    return []


@pytest.fixture(scope="module")
def fast(sweep: Sweep, batch: tuple, messages: list[str]) -> Evaluator:
    """An evaluator of compiled networks."""
    return make_evaluator(dataclasses.replace(sweep, compile=True), batch, RecordingReporter(messages))


def run(evaluator: Evaluator, batch: tuple, order: list[int] | None = None) -> pd.DataFrame:
    ids, labels, decoded = ([part[i] for i in order] for part in batch) if order else batch
    wanted = np.ones((len(ids), len(evaluator.entrants), len(evaluator.cells)), bool)
    found = [
        pd.DataFrame(prediction.columns).assign(degradation=prediction.degradation)
        for prediction in evaluator.evaluate(ids, labels, decoded, wanted)
    ]
    table = pd.concat(found)
    table["image"] = [ids[i] for i in table["image"]]
    keys = ["image", "entrant", "degradation", "level", "trial"]
    return table.sort_values(keys).set_index(keys)


@pytest.fixture(scope="module")
def found(fast: Evaluator, batch: tuple) -> pd.DataFrame:
    return run(fast, batch)


@pytest.fixture(scope="module")
def expected(sweep: Sweep, batch: tuple) -> pd.DataFrame:
    return run(make_evaluator(sweep, batch), batch)


def test_predictions_are_those_of_the_network_itself(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert (found["prediction"] == expected["prediction"]).all()
    np.testing.assert_allclose(found["reference_logit"], expected["reference_logit"], atol=1e-3)


def test_a_network_is_compiled_once_for_all_defenses_but_recalibration(fast: Evaluator, messages: list[str]) -> None:
    assert sorted(fast.compiled) == [0, 1]
    assert fast.compiled[0] is fast.compiled[1]
    assert sorted(fast.recalibrated) == [2]
    assert [message for message in messages if message.startswith("compiling s/tiny")] == messages[:1]


def test_recalibrated_networks_have_the_bits_of_a_run_without(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    third = found.index.get_level_values("entrant") == 2
    pd.testing.assert_frame_equal(found[third], expected[third], check_exact=True)


def test_batch_norm_and_convolutions_become_one(code: Path, fast: Evaluator) -> None:
    programs = [file.read_text() for file in code.rglob("*.py") if "def call" in file.read_text()]
    assert programs
    assert not any("batch_norm" in line for text in programs for line in text.splitlines() if "cpp_fused" in line)


def test_predictions_do_not_depend_on_how_images_are_grouped(
    found: pd.DataFrame, fast: Evaluator, batch: tuple
) -> None:
    for order in ([3], [5, 1, 0]):
        part = run(fast, batch, order)
        pd.testing.assert_frame_equal(part, found.loc[part.index], check_exact=True)


def test_scores_never_see_a_compiled_network(
    fast: Evaluator, sweep: Sweep, batch: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: CompiledNetwork, pixels: Tensor) -> Tensor:
        raise AssertionError("a score asked a compiled network")

    monkeypatch.setattr(CompiledNetwork, "__call__", refuse)
    with pytest.raises(AssertionError, match="a score asked"):
        run(fast, batch)
    scored = dataclasses.replace(fast.sweep, sensitivity=True, predictors=("noisy_gradients(copies=2)",))
    wanted = np.ones((len(batch[0]), 3, len(scored.score_cells())), bool)
    wanted[:, 2] = False
    scores = Scorer(scored, fast.entrants, CPU, fast.pool).score(batch[0], batch[2], wanted)
    assert len(scores.sensitivity["image"]) == 2 * 3 * len(batch[0])


class Branching(nn.Module):
    """A network whose steps depend on its pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * SIZE**2, 3)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.layer(pixels.flatten(1)) * (2 if pixels.mean() > 0 else 1)


def test_a_network_that_cannot_be_compiled_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"^'s/branching' cannot be compiled \(.+\): leave compile=on out$"):
        compile_networks([(0, "s/branching", classifier(Branching()))], CPU, "float32", 4)


def test_other_libraries_functions_and_scripted_modules_stay_as_they_are() -> None:
    function = adapted(Network(lambda pixels: pixels.mean((2, 3)), SIZE, (0, 0, 0), (1, 1, 1)))
    traced = adapted(
        Network(torch.jit.trace(Branching().layer, torch.zeros(1, 3 * SIZE**2)), name="traced", input_size=SIZE)
    )
    networks = [(0, "function", classifier(function)), (1, "traced", classifier(traced))]
    assert compile_networks(networks, CPU, "float32", 4) == {}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_missing_compiler_is_one_sentence(device: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    variable = "CC" if device == "cuda" else "CXX"
    monkeypatch.setenv(variable, "no-compiler")
    with pytest.raises(
        UserError, match=f"there is no no-compiler on this machine: install one .* name it in {variable}"
    ):
        require_compiler(device)
    monkeypatch.delenv(variable)
    monkeypatch.setattr(compiled.sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(UserError, match=r"there is no .*Python\.h: install them"):
        require_compiler(device)


@pytest.mark.slow
def test_where_memory_is_short_smaller_batches_are_compiled(sweep: Sweep, batch: tuple) -> None:
    messages: list[str] = []
    evaluator = make_evaluator(dataclasses.replace(sweep, compile=True), batch, RecordingReporter(messages))
    whole = run(evaluator, batch)
    forward = evaluator.compiled[0].forward

    def with_little_memory(pixels: Tensor) -> Tensor:
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return forward(pixels)

    evaluator.compiled[0].forward = with_little_memory
    in_parts = run(evaluator, batch)
    assert any("with 1 images at a time" in message for message in messages)
    np.testing.assert_allclose(in_parts["reference_logit"], whole["reference_logit"], atol=1e-3)


ARCHITECTURES = (
    ("torchvision/resnet18", 64, "float32"), ("torchvision/googlenet", 64, "float32"),
    ("torchvision/mobilenet_v3_small", 64, "float32"), ("timm/tf_efficientnet_lite0", 64, "float32"),
    ("timm/convnext_atto", 64, "float32"), ("timm/vit_tiny_patch16_224", 224, "float32"),
    ("timm/tf_efficientnet_lite0", 64, "bfloat16"),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("model", "size", "precision"), ARCHITECTURES)
def test_architectures_give_equal_labels(model: str, size: int, precision: str) -> None:
    torch.manual_seed(0)
    source, name = split_name(model)
    network = classifier(source.build(name, 50, size), size)
    pixels = torch.rand(16, 3, size, size).mul(255).contiguous(memory_format=torch.channels_last)
    fast = compile_networks([(0, model, network)], CPU, precision, len(pixels))[0]
    with torch.inference_mode(), autocast(CPU, precision):
        found, expected = fast(pixels).float(), network(pixels).float()
    tolerance = 1e-3 if precision == "float32" else 0.05
    assert (found - expected).abs().max() < tolerance * max(1, float(expected.abs().max()))
    assert precision != "float32" or (found.argmax(1) == expected.argmax(1)).all()


@pytest.mark.slow
def test_a_closed_evaluator_frees_the_weights(sweep: Sweep, batch: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    # pytest keeps the records of this logger, and these keep what they tell of.
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", False)
    evaluator = make_evaluator(dataclasses.replace(sweep, compile=True), batch)
    weights = weakref.ref(next(evaluator.entrants[0].classifier.parameters()))
    evaluator.close()
    del evaluator
    gc.collect()
    assert weights() is None
