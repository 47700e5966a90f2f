"""Fixtures that several tests need, and the check that nothing is skipped without a known reason."""

import atexit
import gc
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cnnsens_bench.utils.reporter import Reporter

# Torch and pandas are imported where they are used: the process that starts the workers runs no test, and the workers
# wait for it.
if TYPE_CHECKING:
    from cnnsens_bench.datasets import Samples
    from cnnsens_bench.models import Checkpoint

if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers share the cores. Torch reads these when it is imported, and programs that tests start inherit them.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait must not take a core from other workers

TINY = "timm/test_resnet"
"""A real architecture of timm's, made for tests."""
REAL_DATA = Path(os.environ.get("CNNSENS_DATA") or Path(__file__).parents[2] / "shared" / "data")
"""The folder of the real data sets in their official layouts."""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
ALLOWED_SKIPS = ("needs a GPU", "needs a user other than root")
"""The reasons for which tests may skip on a machine that has the real data and Chromium."""
skips: dict[str, str] = {}
"""Each skipped test and its reason."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection() -> None:
    """Collect no garbage while the tests are imported: they make many objects, and hardly any garbage."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Keep garbage collections from looking through what the imports have made, which stays until the end."""
    gc.collect()
    gc.freeze()
    gc.enable()
    atexit.register(gc.unfreeze)  # extensions complain of objects that are left over at the end


def is_complete() -> bool:
    """Return whether this machine has all that the tests can use."""
    return bool(CHROMIUM and CHROMEDRIVER and (REAL_DATA / "CUB_200_2011").is_dir())


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the reasons of skipped tests; with several workers this runs in the process that they report to."""
    if report.skipped and isinstance(report.longrepr, tuple) and not hasattr(report, "wasxfail"):
        skips[report.nodeid] = str(report.longrepr[2]).removeprefix("Skipped: ")


def unknown_skips() -> dict[str, str]:
    """Return the tests that skipped without an allowed reason on a machine that has all they need."""
    return {test: why for test, why in skips.items() if is_complete() and why not in ALLOWED_SKIPS}


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a session in which a test skipped that should have run."""
    if unknown_skips() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the reasons of all skips, and the tests that should not have skipped."""
    for why in sorted(set(skips.values())):
        terminalreporter.write_line(f"{list(skips.values()).count(why)} skipped: {why}")
    for test, why in unknown_skips().items():
        terminalreporter.write_line(f"ERROR: {test} skipped although this machine has all it needs: {why}", red=True)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Give each test one thread again where tests run in parallel: a run in this process asks for all cores."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        import torch

        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The real data sets, in their official layouts."""
    if not (REAL_DATA / "CUB_200_2011").is_dir():
        pytest.skip(f"no real data: {REAL_DATA} has no CUB_200_2011 (set CNNSENS_DATA to the folder that has it)")
    return REAL_DATA


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `folder` data set of 3 classes × 14 noisy pictures of various sizes, each class of a colour of its own."""
    import numpy as np
    import pandas as pd
    from PIL import Image

    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for label, colour in enumerate([(200, 60, 60), (60, 190, 70), (70, 70, 210)]):
        (root / f"class_{label}").mkdir()
        for index in range(14):
            height, width = rng.integers(60, 110, 2)
            pixels = np.clip(rng.normal(colour, 40, (height, width, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"class_{label}" / f"{index:02d}.png")
    boxes = [
        {"path": f"class_{label}/{index:02d}.png", "x": 5.5, "y": 3.0, "w": 40.0, "h": 50.25}
        for label in range(3)
        for index in range(14)
    ]
    pd.DataFrame(boxes).to_csv(root / "boxes.csv", index=False)
    return root


@pytest.fixture(scope="session")
def samples(pictures: Path) -> "Samples":
    """The sample table of `pictures`."""
    from cnnsens_bench.datasets import load

    return load("folder", pictures, None, {})


@pytest.fixture(scope="session")
def photographs(pictures: Path) -> list[str]:
    """Two of each class of `pictures`."""
    return [str(pictures / f"class_{i % 3}" / f"{i:02d}.png") for i in range(6)]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of `tiny_checkpoint(1)`."""
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pt"
    tiny_checkpoint(1).save(path)
    return path


def tiny_checkpoint(seed: int = 0, classes: int = 3, input_size: int = 48, model: str = TINY) -> "Checkpoint":
    """Random weights whose predictions differ from image to image."""
    import torch

    from cnnsens_bench.models import Checkpoint, Preprocessing, split_name

    torch.manual_seed(seed)
    source, name = split_name(model)
    network = source.build(name, classes, input_size)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.kaiming_normal_(parameter)
    described = source.describe(name)
    preprocessing = Preprocessing(input_size, described.mean, described.std)
    names = tuple(f"class_{i}" for i in range(classes))
    return Checkpoint(model, names, preprocessing, network.state_dict())


class RecordingReporter(Reporter):
    """Appends the messages that it hears to a list, and counts evaluations."""

    def __init__(self, messages: list[str]) -> None:
        self.messages, self.total = messages, 0

    def message(self, sentence: str) -> None:
        self.messages.append(sentence)

    def evaluations(self, count: int) -> None:
        self.total += count
