"""`compile=on` from the command line to the rows: its protocol, its cache, what is refused, and what is said of it."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cnnsens_bench.config.compose import compose
from cnnsens_bench.config.schema import Config
from cnnsens_bench.datasets import Samples
from cnnsens_bench.engine.sweep import Entrant
from cnnsens_bench.experiment.benchmark import unchanged_process
from cnnsens_bench.experiment.compiling import not_compiled
from cnnsens_bench.experiment.estimate import CostEstimate, _compile_lines
from cnnsens_bench.experiment.prepare import protocol_hash
from cnnsens_bench.experiment.resolve import resolve_settings
from cnnsens_bench.models import Classifier, Preprocessing
from cnnsens_bench.models.network import Network, adapted
from cnnsens_bench.run import main
from cnnsens_bench.runtime.compiled_code import CODE_FOLDER, keep_compiled_code
from cnnsens_bench.runtime.local import network_size
from cnnsens_bench.store import Store
from cnnsens_bench.utils.config_keys import ADDED_KEYS
from tests.conftest import TINY, tiny_checkpoint

ROWS = "SELECT * EXCLUDE (run_id) FROM predictions ORDER BY image_id, degradation, level, trial"
Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("word", ["compile=on", "compile=true"])
def test_it_is_a_part_of_the_protocol(word: str, samples: Samples) -> None:
    on, off = compose([word]), compose(["compile=off"])
    assert protocol_hash(resolve_settings(on), samples) != protocol_hash(resolve_settings(off), samples)
    assert on.hash() != off.hash() == compose([]).hash()


def test_off_enters_no_hash() -> None:
    """Runs of versions that did not know the key go on."""
    assert Config().compile is ADDED_KEYS["compile"] is False


def test_code_lies_below_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    monkeypatch.delenv(CODE_FOLDER, raising=False)
    cache_dir()  # writes torch's default into the environment
    default = os.environ[CODE_FOLDER]
    with unchanged_process():
        keep_compiled_code(tmp_path)
        assert Path(cache_dir()).parent == tmp_path / "compiled"
        keep_compiled_code(tmp_path / "other")
        assert Path(cache_dir()).parent == tmp_path / "compiled"  # as a folder of the user's own stays
    assert os.environ[CODE_FOLDER] == default


def test_a_missing_compiler_is_said_before_anything_is_computed(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("CXX", "no-compiler")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([*words(pictures, tmp_path), "compile=on"]) == 2
    assert "compile=on needs a C++ compiler, and there is no no-compiler" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


class Named:
    """Stands for a checkpoint."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def classifier(self) -> Classifier:
        return Classifier(self.network, Preprocessing(32, (0, 0, 0), (1, 1, 1)))


def test_what_is_left_as_it_is_is_said_once() -> None:
    recalibrated = "batch_norm_recalibration(images=4)"
    function = adapted(Network(lambda pixels: pixels.mean((2, 3)), 32, (0, 0, 0), (1, 1, 1)))
    checkpoints = {"a": Named(nn.Flatten()), "f": Named(function)}
    entrants = [Entrant(f"s/{key}", key, d, key) for key in checkpoints for d in ("none", recalibrated)]
    assert not_compiled(entrants[:1], checkpoints) == []  # type: ignore[arg-type]
    foreign, changing = not_compiled(entrants, checkpoints)  # type: ignore[arg-type]
    assert foreign == "compile=on leaves as they are, because torch compiles only its own modules: s/f"
    assert changing.startswith(f"compile=on leaves networks with {recalibrated} as they are")


def test_a_worker_counts_the_weights_of_a_compiled_network_twice() -> None:
    checkpoint = tiny_checkpoint()
    assert network_size(checkpoint, compiled=True).size == 2 * network_size(checkpoint, compiled=False).size


@pytest.mark.parametrize(
    ("compiling", "saved", "forward", "expected"),
    [
        (60.0, 3600.0, 5000.0, "compile=on pays: it takes 1.0 minutes in each worker, and saves 1.0 hours"),
        (60.0, 30.0, 50.0, "compile=on does not pay for this run: it takes 1.0 minutes in each worker, and saves 30.0"),
        (60.0, -5.0, 50.0, "compile=on does not pay for this run: it takes 1.0 minutes in each worker, and saves 0.0"),
        (0.0, None, 5000.0, "compile=on may make the forward passes faster"),
        (0.0, None, 50.0, None),
    ],
)
def test_an_estimate_says_whether_it_pays(
    compiling: float, saved: float | None, forward: float, expected: str | None
) -> None:
    counts = dict.fromkeys(CostEstimate.__dataclass_fields__, 1) | {
        "seconds": {"compile": compiling, "forward": forward},
        "saved_by_compiling": saved,
    }
    lines = _compile_lines(CostEstimate(**counts))  # type: ignore[arg-type]
    assert bool(lines) == bool(expected)
    assert not expected or lines[0].startswith(expected)


def words(pictures: Path, folder: Path, *more: str) -> list[str]:
    return [
        "dataset=folder", f"dataset.root={pictures}", f"cache={folder / 'cache'}", f"output={folder / 'out'}",
        "input_size=40", "trials=1", f"models=[{{name: {TINY}, weights: random}}]", "training.epochs=0", "batch_size=8",
        "degradations=[{name: pepper, levels: [0.04, 0.3]},flip_lr]", "tracking=off", "cluster.threads=1", *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_a_run_equals_one_without_and_goes_on_with_the_same_bits(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.delenv(CODE_FOLDER, raising=False)
    outputs = [tmp_path / name for name in ("eager", "compiled", "resumed")]
    for output, more in zip(outputs, (["compile=off"], ["compile=on"], ["compile=on", "limit=2"]), strict=True):
        assert main([*words(pictures, tmp_path), f"output={output}", *more]) == 0
    assert main([*words(pictures, tmp_path), f"output={outputs[2]}", "compile=on"]) == 0
    eager, compiled, resumed = (Store(output).query(ROWS) for output in outputs)
    assert "resuming:" in capsys.readouterr().out
    assert (eager["prediction"] == compiled["prediction"]).mean() > 0.99
    np.testing.assert_allclose(eager["reference_logit"], compiled["reference_logit"], atol=1e-3)
    pd.testing.assert_frame_equal(resumed, compiled, check_exact=True)
    assert list((tmp_path / "cache" / "compiled").rglob("*.so"))
    protocols = [Store(output).query("SELECT DISTINCT protocol FROM runs")["protocol"][0] for output in outputs]
    assert protocols[0] != protocols[1] == protocols[2]


@pytest.mark.slow
def test_workers_of_ray_compile_too(pictures: Path, tmp_path: Path, capsys: Capture) -> None:
    request = words(pictures, tmp_path, "compile=on")
    assert main(request) == 0
    assert main([*request, f"output={tmp_path / 'ray'}", "cluster.engine=ray", "cluster.workers=2"]) == 0
    assert capsys.readouterr().out.count(f"compiling {TINY}") == 2
    alone, over_ray = (Store(tmp_path / name).query(ROWS) for name in ("out", "ray"))
    pd.testing.assert_frame_equal(over_ray, alone, check_exact=True)


@pytest.mark.slow
def test_an_estimate_times_it(pictures: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(words(pictures, tmp_path, "compile=on", "estimate=true", "defenses=[none,gaussian_filter]")) == 0
    said = capsys.readouterr().out
    assert "    compile: " in said
    assert "compile=on does not pay for this run: it takes" in said
