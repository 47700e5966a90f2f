"""`ray job submit --working-dir .`: what is uploaded, and that a job computes what one process computes."""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

from cnnsens_bench.run import main
from cnnsens_bench.store import Store
from tests.conftest import TINY
from tests.test_run import ROWS, words

ROOT = Path(__file__).parents[1]
JUNK = (
    "runs/quick/results.duckdb", "runs/quick/parts/a/predictions-0.parquet", ".venv/lib/torch.so", "venv/bin/python",
    ".git/objects/00/11", "data/CUB_200_2011/images/a.jpg", "mlflow.db", "mlruns/0/meta.yaml", "site/index.html",
    "mine/results.duckdb", "mine/results.duckdb.wal", ".mypy_cache/x.json", ".ruff_cache/x", ".pytest_cache/x",
    ".hypothesis/x", "cnnsens_bench/__pycache__/run.cpython-311.pyc", "cnnsens_bench.egg-info/PKG-INFO", 
    "build/lib/x.py", "dist/x.whl", "tests/test_x.py", "docs/x.png",
)  # fmt: skip


@pytest.mark.parametrize("gitignore", [True, False])
def test_only_the_packages_and_ones_own_files_are_uploaded(gitignore: bool, tmp_path: Path) -> None:
    """`gitignore`: Ray can be told to read .rayignore only."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "cnnsens_bench", folder / "cnnsens_bench", ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".gitignore", ".rayignore", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    for name in JUNK:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(1_000_000))
    own = ("my_plugin.py", "recipe.yaml", "weights/mine.safetensors", "data_of_mine/list.csv")
    for name in own:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    package = tmp_path / "package.zip"
    create_package(str(folder), package, gitignore, excludes=get_runtime_env_default_excludes())
    names = {name for name in zipfile.ZipFile(package).namelist() if not name.endswith("/")}
    assert not names & set(JUNK)
    assert set(own) <= names
    assert {
        "cnnsens_bench/run.py",
        "cnnsens_bench/config/suites/quick.yaml",
        "cnnsens_bench/store/sql/schema.sql",
    } <= names
    assert {"cnnsens_bench/training/data.py", "cnnsens_bench/datasets/base.py"} <= names
    assert package.stat().st_size < 2_000_000


CLUSTER = """
    import sys
    from ray.cluster_utils import Cluster

    dashboard, agent = sys.argv[1:]
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1, "include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": int(dashboard),
            "dashboard_agent_listen_port": int(agent), "object_store_memory": 300_000_000,
        },
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=300_000_000)
    print("ready", flush=True)
    sys.stdin.read()
    cluster.shutdown()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Jobs:
    """`ray job …` of the three-node cluster."""

    def __init__(self, address: str, environment: dict[str, str]) -> None:
        self.address, self.environment = address, environment

    def call(self, *words: str, code: int = 0) -> str:
        """What the command line says; fails unless it ends with `code`."""
        command = ["ray", "job", words[0], "--address", self.address, *words[1:]]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, cwd=ROOT, timeout=540)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def run(self, *request: str, options: tuple[str, ...] = (), code: int = 0) -> str:
        """Submit a run; its log, unless `--no-wait` is among the options."""
        command = ("--working-dir", ".", *options, "--", sys.executable, "-m", "cnnsens_bench.run", *request)
        return self.call("submit", *command, code=code)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    """Three nodes of one core each, their Jobs API on loopback, closed to who has not the token."""
    bin_folder = str(Path(sys.executable).parent)
    environment = os.environ | {
        "PATH": bin_folder + os.pathsep + os.environ["PATH"], "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0",
    }  # fmt: skip
    environment.pop("RAY_ADDRESS", None)
    port, agent = free_port(), free_port()
    # Sockets lie below it: a path of pytest's would be too long. Else others on this machine would join the cluster.
    folder = Path("/tmp") / f"cnnsens-{secrets.token_hex(4)}"
    folder.mkdir()
    environment["RAY_TMPDIR"] = str(folder)
    arguments = [sys.executable, "-c", textwrap.dedent(CLUSTER), str(port), str(agent)]
    process = subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder.parent
    )
    assert process.stdin
    assert process.stdout
    try:
        assert process.stdout.readline() == "ready\n"
        client = Jobs(f"http://127.0.0.1:{port}", environment)
        for _ in range(60):  # the Jobs API comes some seconds after the nodes
            answer = subprocess.run(
                ["ray", "job", "list", "--address", client.address], capture_output=True, env=environment, check=False
            )
            if answer.returncode == 0:
                break
            time.sleep(1)
        yield client
    finally:
        process.stdin.close()
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def rows(output: Path) -> pd.DataFrame:
    return Store(output).query(ROWS)


QUICK = (
    "suite=quick", "limit=24", "training.epochs=1", "tracking=off",
    "models=[{name: torchvision/resnet18, weights: random, training: {epochs: 1}},timm/tf_efficientnet_lite0]",
    "degradations=[{name: gaussian_rgb, levels: [8, 32]},{name: translation, levels: [4]},flip_lr]",
)  # fmt: skip
CUB = (
    "suite=cub", "limit=16", "training.epochs=1", "tracking=off", "trials=1", "input_size=64",
    "degradations=[{name: pepper, levels: [0.01, 0.16]},{name: translation, levels: [4]},flip_lr]",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["quick", "cub"])
def test_a_job_on_three_nodes_gives_the_rows_of_one_process(
    suite: str, jobs: Jobs, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    asked = [*(QUICK if suite == "quick" else CUB)]
    if suite == "cub":
        asked.append(f"data_root={request.getfixturevalue('data_root')}")
    # One thread on either side: some convolutions of oneDNN round by how their work is split.
    here, there = ([f"output={tmp_path / name}", f"cache={tmp_path / name}-cache"] for name in ("here", "there"))
    assert main([*asked, *here, "cluster.engine=local", "cluster.threads=1"]) == 0
    workers = ["cluster.workers=2"] if suite == "cub" else []  # or as many as there are machines
    said = jobs.run(*asked, *there, "cluster.threads=1", *workers)
    pd.testing.assert_frame_equal(rows(tmp_path / "there"), rows(tmp_path / "here"))
    assert "evaluations in" in said
    assert "fine-tune over the cluster" in said
    assert "\r" not in said


@pytest.mark.slow
def test_a_job_that_is_stopped_goes_on(jobs: Jobs, pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    request = words(pictures, tmp_path / "cache", output, "cluster.workers=2", "cluster.threads=1", "trials=40",
                    "training.epochs=1", "tracking=off", f"models=[{{name: {TINY}, weights: random}}]")  # fmt: skip
    name = f"stopped-{secrets.token_hex(4)}"
    patient = json.dumps({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60"}})
    jobs.run(*request, options=("--no-wait", "--submission-id", name, "--runtime-env-json", patient))
    until = time.monotonic() + 300
    while not list(output.glob("parts/*/predictions-*.parquet")) and time.monotonic() < until:
        time.sleep(0.05)
    jobs.call("stop", name)
    log = jobs.call("logs", name)
    assert "stopped: nothing computed is lost, the same command goes on" in log, log
    assert "Traceback" not in log
    assert Store(output).query("SELECT status FROM runs")["status"].tolist() == ["interrupted"]
    before = len(rows(output))
    assert before > 0
    log = jobs.run(*request)
    told = re.search(r"resuming: (\d+) of (\d+) evaluations", log)
    assert told
    assert before <= int(told[1]) < int(told[2])  # what workers wrote after the driver had ended is not lost either
    assert len(rows(output)) == int(told[2])
    assert Store(output).query("SELECT status FROM runs")["status"].tolist() == ["done"]


@pytest.mark.slow
def test_exit_codes_reach_who_submits(jobs: Jobs) -> None:
    assert "unknown suite 'quik'" in jobs.run("suite=quik", code=1)
    assert "exit code 2" in jobs.run("suite=quik", code=1)


NETWORKS = """
import torch
from cnnsens_bench import Network

def module():
    layers = torch.nn.Conv2d(3, 8, 5, 4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 7 * 7, 3)
    return Network(torch.nn.Sequential(*layers), 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))

def function():
    network = module().function.eval()
    return Network(lambda images: network(images).detach().numpy(), 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
"""


@pytest.mark.slow
def test_workers_call_the_functions_of_an_own_module(
    jobs: Jobs, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The uploaded folder has the user's module; a module's and a function's labels are equal, here and there."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "cnnsens_bench", folder / "cnnsens_bench", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "job_networks.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(str(folder))
    asked = ["dataset=folder", f"dataset.root={pictures}", "models=['job_networks:module','job_networks:function']",
             "fine_tune=never", "view=box", "limit=12", "trials=1", "tracking=off", "cluster.threads=1",
             "degradations=[{name: gaussian_rgb, levels: [32]},flip_lr]"]  # fmt: skip
    here, there = ([f"output={tmp_path / name}", f"cache={tmp_path / name}-cache"] for name in ("here", "there"))
    assert main([*asked, *here, "cluster.engine=local"]) == 0
    command = (sys.executable, "-m", "cnnsens_bench.run", *asked, *there, "cluster.workers=2")
    said = jobs.call("submit", "--working-dir", str(folder), "--", *command)
    assert "evaluations in" in said
    found = rows(tmp_path / "there")
    pd.testing.assert_frame_equal(found, rows(tmp_path / "here"))
    labels = found.pivot(index=["image_id", "degradation", "level", "trial"], columns="model", values="prediction")
    assert labels["job_networks:module"].equals(labels["job_networks:function"])
    absent = jobs.call("submit", "--working-dir", ".", "--", *command, f"output={tmp_path / 'absent'}", code=1)
    assert "'job_networks' of model 'job_networks:module' cannot be imported" in absent
