"""Configs that name a camera: its file is read once, and the config has its degradations from then on."""

import dataclasses
from collections.abc import Sequence, Set
from typing import Any

from cnnsens_bench.camera.entries import PREFIX, camera_files, with_cameras
from cnnsens_bench.camera.report import read_report
from cnnsens_bench.config.schema import Config
from cnnsens_bench.utils.formatting import plain


def with_camera_mixes(config: Config) -> Config:
    """Return the config with the mix of its file in place of each degradation `camera:<file>`. Raise `UserError`."""
    search = dataclasses.replace(config.search, degradations=with_cameras(config.search.degradations))
    return dataclasses.replace(config, degradations=with_cameras(config.degradations), search=search)


def camera_notes(entries: Sequence[Any], sizes: Set[int]) -> tuple[str, ...]:
    """Say which cameras were measured at another size than that of the networks' inputs.

    Parameters
    ----------
    entries
        What a config has in `degradations`, before `with_camera_mixes`.
    sizes
        The sides of the networks' inputs, in pixels.
    """
    notes = []
    for file in camera_files(entries):
        measured = read_report(file).input_size
        if others := sorted(sizes - {measured}):
            how = f"at {measured} px" if measured else "without --resize"
            notes.append(
                f"{PREFIX}{plain(file)} was measured {how}, and networks see {', '.join(map(str, others))} px: a "
                f"resize changes noise and blur, so measure the camera with --resize {others[0]}"
            )
    return tuple(notes)
