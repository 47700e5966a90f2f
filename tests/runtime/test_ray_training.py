"""Fine-tunings side by side over Ray give the same networks, whatever dies on the way."""

import contextlib
import functools
import ipaddress
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch

from cnnsens_bench.datasets import Samples
from cnnsens_bench.models.checkpoint import Checkpoint
from cnnsens_bench.runtime import cluster as cluster_module
from cnnsens_bench.runtime.cluster import connect
from cnnsens_bench.runtime.ray_training import MAX_DEATHS, train_over_ray
from cnnsens_bench.runtime.resources import Layout
from cnnsens_bench.training.finetune import FineTuning, cached_or_ready
from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.training.trainer import Diverged
from cnnsens_bench.utils.errors import UserError
from tests.conftest import TINY, RecordingReporter

RECIPE = Recipe(epochs=2, batch_size=8, lr_head=5e-3, lr_body=5e-3)
WILD = Recipe(epochs=3, batch_size=8, lr_head=1e30, lr_body=1e30)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    before = ray.is_initialized()
    connect("local")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    if not before:
        ray.shutdown()


def training(samples: Samples, cache: Path, seed: int = 0, recipe: Recipe = RECIPE) -> FineTuning:
    ready = cached_or_ready(TINY, samples, recipe, weights="random", input_size=48, seed=seed, cache=cache)
    assert isinstance(ready, FineTuning)
    return ready


def nothing() -> None:
    pass


def die(deaths: Path, count: int, victim: int) -> None:
    """Kill the process of the first training that comes with this seed, so many times."""
    if (deaths / str(victim)).is_file() and len(list(deaths.glob("*.death"))) < count:
        (deaths / f"{os.getpid()}.death").touch()
        os.kill(os.getpid(), signal.SIGKILL)


def layout(workers: int = 2, cpus: int = 1) -> Layout:
    return Layout(workers, threads=1, gpus=0, reserved_cpus=cpus)


class Driver:
    """What the driver of a run receives."""

    def __init__(self) -> None:
        self.given: dict[str, Checkpoint | Diverged] = {}
        self.losses: dict[str, list[tuple[int, float]]] = {}
        self.notes: list[str] = []

    def run(self, trainings: dict[str, FineTuning], folder: Path, prepare=nothing) -> "Driver":
        run = train_over_ray(
            trainings.items(), layout=layout, folder=folder, prepare=prepare, reporter=RecordingReporter(self.notes)
        )
        for key, checkpoint, losses in run:
            self.given[key], self.losses[key] = checkpoint, losses
        return self


def test_the_same_networks_as_in_this_process(samples: Samples, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    trainings = {f"seed {seed}": training(samples, tmp_path, seed) for seed in range(2)}
    driver = Driver().run(trainings, tmp_path)
    assert set(driver.given) == set(trainings)
    for key, one in trainings.items():
        said: list[tuple[int, float]] = []
        here = one.run(tmp_path, lambda done, _, loss, said=said: said.append((done, loss)))
        assert driver.given[key].digest() == here.digest()
        assert driver.given[key].extra == here.extra
        assert driver.losses[key] == said
    assert not driver.notes
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.slow
def test_one_that_diverges_does_not_end_the_others(samples: Samples, tmp_path: Path) -> None:
    trainings = {
        "good": training(samples, tmp_path),
        "wild": training(samples, tmp_path, recipe=WILD),
        "late": training(samples, tmp_path, seed=1),
    }
    given = Driver().run(trainings, tmp_path).given
    assert set(given) == {"good", "wild", "late"}
    assert isinstance(given["wild"], Diverged)
    assert str(given["wild"]).startswith("training diverged (loss ")


@pytest.mark.slow
@pytest.mark.parametrize("count", [MAX_DEATHS - 1, MAX_DEATHS])
def test_a_process_that_dies(count: int, samples: Samples, tmp_path: Path) -> None:
    """Fewer than so many deaths are got over; a training that always kills is given up, and those beside it end."""
    torch.set_num_threads(1)  # as there: sums round by how they are split
    (tmp_path / "0").touch()
    driver = Driver()
    prepare = functools.partial(die, tmp_path, count, 0)
    if count < MAX_DEATHS:
        driver.run({"frail": training(samples, tmp_path)}, tmp_path, prepare)
        assert driver.given["frail"].digest() == training(samples, tmp_path).run(tmp_path).digest()
        assert driver.notes == ["note: the process that trained frail has died: it begins anew"] * count
    else:
        with pytest.raises(UserError, match=r"the training of frail took its process with it 3 times .*: lower"):
            driver.run({"frail": training(samples, tmp_path)}, tmp_path, prepare)
    assert len(list(tmp_path.glob("*.death"))) == count


def test_a_cluster_of_this_machine_alone_listens_on_loopback() -> None:
    import psutil  # which Ray brings

    own = psutil.Process()
    addresses = set()
    for process in [own, *own.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            found = process.net_connections()
            addresses |= {connection.laddr.ip for connection in found if connection.status == psutil.CONN_LISTEN}
    assert addresses
    for text in addresses:
        address = ipaddress.ip_address(text)
        assert (getattr(address, "ipv4_mapped", None) or address).is_loopback, text


@pytest.mark.slow
def test_trainings_begin_anew_where_a_machine_is_lost(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first layout needs a machine that is not there any more, so nothing moves."""
    monkeypatch.setattr(cluster_module, "PATIENCE", 3.0)
    monkeypatch.setattr(cluster_module, "NOTED_AFTER", 1.0)
    there = iter([{"here", "lost"}])
    monkeypatch.setattr(cluster_module, "alive_nodes", lambda: next(there, {"here"}))
    layouts = iter([layout(2, cpus=1000), layout(1)])
    driver = Driver()
    trainings = {f"seed {seed}": training(samples, tmp_path, seed) for seed in range(2)}
    reporter = RecordingReporter(driver.notes)
    for key, checkpoint, _ in train_over_ray(
        trainings.items(), layout=lambda: next(layouts), folder=tmp_path, prepare=nothing, reporter=reporter
    ):
        driver.given[key] = checkpoint
    assert set(driver.given) == set(trainings)
    assert driver.notes == [
        "note: trainings wait for free cores or GPUs: other jobs may have them, or none have come yet",
        "note: the cluster has lost a machine: trainings begin anew with what is left",
    ]


@pytest.mark.slow
def test_weights_that_cannot_be_had_end_the_others_well(samples: Samples, tmp_path: Path) -> None:
    def waiting() -> Iterator[tuple[str, FineTuning]]:
        yield "good", training(samples, tmp_path)
        raise UserError("no weights")

    run = train_over_ray(waiting(), layout=layout, folder=tmp_path, prepare=nothing)
    assert next(run)[0] == "good"
    with pytest.raises(UserError, match="no weights"):
        next(run)
