"""`benchmark`, `degrade` and `sensitivity`: networks and images in memory, as a caller of Python has them."""

import copy
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import cnnsens_bench
from cnnsens_bench import Network, UserError, benchmark, degrade
from cnnsens_bench.engine.degrade import Degrader
from cnnsens_bench.engine.sweep import Condition, Sweep
from cnnsens_bench.images import decode

ROOT = Path(__file__).parents[1]
SIZE, CLASSES = 32, 4
KNOWN: dict[str, Any] = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.25), "size": SIZE, "progress": False}
CONDITIONS = [{"name": "gaussian_rgb", "levels": [16, 64]}, "flip_lr"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CNNSENS_CACHE", str(folder))
    return folder


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 8, 5, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(392, CLASSES)
    return nn.Sequential(*layers)


@pytest.fixture(scope="module")
def arrays() -> tuple[np.ndarray, list[int]]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (6, SIZE, SIZE, 3), np.uint8), [0, 1, 2, 3, 1, 2]


def expected_labels(module: nn.Module, images: np.ndarray) -> list[int]:
    """Return what a loop of one's own predicts."""
    mean, std = (torch.tensor(KNOWN[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        return module((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std).argmax(1).tolist()


def labels(results: cnnsens_bench.Results) -> pd.Series:
    keys = ["image_id", "degradation", "level", "trial"]
    return results.predictions.sort_values(keys).set_index(keys)["prediction"]


def test_a_function_and_a_module_and_a_network_of_equal_weights_predict_equal_labels(
    arrays: tuple[np.ndarray, list[int]],
) -> None:
    module = small().eval()
    network = Network(module, SIZE, KNOWN["mean"], KNOWN["std"], name="mine")
    as_array = benchmark(lambda x: module(x).detach().numpy(), arrays, CONDITIONS, trials=2, **KNOWN)
    found = [labels(benchmark(one, arrays, CONDITIONS, trials=2, progress=False)) for one in (network, [network])]
    found += [labels(benchmark(module, arrays, CONDITIONS, trials=2, **KNOWN)), labels(as_array)]
    for others in found[1:]:
        pd.testing.assert_series_equal(others, found[0])
    assert len(found[0]) == 6 * (1 + 2 * 2 + 1)
    assert found[0].nunique() > 1
    assert found[0].xs("none", level="degradation").tolist() == expected_labels(module, arrays[0])


def test_a_module_stays_as_it_was(arrays: tuple[np.ndarray, list[int]]) -> None:
    module = small().train()
    module[0].requires_grad_(False)
    before, state = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    benchmark(module, arrays, CONDITIONS, trials=1, **KNOWN)
    assert module.training
    assert [p.requires_grad for p in module.parameters()] == [False, False, True, True, True, True]
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_same_call_returns_what_is_there_and_another_network_never_mixes(
    arrays: tuple[np.ndarray, list[int]], tmp_path: Path
) -> None:
    first, second = (benchmark(small(), arrays, CONDITIONS, trials=1, **KNOWN) for _ in range(2))
    assert second.database == first.database
    assert len(second.runs) == 1
    other = benchmark(small(1), arrays, CONDITIONS, trials=1, **KNOWN)
    assert other.database != first.database
    changed = (255 - arrays[0], arrays[1])
    assert benchmark(small(), changed, CONDITIONS, trials=1, **KNOWN).database != first.database
    benchmark(small(), arrays, CONDITIONS, trials=1, output=tmp_path / "own", **KNOWN)
    with pytest.raises(UserError, match="other weights"):
        benchmark(small(1), arrays, CONDITIONS, trials=1, output=tmp_path / "own", **KNOWN)
    weight = 1.0

    def function(images: torch.Tensor) -> torch.Tensor:
        return weight * images.flatten(1)[:, :CLASSES]

    benchmark(function, arrays, CONDITIONS, output=tmp_path / "function", **KNOWN)
    weight = -1.0
    with pytest.raises(UserError, match="other weights"):
        benchmark(function, arrays, CONDITIONS, output=tmp_path / "function", **KNOWN)


class Scaled(nn.Module):
    """A network whose outputs are multiplied by a number that is no part of its weights."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.inner, self.factor = small(), factor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.factor * self.inner(images)


def test_modules_of_equal_weights_and_other_code_never_mix(
    arrays: tuple[np.ndarray, list[int]], tmp_path: Path
) -> None:
    first, again, other = (
        benchmark(Scaled(factor), arrays, ["flip_lr"], trials=1, **KNOWN) for factor in (1.0, 1.0, -1.0)
    )
    assert first.database == again.database
    assert labels(other).tolist() != labels(first).tolist()
    benchmark(Scaled(1.0), arrays, ["flip_lr"], output=tmp_path / "own", **KNOWN)
    with pytest.raises(UserError, match="other weights"):
        benchmark(Scaled(-1.0), arrays, ["flip_lr"], output=tmp_path / "own", **KNOWN)


def test_results_show_as_a_table_a_figure_and_a_page(arrays: tuple[np.ndarray, list[int]], tmp_path: Path) -> None:
    networks = {"one": small(), "two": small(1)}
    results = benchmark(networks, arrays, CONDITIONS, trials=1, **KNOWN)
    summary = results.summary()
    assert set(summary.index.get_level_values("model")) == {"python/one", "python/two"}
    expected = 100 * results.leaderboard.set_index("model")["accuracy"]
    assert summary["accuracy"].droplevel(["dataset", "defense"]).to_dict() == expected.round(1).to_dict()
    shown = results._repr_html_()
    assert "python/two" in shown
    assert "data:image/png;base64," in shown
    assert "python/one" in results.page(tmp_path / "site").read_text("utf-8")


@pytest.mark.slow
def test_data_comes_as_pictures_tables_samples_and_folders(
    arrays: tuple[np.ndarray, list[int]], pictures: Path
) -> None:
    images = [Image.fromarray(pixels) for pixels in arrays[0]]
    names = ["cat", "dog", "owl", "rat"]
    own = Network(small(), SIZE, KNOWN["mean"], KNOWN["std"], classes=names)
    by_name = benchmark(own, (images, [names[label] for label in arrays[1]]), ["flip_lr"], progress=False)
    pd.testing.assert_series_equal(labels(by_name), labels(benchmark(own, arrays, ["flip_lr"], progress=False)))
    assert set(by_name.images["class_name"]) == set(names)
    few = benchmark(own, (arrays[0][:2], [3, 1]), ["flip_lr"], progress=False)
    assert sorted(few.predictions["label"].unique()) == [1, 3]
    paths = sorted(pictures.glob("*/*.png"))[::9]
    table = pd.DataFrame({"uri": paths, "label": [int(path.parent.name[-1]) for path in paths]})
    rows = benchmark(small(), table, ["flip_lr"], **KNOWN).predictions
    assert set(rows["image_id"]) == set(map(str, paths))
    three = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert len(benchmark(three, pictures, ["flip_lr"], limit=5, **KNOWN).images) == 5
    samples = cnnsens_bench.load_dataset("folder", pictures)
    assert set(benchmark(three, samples, ["flip_lr"], limit=4, **KNOWN).images["dataset"]) == {"folder"}


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_a_traced_module_is_a_network(arrays: tuple[np.ndarray, list[int]]) -> None:
    traced = torch.jit.trace(small().eval(), torch.zeros(1, 3, SIZE, SIZE))
    found = benchmark(traced, arrays, ["flip_lr"], trials=1, **KNOWN)
    pd.testing.assert_series_equal(labels(found), labels(benchmark(small(), arrays, ["flip_lr"], trials=1, **KNOWN)))


def test_one_degradation_needs_no_list(arrays: tuple[np.ndarray, list[int]]) -> None:
    alone, listed = (benchmark(small(), arrays, one, trials=1, **KNOWN) for one in ("flip_lr", ["flip_lr"]))
    assert alone.database == listed.database


def test_the_line_names_no_library_where_there_is_none(
    arrays: tuple[np.ndarray, list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    cnnsens_bench.benchmark(small(3), arrays, ["flip_lr"], **{**KNOWN, "progress": True})
    assert "view: shorter side to 32 px, bicubic, then the central 32 px; tested" in capsys.readouterr().out


def test_a_network_of_timm_knows_its_input(arrays: tuple[np.ndarray, list[int]]) -> None:
    torch.manual_seed(0)
    module = timm.create_model("test_resnet", num_classes=CLASSES)
    results = benchmark(module, arrays, ["flip_lr"], progress=False)
    assert results.models[["model", "input_size"]].to_numpy().tolist() == [["python/test_resnet", 160]]
    assert "160" in results.models["view"].item()


def test_other_keys_are_checked_by_the_schema(arrays: tuple[np.ndarray, list[int]]) -> None:
    results = benchmark(small(), arrays, ["flip_lr"], quantize=True, sensitivity="on", **KNOWN)
    assert len(results.sensitivity)
    for wrong, sentence in (
        ({"quantise": True}, "unknown config key 'quantise': did you mean 'quantize'"),
        ({"trials": 0}, "trials is 0: it must be at least 1"),
        ({"batch_size": "many"}, "batch_size"),
        ({"cluster.engine": "ray"}, "in the memory of this process"),
        ({"training.epochs": 1}, "has 4 outputs"),
        ({"options": {"seed": 1}, "seed": 2}, "seed is given twice"),
        ({"models": ["timm/resnet18"]}, "models is given twice, since the network says it"),
        ({"trials": "many"}, "^config key 'trials': Value 'many'"),
    ):
        data: Any = (arrays[0], ["a", "b", "c", "a", "b", "c"]) if "training.epochs" in wrong else arrays
        with pytest.raises(UserError, match=sentence):
            benchmark(small(), data, ["flip_lr"], **KNOWN, **wrong)  # type: ignore[arg-type]


UNIT = {"input_size": SIZE, "mean": (0, 0, 0), "std": (1, 1, 1)}


@pytest.mark.parametrize(
    ("network", "data", "sentence"),
    [
        (3, None, "a int is no network"),
        (small(), None, "give mean, std, size, such as"),
        (Network(lambda x: None, **UNIT), None, "network 'lambda' returned None"),
        (Network(lambda x: x, **UNIT), None, r"returned \(2, 3, 32, 32\) for 2 images"),
        (Network(lambda x: torch.full((len(x), 4), torch.nan), **UNIT), None, "no finite number"),
        (Network(lambda x: torch.ones(len(x), 4, device="meta"), **UNIT), None, "outputs on 'meta'"),
        (Network(lambda x: x.nothing, **UNIT), None, "fails on two images of 32 px .AttributeError"),
        (Network(small(), **UNIT), "no_such_folder", "neither a folder nor a data set"),
        (Network(small(), **UNIT), "absent.tar", "the shard .*/absent.tar does not exist"),
        (Network(small(), **UNIT), "x-{0..1}.parquet", "the file .*/x-0.parquet does not exist"),
        (Network(small(), **UNIT), 5, "data is a int"),
        (Network(small(), **UNIT), pd.DataFrame({"file": [1]}), "no column 'uri'"),
        (Network(small(), **UNIT), ([np.zeros((4, 4, 3))], [0]), "of the type float64"),
        (Network(small(), **UNIT), ([np.zeros((4, 4, 3), np.uint8)], None), "data is a tuple"),
        (Network(small(), **UNIT), ([np.zeros((4, 4, 3), np.uint8)], [[1, 0, 0, 0]]), "give their argmax"),
        (Network(small(), **UNIT), ([np.zeros((4, 4, 3), np.uint8)], np.eye(1, 4)), "give their argmax"),
        (Network(small(), **UNIT), (["a.png"], [0]), "'a.png' is the path of an image: give paths in a table"),
        (Network(small(), **UNIT), ([np.zeros((4, 4, 3), np.uint8)] * 2, [-1, 2]), "label -1 is none of the 4 classes"),
        ([], None, "there is no network"),
        ("my_missing_module:network", None, "cannot be imported"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_sentence(
    network: Any, data: Any, sentence: str, arrays: tuple[np.ndarray, list[int]]
) -> None:
    with pytest.raises(UserError, match=sentence) as raised:
        benchmark(network, arrays if data is None else data, ["flip_lr"], progress=False)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "value",
    [
        {"std": (1, 1, 0)},
        {"mean": (1, 2)},
        {"mean": (123, 116, 103)},
        {"std": (58, 57, 57)},
        {"input_size": 5},
        {"classes": ["one"]},
    ],
)
def test_a_network_is_checked_when_it_is_made(value: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="of 'Sequential'"):
        Network(small(), **value)


def test_several_threads_do_not_meet(arrays: tuple[np.ndarray, list[int]]) -> None:
    found: dict[int, pd.Series] = {}

    def work(seed: int) -> None:
        found[seed] = labels(benchmark({"net": small(seed)}, arrays, CONDITIONS, trials=1, **KNOWN))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not found[0].equals(found[1])
    work(2)
    alone = labels(benchmark({"other": small(1)}, arrays, CONDITIONS, trials=1, **KNOWN))
    pd.testing.assert_series_equal(found[1], alone)


@pytest.mark.parametrize(
    ("degradation", "level"),
    [
        ("gaussian_rgb", 8),
        ("translation", 4),
        ("common:motion_blur", 3),
        ("flip_lr", None),
        ("pepper(0.1) + flip_ud", None),
    ],
)
def test_degraded_pixels_are_those_of_a_run(degradation: str, level: float | None, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    condition = Condition(cnnsens_bench.parse_degradation(degradation).name, (level or 0.0,), 3)
    with ThreadPoolExecutor(1) as pool:
        sweep = Sweep("run", "birds", (), (), seed=5)
        degrader = Degrader(sweep, 48, ["a.png"], [decode(str(tmp_path / "a.png"))], torch.device("cpu"), pool)
        rows = [np.zeros(0, int), np.zeros(0, int), np.zeros(1, int)]
        [(_, expected, _)] = degrader.run(condition, rows)
    found = degrade(pixels, degradation, level, seed=5, trial=2, image_id="a.png", dataset="birds")
    assert np.array_equal(found, expected[0].clamp(0, 255).round().byte().permute(1, 2, 0).numpy())
    assert not np.array_equal(found, pixels)


def test_what_is_degraded_comes_back_as_it_was_given() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 31, 3), np.uint8)
    expected = degrade(pixels, "gaussian_rgb", 8)
    picture = degrade(Image.fromarray(pixels), "gaussian_rgb", 8)
    assert picture.mode == "RGB"
    assert np.array_equal(np.asarray(picture), expected)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    assert torch.equal(degrade(tensor, "gaussian_rgb", 8), torch.from_numpy(expected).permute(2, 0, 1))
    floats = degrade(tensor.double(), "gaussian_rgb", 8)
    assert floats.dtype == torch.float64
    assert torch.equal(floats.round().byte(), torch.from_numpy(expected).permute(2, 0, 1))
    assert (floats != floats.round()).any()
    both = degrade(np.stack([pixels, pixels]), "gaussian_rgb", 8)
    assert np.array_equal(both[0], expected)
    assert not np.array_equal(both[1], expected)
    assert np.array_equal(degrade(pixels, "gaussian_rgb", 8, image_id="1"), both[1])
    assert degrade(Image.new("L", (9, 7), 90), "rotation", 30).size == (9, 7)


@pytest.mark.parametrize(
    ("image", "arguments", "sentence"),
    [
        (np.zeros((4, 4, 3), np.uint8), ("gaussian_rgb",), "needs a level"),
        (np.zeros((4, 4, 3), np.uint8), ("flip_lr", 3), "has no levels: leave level out"),
        (np.zeros((4, 4, 3), np.uint8), ("gausian_rgb", 3), "did you mean"),
        (np.zeros((4, 4), np.uint8), ("flip_lr",), r"of the shape \(4, 4\)"),
        (np.full((4, 4, 3), 0.5), ("flip_lr",), r"not in \[0, 1\]"),
        (np.full((4, 4, 3), 300.0), ("flip_lr",), r"give them in \[0, 255\]"),
        (np.zeros((4, 4, 3), np.int32), ("flip_lr",), "of the type int32"),
        ("a.png", ("flip_lr",), "a str is no image"),
    ],
)
def test_what_cannot_be_degraded_is_one_sentence(image: Any, arguments: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        degrade(image, *arguments)


def test_sensitivity_is_a_table_of_images_and_conditions(arrays: tuple[np.ndarray, list[int]], pictures: Path) -> None:
    known = {key: KNOWN[key] for key in ("mean", "std", "size")}
    names = ["cat", "dog", "owl", "rat"]
    call = cnnsens_bench.sensitivity
    table = call(
        small(), arrays[0][:3], ["gaussian_rgb", "pepper_pixel"], {"gaussian_rgb": [4, 16]}, classes=names, **known
    )
    assert table[table["degradation"] == "gaussian_rgb"].groupby("image")["level"].apply(list).to_dict() == {
        "0": [4.0, 16.0], "1": [4.0, 16.0], "2": [4.0, 16.0],
    }  # fmt: skip
    expected = [names[label] for label in expected_labels(small().eval(), arrays[0][:3])]
    assert table.groupby("image")["label"].first().tolist() == expected
    assert table["label_change"].between(0, 1).all()
    paths = sorted(pictures.glob("*/*.png"))[:2]
    mixed = call(small(), [*paths, Image.fromarray(arrays[0][0]), "absent.png"], levels=[4], **known)
    assert mixed["image"].tolist() == [*map(str, paths), "2", "absent.png"]
    assert mixed["error"].notna().tolist() == [False, False, False, True]
    with pytest.raises(UserError, match="gives no gradients"):
        call(lambda x: x.detach().mean((2, 3)), arrays[0], **known)
    with pytest.raises(UserError, match="'rotation' cannot be predicted by 'gradient'"):
        call(small(), arrays[0], ["rotation"], **known)


@pytest.mark.parametrize(
    "first",
    [
        pytest.param("", marks=pytest.mark.slow),
        "import cnnsens_bench.sensitivity.predictors",
        pytest.param("from cnnsens_bench import degrade", marks=pytest.mark.slow),
    ],
)
def test_sensitivity_can_be_called_and_imported_from_whatever_came_first(first: str) -> None:
    code = (
        f"{first}\nimport cnnsens_bench\ncall = cnnsens_bench.sensitivity\n"
        "from cnnsens_bench.sensitivity.predictors import predictor\nassert callable(call) and callable(predictor)\n"
        "assert cnnsens_bench.sensitivity is call and cnnsens_bench.sensitivity.predictors.predictor is predictor\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
