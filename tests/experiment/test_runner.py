"""What of a suite can be tested without a run: limits, protocols, the choice of engine, the progress lines."""

import io

import pandas as pd
import pytest
from rich.console import Console

from cnnsens_bench.config.compose import compose
from cnnsens_bench.config.schema import ClusterConfig
from cnnsens_bench.datasets import Samples, make_samples
from cnnsens_bench.experiment.placement import layout_of, over_ray, promised
from cnnsens_bench.experiment.prepare import protocol_hash, resolve_conditions
from cnnsens_bench.experiment.resolve import RunSettings, resolve_settings
from cnnsens_bench.runtime.resources import Machine
from cnnsens_bench.utils import progress as console_room
from cnnsens_bench.utils.environment import environment
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.progress import stage_progress


def test_a_smaller_limit_is_part_of_a_larger_one() -> None:
    ids = [f"i{n}" for n in range(500)]
    table = pd.DataFrame({"image_id": ids, "uri": ids, "split": "test", "label": [n // 50 for n in range(500)]})
    images = make_samples("some", list("abcdefghij"), table).select("test")
    small, large = images.limited(60).load(), images.limited(200).load()
    assert (len(small), len(large)) == (60, 200)
    assert set(small["image_id"]) < set(large["image_id"])
    assert small["label"].nunique() >= 8  # not the first classes alone
    assert images.limited(None) is images.limited(900) is images
    assert large["image_id"].tolist() == [i for i in table["image_id"] if i in set(large["image_id"])]


def settings(*words: str) -> RunSettings:
    return resolve_settings(compose(words))


def test_a_protocol_is_what_a_prediction_means(samples: Samples) -> None:
    base = protocol_hash(settings(), samples)
    for same in ("trials=3", "models=[timm/resnet18]", "limit=5", "output=/tmp/x", "degradations=[pepper]"):
        assert protocol_hash(settings(same), samples) == base
    for other in ("seed=1", "quantize=true", "precision=bfloat16", "input_size=99"):
        assert protocol_hash(settings(other), samples) != base
    moved = samples.with_table(samples.table.assign(box_x=0.0))
    assert protocol_hash(settings(), moved) != base


def test_conditions_take_the_papers_levels_and_one_trial_of_what_is_not_random() -> None:
    gaussian, flip = resolve_conditions(["gaussian_rgb", "flip_lr"], 4)
    assert (gaussian.levels, gaussian.trials) == ((1, 2, 4, 8, 16, 32, 64), 4)
    assert (flip.levels, flip.trials) == ((0.0,), 1)


@pytest.mark.parametrize(
    ("words", "environment_address", "expected"),
    [
        ([], "", False),
        (["cluster.engine=ray"], "", True),
        (["cluster.workers=2"], "", True),
        (["cluster.address=auto"], "", True),
        ([], "127.0.0.1:6379", True),
        (["cluster.engine=local"], "127.0.0.1:6379", False),
    ],
)
def test_the_choice_of_engine(
    words: list[str], environment_address: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", environment_address)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert over_ray(compose(words).cluster) == expected


def test_the_environment_is_what_a_reader_needs_to_repeat_a_run() -> None:
    assert {"python", "torch", "torchvision", "timm", "numpy", "pillow", "commit", "device"} <= environment().keys()


def test_progress_is_plain_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_room, "PLAIN_EVERY", -1.0)
    said = io.StringIO()
    with stage_progress(Console(file=said, width=100), "sweep", 200, "evaluations") as progress:
        progress.detail = "3/10 images"
        progress.advance(50)
        progress.advance(150)
    first, second, last = said.getvalue().splitlines()
    assert "sweep:  25 % (50/200)" in first
    assert "evaluations/s" in first
    assert "s left 3/10 images" in first
    assert "100 %" in second
    assert last.startswith("sweep: 200 evaluations in 0 s")


def test_progress_is_a_bar_on_a_terminal() -> None:
    said = io.StringIO()
    with stage_progress(Console(file=said, force_terminal=True, width=120), "sweep", 200, "evaluations") as progress:
        progress.advance(200)
    assert "200/200" in said.getvalue()


def test_a_cluster_that_grows_is_laid_out_for_what_it_will_be() -> None:
    """The head node has no cores, and GPU nodes come as workers ask for them."""
    head, node = Machine(1), Machine(64, 8)
    with pytest.raises(UserError, match=r"gpus_per_worker is 1, but the cluster has 0 GPUs"):
        layout_of(ClusterConfig(workers=4, gpus_per_worker=1), [head])
    growing = ClusterConfig(workers=4, autoscaling=True)
    layout = layout_of(growing, [head])
    assert (layout.workers, layout.gpus, layout.threads, layout.reserved_cpus) == (4, 1.0, 8, 7)
    without = ClusterConfig(workers=3, gpus_per_worker=0, threads=2, autoscaling=True)
    assert promised(without, [head]) == [Machine(2)] * 3
    assert promised(without, [head, Machine(4)]) == [Machine(2)]
    assert promised(growing, [head, node]) == []  # it has grown already
    with pytest.raises(UserError, match=r"cluster.workers is None: .* with cluster.autoscaling as many"):
        compose(["cluster.autoscaling=true"])
