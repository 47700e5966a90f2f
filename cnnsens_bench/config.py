"""The configuration: composed by Hydra from a suite and the command line, then checked into typed values.

Everything that can be known to be wrong before work begins is a `UserError` of one sentence here.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnnsens_bench.errors import UserError
from cnnsens_bench.places import Place, check_paths, check_places, place
from cnnsens_bench.registry import near
from cnnsens_bench.sections import ClusterConfig, DatasetConfig, SensitivityConfig, TrackingConfig
from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.training.recipes import read_recipes
from cnnsens_bench.training.space import SearchConfig

PRECISIONS = ("float32", "bfloat16", "float16")
PATHS = ("output", "cache", "data_root", "dataset.root", "weights", "recipe", "tracking.uri")
ENGINES = ("auto", "local", "ray")
RECIPES = ("given", "search")
SWITCHES = {"off": "false", "on": "true"}
WITHOUT_EFFECT = (
    *("output", "cache", "cluster", "data_root", "tracking", "resume", "estimate", "search", "recipe"),
    *("studies", "only", "study", "figures"),
)
"""Keys that shape no result, or are counted apart."""


@dataclass
class Config:
    """Every key a user can set; see the README for what they mean.

    `recipe`: "given" trains by `training`, "search" searches first, a path takes the recipes of that file. `studies`:
    name → the keys in which a sweep of this suite differs from the others (`cnnsens_bench.studies`), `only`: those of
    them to run; `figures`: what is drawn at the end, as `python -m cnnsens_bench.figures` names it.
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
    def output_folder(self) -> Place:
        """Where results go."""
        return place(self.output or f"runs/{self.suite}")

    def hash(self) -> str:
        """Of all that shapes the results, not of where or by whom they are computed."""
        shaping = dataclasses.asdict(self)
        for key in WITHOUT_EFFECT:
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


def compose(overrides: Sequence[str]) -> Config:
    """The config that the command line's `key=value` words ask for. Raises `UserError`."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    chosen = [word for word in overrides if word.startswith("model=")]
    words = [_expanded(word) for word in overrides if word not in chosen]
    try:
        with hydra.initialize_config_module("cnnsens_bench.conf", version_base="1.3"):
            composed = hydra.compose("config", overrides=words)
        config = OmegaConf.to_object(composed)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(sentence(error)) from None
    assert isinstance(config, Config)
    for word in chosen:
        config.models = _chosen(config.models, word.partition("=")[2])
    if config.studies and any(word.startswith(("models=", "model=")) for word in overrides):
        config.studies = {name: without(study, "models") for name, study in config.studies.items()}
    for word in overrides if config.studies else ():
        if word.startswith("dataset"):
            names = ", ".join(f"studies.{name}.dataset" for name in config.studies)
            raise UserError(
                f"'{word}': suite {config.suite} has studies of several data sets: data_root=<folder> has them all, "
                f"and {names} change them"
            )
    check(config)
    return config


def without(mapping: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Less these keys."""
    return {key: value for key, value in mapping.items() if key not in keys}


def _chosen(models: list[Any], name: str) -> list[Any]:
    """`model=name`: the suite's own entry of that name, with its weights and training, else the bare name."""
    return [entry for entry in models if name in (entry, isinstance(entry, dict) and entry.get("name"))] or [name]


def suites() -> dict[str, str]:
    """Every suite's name and the comment that heads its file."""
    found = {}
    for file in sorted(resources.files("cnnsens_bench.conf").joinpath("suite").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".yaml"):
            lines = [line for line in file.read_text().splitlines() if line.startswith("# ")]
            text = "\n".join(line[2:] for line in lines if not line.startswith("# @package"))
            found[file.name.removesuffix(".yaml")] = text
    return found


def check(config: Config) -> None:
    """Raises `UserError` for a value that is impossible whatever the rest is."""
    check_places(config.output, config.data_root, config.dataset.root)
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


def _expanded(word: str) -> str:
    """`dataset=name` is short for `dataset.name=name` (datasets are a registry that users add to, not files), and
    `tracking=off` for `tracking.enabled=false`, as `sensitivity=on`."""
    key, equals, value = word.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", key):
        raise UserError(f"'{word}' is not an override: write key=value, such as suite=quick (--help shows the keys)")
    if key in PATHS and value not in ("null", "") and value[0] not in "'\"":
        # Hydra's grammar gives commas, brackets and equal signs a meaning that they do not have in a path.
        value = "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if key in ("tracking", "sensitivity") and value in SWITCHES:
        return f"{key}.enabled={SWITCHES[value]}"
    if key == "dataset" and not value.startswith("{"):
        return f"dataset.name={value}"
    # A loader's options are its own, and a study may take any key: they may be new.
    new = key.startswith(("dataset.options", "studies.")) or (key == "dataset" and "options" in value)
    return ("++" if new else "") + f"{key}={value}"


def _known_keys(kind: Any = Config, prefix: str = "") -> list[str]:
    keys = []
    for f in dataclasses.fields(kind):
        keys.append(prefix + f.name)
        if dataclasses.is_dataclass(f.type):
            keys += _known_keys(f.type, f"{prefix}{f.name}.")
    return keys


def sentence(error: Exception) -> str:
    """Hydra's and OmegaConf's paragraphs as one sentence that names the key or value."""
    text = str(error)
    inner = str(error.__cause__ or "")
    missing = re.search(r"(?:find|load) '(?:suite/)?([^']+)'", text)
    if isinstance(error, MissingConfigException) and missing:
        return f"unknown suite '{missing[1]}'{near(missing[1], list(suites()))}"
    absent = re.search(r"Could not override '([^']+)'", text)
    unknown = re.search(r"Key '([^']+)' (?:is )?not in", text + inner)
    if absent and unknown:
        return f"unknown config key '{absent[1]}'{near(absent[1], _known_keys())}"
    if isinstance(error, ConfigCompositionException) and inner:
        text = inner
    key = re.search(r"full_key: (\S+)", text + "\n" + inner)
    first = " ".join(text.splitlines()[0].split()) if text else type(error).__name__
    return f"config key '{key[1]}': {first}" if key else f"the command line cannot be read: {first}"
