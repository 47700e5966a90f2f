"""The public interface of cnnsens_bench: how often does a network's label change when the picture gets worse?

Each public name is imported when it is first used, so that `import cnnsens_bench` itself takes milliseconds.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

# Unless told not to, MKL's matrix products round by how a row lies in memory, so by an image's place in its batch.
# It reads this at its first product.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

# Unless told not to, albumentations asks PyPI for its latest version where it is imported.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__version__ = "0.2.0"

if TYPE_CHECKING:
    from cnnsens_bench import datasets, defenses, degradations, measures, models
    from cnnsens_bench.api import benchmark, degrade, sensitivity
    from cnnsens_bench.datasets import Samples, dataset, load_dataset, make_samples
    from cnnsens_bench.defenses import defense, parse_defense
    from cnnsens_bench.degradations import Motion, degradation, parse_degradation
    from cnnsens_bench.images.published import PublishedView
    from cnnsens_bench.measures import measure
    from cnnsens_bench.models import Preprocessing, load_checkpoint, model_source
    from cnnsens_bench.models.network import Network
    from cnnsens_bench.results import Results, open_results
    from cnnsens_bench.sensitivity.predictors import predictor
    from cnnsens_bench.utils.errors import UserError

__all__ = [
    "Motion", "Network", "Preprocessing", "PublishedView", "Results", "Samples", "UserError", "__version__",
    "benchmark", "dataset", "datasets", "defense", "defenses", "degradation", "degradations", "degrade",
    "load_checkpoint", "load_dataset", "make_samples", "measure", "measures", "model_source", "models",
    "open_results", "parse_defense", "parse_degradation", "predictor", "sensitivity",
]  # fmt: skip
_MODULES = ("datasets", "defenses", "degradations", "measures", "models", "sensitivity")
"""The public modules; `sensitivity` can be called, too."""
_SOURCE_OF = {
    **dict.fromkeys(("benchmark", "degrade"), "cnnsens_bench.api"),
    **dict.fromkeys(("Samples", "dataset", "load_dataset", "make_samples"), "cnnsens_bench.datasets"),
    **dict.fromkeys(("defense", "parse_defense"), "cnnsens_bench.defenses"),
    **dict.fromkeys(("Motion", "degradation", "parse_degradation"), "cnnsens_bench.degradations"),
    **dict.fromkeys(("Preprocessing", "load_checkpoint", "model_source"), "cnnsens_bench.models"),
    **dict.fromkeys(("Results", "open_results"), "cnnsens_bench.results"),
    "Network": "cnnsens_bench.models.network",
    "PublishedView": "cnnsens_bench.images.published",
    "UserError": "cnnsens_bench.utils.errors",
    "measure": "cnnsens_bench.measures",
    "predictor": "cnnsens_bench.sensitivity.predictors",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name in _MODULES:
        return importlib.import_module(f"cnnsens_bench.{name}")
    if name not in _SOURCE_OF:
        raise AttributeError(f"module 'cnnsens_bench' has no attribute '{name}'")
    value = getattr(importlib.import_module(_SOURCE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
