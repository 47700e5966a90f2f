"""What the engine does with pre-made pictures that it is given."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from cnnsens_bench.engine.batch_norm import Calibration
from cnnsens_bench.engine.degrade import Degrader, previews
from cnnsens_bench.engine.degrade_pixels import degrade_pixels
from cnnsens_bench.engine.networks import NetworkInput
from cnnsens_bench.engine.sweep import CalibrationImage, Condition, Sweep
from cnnsens_bench.images import Decoded
from cnnsens_bench.utils.errors import StorageError, UserError

SIZE = 16
FOG = Condition("stored:fog", (1.0, 2.0, 3.0), 1)
IDS = [f"i{i}" for i in range(5)]
CPU = torch.device("cpu")


def decoded(value: int, size: int = SIZE) -> Decoded:
    return Decoded(np.full((size, size, 3), value, np.uint8), 0, 0, size, size, (0.0, 0.0, float(size), float(size)))


def read(image_id: str, corruption: str, severity: int) -> Decoded | str:
    """Give a picture of a value that names the image and severity, and of another size for i3; i4 has none."""
    if image_id == "i4":
        return "no such picture"
    return decoded(10 * int(image_id[1:]) + severity, 40 if image_id == "i3" else SIZE)


def test_cells_get_their_pictures_and_others_go_on() -> None:
    sweep = Sweep("r", "d", (), (FOG,))
    wanted = [np.arange(5), np.array([0, 3]), np.array([4])]
    with ThreadPoolExecutor(2) as pool:
        degrader = Degrader(sweep, SIZE, IDS, [decoded(200)] * 5, CPU, pool, read_stored=read)
        found = {
            (cell, int(row)): float(pixels.mean())
            for cell, some, rows in degrader.run(FOG, wanted)
            for row, pixels in zip(rows, some, strict=True)
        }
    assert found == {(0, i): 10 * i + 1 for i in range(4)} | {(1, 0): 2, (1, 3): 32}
    assert degrader.failures == [
        (4, "decode", f"stored:fog at severity {severity}: no such picture") for severity in (1, 3)
    ]


def test_a_storage_that_does_not_answer_is_no_fault_of_an_image() -> None:
    def fail(*_: object) -> Decoded:
        raise StorageError("s3://bucket/fog cannot be read now")

    with ThreadPoolExecutor(2) as pool:
        degrader = Degrader(Sweep("r", "d", (), (FOG,)), SIZE, IDS, [decoded(9)] * 5, CPU, pool, read_stored=fail)
        with pytest.raises(StorageError):
            list(degrader.run(FOG, [np.arange(5)] * 3))


def test_without_files_it_is_one_sentence() -> None:
    for work in (
        lambda: list(previews(decoded(9), "i0", "d", [FOG], SIZE)),
        lambda: degrade_pixels(
            np.zeros((1, 8, 8, 3), np.uint8), "stored:fog", 1.0, seed=0, trial=0, image_ids=["i0"], dataset="d"
        ),
    ):
        with pytest.raises(UserError, match="'stored:fog' shows pictures of a pre-made set, which only the run of a"):
            work()


def test_recalibration_sees_pictures_neither_rounded_nor_stored_again() -> None:
    images = tuple(CalibrationImage(name, "", 0, 0, 0, 0) for name in IDS)
    sweep = Sweep("r", "d", (), (FOG,), calibration=images, stored_quality=1)
    with ThreadPoolExecutor(2) as pool:
        calibration = Calibration(sweep, [decoded(200)] * 5, CPU, pool, read)
        pixels = calibration.pixels(3, NetworkInput(SIZE, None), 2)
    assert pixels.mean((1, 2, 3)).tolist() == [2, 12, 22]
