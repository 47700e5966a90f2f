"""Photon counts that are looked up in tables are those that are computed one by one."""

import numpy as np
import pytest
import torch

from cnnsens_bench.degradations import degradations
from cnnsens_bench.degradations.camera.light import to_light, to_pixel
from cnnsens_bench.degradations.kernels import photons
from cnnsens_bench.degradations.kernels.pixelwise import scalar_maths, valuewise
from cnnsens_bench.degradations.kernels.poisson import quantile

ALL_NORMALS = torch.arange(1 << 16) / (1 << 16)
"""A uniform number in each bin of the normal distribution."""


@valuewise
def one_by_one(maths):  # type: ignore[no-untyped-def]
    """Compute the degradation `shot_noise` without tables."""
    light, pixel, count = (maths.function(make(maths)) for make in (to_light, to_pixel, quantile))
    return lambda given, uniform, electrons: pixel(count(light(given) * electrons, uniform) / electrons)


@pytest.mark.parametrize("electrons", [1, 3.7, 30, 100, 150])
def test_tabled_counts_are_those_computed_one_by_one(electrons: float) -> None:
    """Bins of the normal distribution are tried at their beginnings and at their ends."""
    stride = 4 if electrons == 100 else 16
    values = torch.arange(256.0)[:, None].expand(256, 1 << 14)
    for uniform in (ALL_NORMALS, (ALL_NORMALS + 2**-16 - 2**-24)):
        for part in uniform.view(4, -1):
            pixels = values.reshape(1, 1, 256, -1).expand(1, 3, -1, -1)[..., ::stride]
            draw = part.expand(1, 3, 256, -1)[..., ::stride]
            given = degradations["shot_noise"].apply(pixels, draw, electrons)
            assert torch.equal(given, one_by_one(pixels, draw, electrons))


def test_means_above_the_largest_tabled_one_are_left_out() -> None:
    own = photons._compiled(lambda maths: lambda value, level: value * level, lambda maths: lambda count, level: count)
    tables = own[0](np.float32(1))
    assert (tables.lowest[:101] >= 0).all()
    assert (tables.lowest[101:] == -1).all()
    assert scalar_maths().scalar
    assert np.isinf(tables.limits[:, -1]).all()


@pytest.mark.parametrize("name", ["shot_noise", "common:shot_noise"])
def test_values_between_whole_numbers_are_computed(name: str) -> None:
    draw = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    level = 3.0
    whole, above = (degradations[name].apply(torch.full((1, 3, 8, 8), value), draw, level) for value in (90.0, 90.5))
    far = degradations[name].apply(torch.full((1, 3, 8, 8), 91.0), draw, level)
    assert (whole <= above).all()
    assert (above <= far).all()
