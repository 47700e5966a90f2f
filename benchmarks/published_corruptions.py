"""The package `imagecorruptions`, which has the published code of the common corruptions, made to run today."""

import functools
import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
from skimage import filters


@functools.cache
def imagecorruptions() -> Any:
    """Return the module of that package's functions, which was written for older libraries; None where it is absent."""
    spec = importlib.util.find_spec("imagecorruptions")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0])
    resources: Any = types.ModuleType("pkg_resources")
    resources.resource_filename = lambda package, name: str(folder / name)
    interpolation: Any = types.ModuleType("scipy.ndimage.interpolation")
    interpolation.map_coordinates = scipy.ndimage.map_coordinates
    absent = {"pkg_resources": resources, "scipy.ndimage.interpolation": interpolation}
    absent = {name: module for name, module in absent.items() if name not in sys.modules}
    sys.modules.update(absent)
    if not hasattr(np, "float_"):
        np.float_ = np.float64  # type: ignore[attr-defined]
    module: Any = importlib.import_module("imagecorruptions.corruptions")
    for name in absent:  # other modules want the real ones
        del sys.modules[name]

    def with_old_name(image: np.ndarray, *positional: Any, multichannel: bool = False, **named: Any) -> np.ndarray:
        return filters.gaussian(image, *positional, channel_axis=-1 if multichannel else None, **named)

    module.gaussian = with_old_name
    return module
