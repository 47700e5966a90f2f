"""The whole configuration as one dataclass, and the check of all that can be known to be wrong before work begins."""

import dataclasses
import hashlib
import json
import operator
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnnsens_bench.config.sections import ClusterConfig, DatasetConfig, SensitivityConfig, TrackingConfig
from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.training.recipes import read_recipes
from cnnsens_bench.training.space import SearchConfig
from cnnsens_bench.utils.config_keys import ADDED_KEYS, UNHASHED_KEYS
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.storage import StoragePath, check_paths, check_storage_paths, storage_path

PRECISIONS = ("float32", "bfloat16", "float16")
VIEWS = ("box", "published", "auto")
FINE_TUNING = ("always", "never", "auto")
FROSTS = ("generated", "photographs")
PATHS = (
    "output", "cache", "data_root", "stored_root", "dataset.root", "dataset.options.boxes", "dataset.options.name",
    "weights", "recipe", "tracking.uri",
)  # fmt: skip
"""Keys whose values are texts that may hold any characters: paths, URIs and names."""
ENGINES = ("auto", "local", "ray")
LIBRARY_SIZES = ("train", "test")
SIZES = "between 16 and 4096, train, test, or null"
RECIPES = ("given", "search")
SWITCHES = {"off": "false", "on": "true"}


@dataclass
class Config:
    """Every key that a user can set.

    The text below each key is its documentation: `cnnsens_bench.config.reference` reads it for the help text and the
    docs.
    """

    suite: str = "custom"
    """Name of the suite that the other keys come from; the default output folder is named after it."""
    studies: dict[str, Any] = field(default_factory=dict)
    """Sweeps of this suite: name → the keys in which the sweep differs from the rest of the configuration, and `first`,
    the number of models that take part. All of them write to one output. Empty: the suite is one sweep."""
    only: list[str] = field(default_factory=list)
    """Names of the studies to run. Empty: all of them."""
    study: str | None = None
    """Name of the study that a recorded configuration belongs to. The program sets it."""
    figures: list[str] = field(default_factory=list)
    """Figures that are drawn at the end of the run, by their names in `python -m cnnsens_bench.figures --help`."""
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    data_root: str | None = None
    """Folder or URI above the data sets in their official layouts (CUB_200_2011, flowers-102, oxford-iiit-pet)."""
    stored_root: str | None = None
    """Folder or URI of the pre-made pictures that the degradations `stored:<corruption>` show, in the layout of
    ImageNet-C or CIFAR-10-C. null: their official folder below `data_root` (imagenet-c, CIFAR-10-C, CIFAR-100-C)."""
    output: str | None = None
    """Folder or URI of the results. null: `runs/<suite>`."""
    cache: str | None = None
    """Folder of this machine for trained networks and drawn data sets. null: the folder that CNNSENS_CACHE names, else
    the user's cache folder."""
    models: list[Any] = field(default_factory=list)
    """Networks: each a name `<source>/<architecture>`, or a mapping of `name` with a `weights`, `input_size` or
    `training` of its own. `model=NAME` takes one of the suite's entries alone, or any other network."""
    weights: str = "auto"
    """Weights that training starts from: `auto` for pretrained ones, `random`, or the path of a state dict."""
    view: str = "box"
    """What networks see of an image: `box` its box, resized to the square; `published` what each network's own library
    evaluates with; `auto` the box where images have one or a network is fine-tuned, else `published`."""
    input_size: Any = None
    """Side of the networks' square input in pixels, 16 to 4096, or `train` or `test`: the size that a network's library
    trained or tests it with. null: with `view=published` the latter, else what each architecture was made for."""
    fine_tune: str = "always"
    """Whether networks are fine-tuned on the data set by the section `training`: `always`; `never`, which takes their
    weights as they are; `auto`, which does so with those whose outputs match the classes."""
    training: Recipe = field(default_factory=Recipe)
    recipe: str = "given"
    """Where recipes of fine-tuning come from: `given` takes the section `training`, `search` searches them first, and a
    path takes those of a file that `tune` wrote."""
    search: SearchConfig = field(default_factory=SearchConfig)
    resume: bool = False
    """Whether `tune` goes on with a search that was interrupted. A run always goes on."""
    estimate: bool = False
    """Whether to print what the run would cost instead of running it."""
    defenses: list[str] = field(default_factory=lambda: ["none"])
    """Defenses that every network is evaluated with, at least one, such as `[none, gaussian_filter]`. Each may have
    arguments and be a sum: `gaussian_filter(size=3, sigma=0.5) + median_filter`."""
    degradations: list[Any] = field(default_factory=list)
    """Degradations: each a name or an expression, or a mapping of `name` with `level` or `arguments`, and with `levels`
    and `trials` of its own; a list is applied in order. `otherwise` names what is taken in place of a `stored:` name
    where no pre-made pictures are found. `camera:<file>` stands for the mix that the command `camera` has measured."""
    trials: int = 10
    """Draws of each random degradation, at least 1; a degradation that draws nothing has one trial."""
    limit: int | None = None
    """Number of test images, at least 1, chosen by a hash of their ids. null: all of them."""
    budget: float = 1.0
    """Share of each image's degraded cells that is evaluated, above 0 and at most 1: every image takes some of each
    degradation, chosen by a hash, the same for all networks. Raising it computes the difference alone."""
    seed: int = 0
    """Seed of all draws and trainings, 0 to 2^63 - 1."""
    quantize: bool = False
    """Whether degraded pixels are rounded to whole gray levels, as a sensor does."""
    frost: str = "generated"
    """Ice of the degradation `common:frost`: `generated` by this program, or the `photographs` of ImageNet-C, which the
    package `imagecorruptions` carries."""
    stored_quality: int | None = None
    """Quality, 1 to 100, of the JPEG that each degraded image is stored as before it is predicted; ImageNet-C's is 85.
    null: degraded images are not stored."""
    precision: str = "float32"
    """Number format of forward passes: `float32`, or `bfloat16` or `float16`, which change some labels."""
    compile: bool = False
    """Whether networks are compiled before they are evaluated, `on` or `off`: it takes minutes once, then passes are
    faster, and the last digits of outputs differ. Networks are trained and scored as they are."""
    batch_size: int = 32
    """Images that a network is given at once while it is evaluated, 1 to 65536."""
    plugins: list[str] = field(default_factory=list)
    """Python modules of your own that register degradations, data sets, defenses, model sources or predictors."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    sensitivity: SensitivityConfig = field(default_factory=SensitivityConfig)

    @property
    def title(self) -> str:
        """The name that a reader sees: `suite`, or `suite/study`."""
        return "/".join(filter(None, (self.suite, self.study)))

    @property
    def output_folder(self) -> StoragePath:
        """The folder or URI of the results."""
        return storage_path(self.output or f"runs/{self.suite}")

    def hash(self) -> str:
        """Return the SHA-256 of all that shapes the results; where they are computed and tracked is left out."""
        shaping = dataclasses.asdict(self)
        for key in UNHASHED_KEYS:
            del shaping[key]
        for key, default in ADDED_KEYS.items():
            if shaping[key] == default:
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
        """The suite and twelve digits of the hash, so that the same command goes on with the same run."""
        return f"{self.suite}-{self.hash()[:12]}"


def check(config: Config) -> None:
    """Raise `UserError` for a value that is impossible whatever the other keys say."""
    check_storage_paths(config.output, config.data_root, config.stored_root, config.dataset.root)
    check_paths(cache=config.cache, weights=config.weights, recipe=config.recipe)
    config.training.check()
    config.search.check()
    cluster = config.cluster
    rules = {
        "trials": (config.trials >= 1, "at least 1"),
        "limit": (config.limit is None or config.limit >= 1, "at least 1, or null for all images"),
        "budget": (0 < config.budget <= 1, "above 0 and at most 1, which is all cells"),
        "batch_size": (1 <= config.batch_size <= 65_536, "at least 1, at most 65536"),
        "input_size": (config.input_size is None or size_ok(config.input_size), SIZES),
        "view": (config.view in VIEWS, "one of " + ", ".join(VIEWS)),
        "fine_tune": (config.fine_tune in FINE_TUNING, "one of " + ", ".join(FINE_TUNING)),
        "frost": (config.frost in FROSTS, "one of " + ", ".join(FROSTS)),
        "stored_quality": (_within(config.stored_quality, 1, 100), "between 1 and 100, or null"),
        "precision": (config.precision in PRECISIONS, "one of " + ", ".join(PRECISIONS)),
        "cluster.engine": (cluster.engine in ENGINES, "one of " + ", ".join(ENGINES)),
        "cluster.weights_gb": (_within(cluster.weights_gb, 0) and cluster.weights_gb != 0, "above 0 and finite"),
        "cluster.threads": (_within(cluster.threads, 1, 1024), "at least 1, at most 1024"),
        "cluster.workers": (
            _within(cluster.workers, 1, 100_000) and bool(cluster.workers or not cluster.autoscaling),
            "at least 1, at most 100000; with cluster.autoscaling as many as the cluster may grow to",
        ),
        "cluster.gpus_per_worker": (_within(cluster.gpus_per_worker, 0), "at least 0 and finite"),
        "defenses": (len(config.defenses) > 0, "a list with at least 'none'"),
        "precision with sensitivity=on": (
            not config.sensitivity.enabled or config.precision == "float32",
            "float32, which scores are computed in",
        ),
        "seed": (0 <= config.seed < 2**63, "between 0 and 2^63 - 1"),
    }
    for key, (good, bound) in rules.items():
        if not good:
            value = operator.attrgetter(key.partition(" ")[0])(config)
            raise UserError(f"{key} is {value!r}: it must be {bound}")


def _within(value: float | None, low: float, high: float = sys.float_info.max) -> bool:
    """Return whether a value lies between two bounds, both included, or is left out. Infinity is above every bound."""
    return value is None or low <= value <= high


def size_ok(size: Any) -> bool:
    """Return whether a value can be the side of a network's input: in pixels, or one that its library knows."""
    return size in LIBRARY_SIZES if isinstance(size, str) else isinstance(size, int) and 16 <= size <= 4096
