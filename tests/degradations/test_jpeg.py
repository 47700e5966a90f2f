"""JPEG by integer operations on tensors has the bits of OpenCV's codec."""

import pytest
import torch

from cnnsens_bench.degradations.camera.sensor import jpeg
from cnnsens_bench.degradations.kernels import pixelwise


@pytest.mark.parametrize("size", [17, 23, 24, 33, 64])
def test_tensors_give_the_bits_of_the_codec(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(size)
    noise = torch.rand(2, 3, size, size, generator=generator) * 255
    smooth = torch.linspace(0, 255, size).expand(2, 3, size, size) * torch.tensor([0.3, 0.6, 1.0]).view(3, 1, 1)
    for pixels in (noise, (noise > 128) * 255.0, smooth):
        for quality in (1, 7, 25, 49, 50, 75, 90, 100):
            codec = jpeg(pixels, None, quality)
            with monkeypatch.context() as patch:
                patch.setattr(pixelwise, "on_cpu", lambda pixels: False)
                assert torch.equal(jpeg(pixels, None, quality), codec), quality
