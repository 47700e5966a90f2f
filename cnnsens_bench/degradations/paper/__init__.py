"""The degradations of the paper: noise on colours, black pixels, moved, turned and mirrored views."""

from cnnsens_bench.degradations.paper import colour, geometry, impulse

__all__ = ["colour", "geometry", "impulse"]
