"""The configuration: composed by Hydra from a suite and the command line, then checked into typed values.

Everything that can be known to be wrong before work begins is a `UserError` of one sentence here.
"""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnnsens_bench.config.sections import ClusterConfig, DatasetConfig, SensitivityConfig, TrackingConfig
from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.training.recipes import read_recipes
from cnnsens_bench.training.space import SearchConfig
from cnnsens_bench.utils.config_keys import UNHASHED_KEYS
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.storage import StoragePath, check_paths, check_storage_paths, storage_path

PRECISIONS = ("float32", "bfloat16", "float16")
PATHS = ("output", "cache", "data_root", "dataset.root", "weights", "recipe", "tracking.uri")
ENGINES = ("auto", "local", "ray")
RECIPES = ("given", "search")
SWITCHES = {"off": "false", "on": "true"}


@dataclass
class Config:
    """Every key a user can set; see the README for what they mean.

    `recipe`: "given" trains by `training`, "search" searches first, a path takes the recipes of that file. `studies`:
    name → the keys in which a sweep of this suite differs from the others (`cnnsens_bench.experiment.studies`),
    `only`: those of them to run; `figures`: what is drawn at the end, as `python -m cnnsens_bench.figures` names it.
    """

    suite: str = "custom"
    studies: dict[str, Any] = field(default_factory=dict)
    only: list[str] = field(default_factory=list)
    study: str | None = None
    figures: list[str] = field(default_factory=list)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    data_root: str | None = None
    output: str | None = None
    cache: str | None = None
    models: list[Any] = field(default_factory=list)
    weights: str = "auto"
    input_size: int | None = None
    training: Recipe = field(default_factory=Recipe)
    recipe: str = "given"
    search: SearchConfig = field(default_factory=SearchConfig)
    resume: bool = False
    estimate: bool = False
    defenses: list[str] = field(default_factory=lambda: ["none"])
    degradations: list[Any] = field(default_factory=list)
    trials: int = 10
    limit: int | None = None
    seed: int = 0
    quantize: bool = False
    precision: str = "float32"
    batch_size: int = 32
    plugins: list[str] = field(default_factory=list)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    sensitivity: SensitivityConfig = field(default_factory=SensitivityConfig)

    @property
    def title(self) -> str:
        """`suite`, or `suite/study`."""
        return "/".join(filter(None, (self.suite, self.study)))

    @property
    def output_folder(self) -> StoragePath:
        """Where results go."""
        return storage_path(self.output or f"runs/{self.suite}")

    def hash(self) -> str:
        """Of all that shapes the results, not of where or by whom they are computed."""
        shaping = dataclasses.asdict(self)
        for key in UNHASHED_KEYS:
            del shaping[key]
        del shaping["dataset"]["root"]
        if self.recipe == "search":
            shaping["search"] = self.search.shaping()
        elif self.recipe != "given":
            recipes = read_recipes(Path(self.recipe))
            shaping["recipes"] = {model: dataclasses.asdict(recipe) for model, recipe in recipes.items()}
        return hashlib.sha256(json.dumps(shaping, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def run_id(self) -> str:
        """The suite and the hash: the same command goes on with the same run."""
        return f"{self.suite}-{self.hash()[:12]}"


def check(config: Config) -> None:
    """Raises `UserError` for a value that is impossible whatever the rest is."""
    check_storage_paths(config.output, config.data_root, config.dataset.root)
    check_paths(cache=config.cache, weights=config.weights, recipe=config.recipe)
    config.training.check()
    config.search.check()
    rules = {
        "trials": (config.trials >= 1, "at least 1"),
        "limit": (config.limit is None or config.limit >= 1, "at least 1, or null for all images"),
        "batch_size": (1 <= config.batch_size <= 65_536, "at least 1, at most 65536"),
        "input_size": (config.input_size is None or size_ok(config.input_size), "between 16 and 4096, or null"),
        "precision": (config.precision in PRECISIONS, "one of " + ", ".join(PRECISIONS)),
        "cluster.engine": (config.cluster.engine in ENGINES, "one of " + ", ".join(ENGINES)),
        "cluster.weights_gb": (
            config.cluster.weights_gb is None or 0 < config.cluster.weights_gb < math.inf,
            "above 0 and finite",
        ),
        "cluster.threads": (_count_ok(config.cluster.threads, 1024), "at least 1, at most 1024"),
        "cluster.workers": (
            _count_ok(config.cluster.workers, 100_000)
            and bool(config.cluster.workers or not config.cluster.autoscaling),
            "at least 1, at most 100000; with cluster.autoscaling as many as the cluster may grow to",
        ),
        "cluster.gpus_per_worker": (
            config.cluster.gpus_per_worker is None or 0 <= config.cluster.gpus_per_worker < math.inf,
            "at least 0 and finite",
        ),
        "defenses": (len(config.defenses) > 0, "a list with at least 'none'"),
        "precision with sensitivity=on": (
            not config.sensitivity.enabled or config.precision == "float32",
            "float32, which scores are computed in",
        ),
        "seed": (0 <= config.seed < 2**63, "between 0 and 2^63 - 1"),
    }
    for key, (good, bound) in rules.items():
        if not good:
            section, _, inner = key.rpartition(".")
            value = getattr(getattr(config, section) if section else config, inner)
            raise UserError(f"{key} is {value!r}: it must be {bound}")


def _count_ok(count: int | None, most: int) -> bool:
    return count is None or 1 <= count <= most


def size_ok(size: Any) -> bool:
    """Whether it can be the side of a network's input."""
    return isinstance(size, int) and 16 <= size <= 4096
