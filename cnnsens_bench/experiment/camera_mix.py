"""Configs that name a camera: its file is read once, and the config has its degradations from then on."""

import dataclasses

from cnnsens_bench.camera.entries import with_cameras
from cnnsens_bench.config.schema import Config


def with_camera_mixes(config: Config) -> Config:
    """Return the config with the mix of its file in place of each degradation `camera:<file>`. Raise `UserError`."""
    search = dataclasses.replace(config.search, degradations=with_cameras(config.search.degradations))
    return dataclasses.replace(config, degradations=with_cameras(config.degradations), search=search)
