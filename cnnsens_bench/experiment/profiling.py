"""Times the stages of a run on the device at hand: a few batches of each, after a warm-up.

The networks have random weights: they are as fast as trained ones, and no hub is asked for them.
"""

import collections
import dataclasses
import functools
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from cnnsens_bench import images
from cnnsens_bench.datasets.sample_table import ImageSelection
from cnnsens_bench.engine.compiled import compile_networks, forget_compiled
from cnnsens_bench.engine.degrade import Degrader
from cnnsens_bench.engine.networks import LoadedEntrant, autocast
from cnnsens_bench.engine.score import Scorer
from cnnsens_bench.engine.sweep import Condition, Sweep
from cnnsens_bench.experiment.entrants import Pairing
from cnnsens_bench.experiment.resolve import ModelConfig
from cnnsens_bench.models.base import build_network, split_name
from cnnsens_bench.models.classifier import Classifier, logits_of
from cnnsens_bench.models.preprocessing import BOX, PUBLISHED
from cnnsens_bench.models.weights import starting_weights

SAMPLE = 8
"""Number of images of the data set that decoding and degrading are timed on."""
LEAST = 0.3
"""Seconds that a timing takes at least, after its warm-up."""


@dataclasses.dataclass(frozen=True)
class WantedCounts:
    """How many images are still to be computed.

    Attributes
    ----------
    cells
        (entrants, cells): the images that each still needs.
    scores
        (entrants, score cells): the same of scores, the level-free one first.
    images
        The images that need anything.
    """

    cells: np.ndarray
    scores: np.ndarray
    images: int

    @property
    def evaluations(self) -> int:
        """All that is to be computed."""
        return int(self.cells.sum()) + int(self.scores.sum())


def training_steps(model: ModelConfig, images_to_train_on: int) -> int:
    """Return the steps of a training over all its epochs."""
    return model.recipe.epochs * max(1, images_to_train_on // model.recipe.batch_size)


class Profiler:
    """Times the stages of a run on one device.

    Private methods return seconds an image unless they say otherwise.

    Parameters
    ----------
    sweep
        What the run evaluates.
    pairing
        Its entrants, and the models that are trained for them.
    device
        Where it is computed.
    pool
        Threads that draw and degrade.
    classes
        The number of classes of the data set.

    Attributes
    ----------
    network_bytes
        The bytes of each network.
    saved_by_compiling
        The seconds of forward passes by which compiled networks are faster, without those that compiling takes.
    """

    def __init__(
        self, sweep: Sweep, pairing: Pairing, device: torch.device, pool: ThreadPoolExecutor, classes: int
    ) -> None:
        self.sweep, self.pairing, self.device, self.pool, self.classes = sweep, pairing, device, pool, classes
        self.network_bytes: dict[str, int] = {}
        self.saved_by_compiling = 0.0
        models = pairing.trainings.items()
        view = PUBLISHED if sweep.whole_images else BOX
        self.preprocessings = {key: model.preprocessing(view) for key, model in models}
        self.sizes = {key: one.input_size for key, one in self.preprocessings.items()}

    def seconds(self, counts: WantedCounts, chosen: ImageSelection, training_images: int) -> dict[str, float]:
        """Return the seconds of each stage, of all that is still to be done."""
        found = dict.fromkeys(("decode", "degrade", "compile", "forward", "score", "train"), 0.0)
        rows = chosen.at(np.linspace(0, len(chosen) - 1, min(SAMPLE, len(chosen))).astype(int)).to_dict("records")
        reach = self.sweep.reach(min(self.sizes.values()))
        began = time.perf_counter()
        decoded = [image for row in rows if not isinstance(image := images.decode_row(row, reach), str)]
        decode = (time.perf_counter() - began) / len(rows)
        found["decode"] = decode * counts.images
        for key in dict.fromkeys(entrant.checkpoint for entrant in self.sweep.entrants):
            model, size = self.pairing.trainings[key], self.sizes[key]
            classifier = self._network(key, model)
            forward = eager = self._forward(classifier, size)
            if self.sweep.compile and self._is_compiled(key):
                seconds, forward = self._compiled(key, classifier, size)
                found["compile"] += seconds
            for i, defense in enumerate(self.pairing.defenses()):
                if self.sweep.entrants[i].checkpoint != key:
                    continue
                loaded = LoadedEntrant(classifier, defense)
                evaluations, network = int(counts.cells[i].sum()), eager if defense.recalibration else forward
                filtering = self._forward(loaded.network(), size) - eager if defense.prefilter else 0.0
                found["forward"] += (network + filtering) * evaluations
                self.saved_by_compiling += (eager - network) * evaluations
                if defense.recalibration:  # once a worker, for each cell
                    found["forward"] += eager * defense.recalibration.images * int((counts.cells[i] > 0).sum())
                if counts.scores[i].any() and decoded:
                    found["score"] += self._score(i, loaded, size, decoded) * int(counts.scores[i, 0])
            if model.recipe.epochs:
                trained_on = model.recipe.batch_size * training_steps(model, training_images)
                found["train"] += self._train(classifier, size, model.recipe.batch_size) * trained_on
                found["decode"] += decode * training_images  # of later epochs little is left to do
        for size in sorted(set(self.sizes.values())) if decoded else ():
            here = [i for i, e in enumerate(self.sweep.entrants) if self.sizes[e.checkpoint] == size]
            found["degrade"] += self._degrade(size, decoded, counts.cells[here].max(axis=0))
        return found

    def memory(self) -> int:
        """Return the bytes of a worker that holds all networks.

        These are the most that the timings took, with one network at a time, and the weights of the other networks.
        """
        if self.device.type == "cuda":
            most = torch.cuda.max_memory_allocated(self.device)
        else:  # macOS counts bytes, other systems KiB
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return most + sum(self.network_bytes.values()) - max(self.network_bytes.values())

    def _network(self, key: str, model: ModelConfig) -> Classifier:
        preprocessing = self.preprocessings[key]
        described = split_name(model.name)[0].restore is not None and model.weights != "random"
        state = starting_weights(model.name, model.weights).state if described else None
        network = build_network(model.name, self.classes, preprocessing.input_size, state)
        classifier = Classifier(network, preprocessing)
        self.network_bytes[key] = sum(t.numel() * t.element_size() for t in classifier.state_dict().values())
        return classifier.eval().to(self.device).to(memory_format=torch.channels_last)

    def _forward(self, network: Callable[[torch.Tensor], torch.Tensor], size: int) -> float:
        pixels = self._pixels(self.sweep.batch_size, size)
        precise = autocast(self.device, self.sweep.precision)

        def work() -> None:
            with torch.inference_mode(), precise:
                network(pixels)

        return self._timed(work) / len(pixels)

    def _is_compiled(self, key: str) -> bool:
        """Return whether an entrant of a checkpoint is evaluated with the network compiled."""
        pairs = zip(self.sweep.entrants, self.pairing.defenses(), strict=True)
        return any(entrant.checkpoint == key and not defense.recalibration for entrant, defense in pairs)

    def _compiled(self, key: str, classifier: Classifier, size: int) -> tuple[float, float]:
        """Return the seconds that compiling takes, and those of a compiled forward pass."""
        classifier.requires_grad_(False)
        began = time.perf_counter()
        network = [(0, key, classifier)]
        compiled = compile_networks(network, self.device, self.sweep.precision, self.sweep.batch_size)
        seconds = time.perf_counter() - began
        each = self._forward(compiled.get(0, classifier), size)
        classifier.requires_grad_(True)
        if not compiled:
            return 0.0, each
        compiled.clear()
        forget_compiled()
        return seconds, each

    def _train(self, classifier: Classifier, size: int, batch_size: int) -> float:
        pixels = self._pixels(min(batch_size, 32), size)
        labels = torch.zeros(len(pixels), dtype=torch.long, device=self.device)
        classifier.train()
        loss = torch.nn.functional.cross_entropy
        each = self._timed(lambda: loss(logits_of(classifier(pixels)), labels).backward()) / len(pixels)
        classifier.zero_grad(set_to_none=True)
        classifier.eval()
        return each

    def _score(self, entrant: int, loaded: LoadedEntrant, size: int, decoded: Sequence[images.Decoded]) -> float:
        """Return the seconds of all scores of an image, in batches of the run's size."""
        alone = dataclasses.replace(self.sweep, entrants=(self.sweep.entrants[entrant],))
        scorer = Scorer(alone, [loaded], self.device, self.pool)
        filled = [decoded[i % len(decoded)] for i in range(self.sweep.batch_size)]
        ids = [f"estimate {i}" for i in range(len(filled))]
        wanted = np.ones((len(filled), 1, len(self.sweep.score_cells())), bool)
        loaded.classifier.requires_grad_(False)
        seconds = self._timed(lambda: scorer.score(ids, filled, wanted), least=0, warm=0)
        loaded.classifier.requires_grad_(True)
        return seconds / len(filled)

    def _degrade(self, size: int, decoded: Sequence[images.Decoded], wanted: np.ndarray) -> float:
        """Return the seconds for all images at one input size; `wanted` counts the images of each cell.

        The levels of a trial share one draw.
        """
        ids = [f"estimate {i}" for i in range(len(decoded))]
        by_id = dict(zip(ids, decoded, strict=True))  # they stand for pre-made pictures, too
        degrader = Degrader(
            self.sweep, size, ids, decoded, self.device, self.pool, read_stored=lambda image_id, *_: by_id[image_id]
        )
        total, first = 0.0, 1
        for condition in self.sweep.conditions:
            cells = condition.trials * len(condition.levels)
            once = dataclasses.replace(condition, trials=1)
            rows = [np.arange(len(decoded))] * len(condition.levels)
            share = int(wanted[first : first + cells].sum()) / len(condition.levels)
            if share:
                seconds = self._timed(functools.partial(_run, degrader, once, rows), least=0, warm=1)
                total += seconds / len(decoded) * share
            first += cells
        return total

    def _pixels(self, count: int, size: int) -> torch.Tensor:
        pixels = torch.rand(count, 3, size, size, device=self.device) * 255
        return pixels.contiguous(memory_format=torch.channels_last)

    def _timed(self, work: Callable[[], object], least: float | None = None, warm: int = 2) -> float:
        """Return the median seconds of a call, of at least one."""
        times: list[float] = []
        for i in range(warm + 1000):
            began = time.perf_counter()
            work()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            if i >= warm:
                times.append(time.perf_counter() - began)
                if sum(times) >= (LEAST if least is None else least):
                    break
        return statistics.median(times)


@torch.inference_mode()
def _run(degrader: Degrader, condition: Condition, rows: list[np.ndarray]) -> None:
    collections.deque(degrader.run(condition, rows), maxlen=0)
