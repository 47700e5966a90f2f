"""Machine code of loops is kept in the cache folder, and is never taken for another loop's."""

import numba
import numpy as np
import pytest
from numba.core import event

from cnnsens_bench.degradations import degradations
from cnnsens_bench.degradations.kernels import pixelwise
from cnnsens_bench.utils import compiled_loops
from cnnsens_bench.utils.compiled_loops import KeptCode, keep_code


def double(value):
    return value * np.float32(2)


def triple(value):
    return value * np.float32(3)


def make_loop(formula):
    """Make a loop from a formula, as another process would make it again."""
    inner = numba.njit(formula)

    @numba.njit
    def loop(values):
        for i in range(len(values)):
            values[i] = inner(values[i])

    return keep_code(loop, formula)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNSENS_CACHE", str(tmp_path))
    for formula in (double, triple):
        monkeypatch.setattr(formula, "__module__", compiled_loops.__name__)
    return tmp_path / "loops"


class Compilations(event.Listener):
    """Counts the outermost compilations of numba."""

    def __init__(self):
        self.open, self.count = 0, 0

    def on_start(self, _):
        self.open += 1

    def on_end(self, _):
        self.open -= 1
        self.count += not self.open


def compilations_of(formula, dtype=np.float32):
    """Return how often numba compiled for a first call of a loop, and what the loop made of 5."""
    values, counter = np.array([5], dtype), Compilations()
    with event.install_listener("numba:compile", counter):
        make_loop(formula)(values)
    return counter.count, values.tolist()


def test_a_loop_is_compiled_once(cache):
    assert compilations_of(double) == (1, [10])
    assert compilations_of(double) == (0, [10])
    assert len(list(cache.glob("*/*"))) == 1


def test_formulas_and_signatures_have_their_own_code(cache):
    compilations_of(double)
    assert compilations_of(triple) == (1, [15])
    assert compilations_of(double, np.float64) == (1, [10])
    assert [compilations_of(triple), compilations_of(double, np.float64)] == [(0, [15]), (0, [10])]
    assert len(list(cache.glob("*/*"))) == 3


def test_a_change_of_the_sources_compiles_again(monkeypatch):
    compilations_of(double)
    monkeypatch.setattr(compiled_loops, "source_digest", lambda: "other")
    assert compilations_of(double) == (1, [10])


@pytest.mark.parametrize("content", [b"", b"\x80", b"nothing that can be read"])
def test_a_damaged_file_is_written_again(cache, content):
    compilations_of(double)
    (file,) = cache.glob("*/*")
    file.write_bytes(content)
    assert [compilations_of(double), compilations_of(double)] == [(1, [10]), (0, [10])]


def test_a_folder_that_cannot_be_written_costs_time_alone(cache):
    cache.write_text("a file where the folder should be")
    assert [compilations_of(double), compilations_of(double)] == [(1, [10]), (1, [10])]


def test_formulas_that_the_sources_do_not_tell_are_not_kept(cache, monkeypatch):
    factor = np.float32(4)
    closure = lambda value: value * factor  # noqa: E731
    assert compilations_of(closure)[1] == [20]
    monkeypatch.setattr(double, "__module__", "plugin_of_a_user")
    assert compilations_of(double)[1] == [10]
    assert not cache.exists()


def test_loops_that_a_function_makes_in_the_package_are_kept():
    factory = degradations["gaussian_intensity"].function.__wrapped__
    per_pixel, per_image = pixelwise._compiled(factory)
    made_of = f"{factory.__module__}.gaussian_intensity"
    for loop in (per_pixel, per_image):
        assert isinstance(loop._cache, KeptCode)
        assert loop._cache.names == [f"{pixelwise.__name__}.{loop.py_func.__qualname__}", made_of]
