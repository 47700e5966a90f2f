"""Degradations of cheap cameras: their sensors, lenses, shutters and white balance."""

from cnnsens_bench.degradations.camera import sensor

__all__ = ["sensor"]
