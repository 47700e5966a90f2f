"""What one worker does with a task: it evaluates the task and writes part files. It knows neither Ray nor DuckDB."""

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import torch

from cnnsens_bench import images
from cnnsens_bench.defenses import parse_defense
from cnnsens_bench.degradations import Reach
from cnnsens_bench.engine.evaluate import Evaluator
from cnnsens_bench.engine.networks import LoadedEntrant
from cnnsens_bench.engine.oom_backoff import OomBackoff
from cnnsens_bench.engine.score import Scorer
from cnnsens_bench.engine.sweep import Sweep
from cnnsens_bench.engine.timing import device_name
from cnnsens_bench.models import Checkpoint
from cnnsens_bench.runtime import rows
from cnnsens_bench.runtime.part_writer import PartWriter
from cnnsens_bench.runtime.plan_store import Task
from cnnsens_bench.runtime.stored import Failures, StoredPictures
from cnnsens_bench.sensitivity.hue import hue_entropy
from cnnsens_bench.utils.errors import ImageError, UserError
from cnnsens_bench.utils.plugins import load_plugins
from cnnsens_bench.utils.reporter import SILENT, Reporter
from cnnsens_bench.utils.storage import StoragePath

Decoded = images.Decoded | str
"""An image, or the sentence that says why it cannot be read."""

ReportPosition = Callable[[int], None]
"""Called with the number of the sweep's conditions that a task has behind it."""


@dataclass(frozen=True)
class TaskOutcome:
    """The result of a task in numbers.

    Attributes
    ----------
    images
        The images that were computed, without those that another group of networks computes before.
    evaluations
        The evaluations that were done.
    failures
        The images that failed.
    """

    images: int = 0
    evaluations: int = 0
    failures: int = 0

    def __add__(self, other: "TaskOutcome") -> "TaskOutcome":
        images, evaluations = self.images + other.images, self.evaluations + other.evaluations
        return TaskOutcome(images, evaluations, self.failures + other.failures)


class Worker:
    """Holds the networks of a group of entrants, computes tasks for them, and writes part files.

    Parameters
    ----------
    sweep
        The sweep, with the entrants of the group alone.
    checkpoints
        The checkpoints of the entrants, by their keys.
    parts
        The folder of the part files.
    device
        Where the networks run.
    threads
        The CPU threads of torch; None leaves them as they are.
    reporter
        Hears of evaluations and of memory that runs out.

    Raises
    ------
    UserError
        If a plugin cannot be imported, a calibration image cannot be read, or photographs of ice are absent.
    """

    def __init__(
        self,
        sweep: Sweep,
        checkpoints: Mapping[str, Checkpoint],
        parts: StoragePath,
        device: torch.device | str,
        *,
        threads: int | None = None,
        reporter: Reporter = SILENT,
    ) -> None:
        load_plugins(sweep.plugins)
        sweep.require_files()
        if threads:
            torch.set_num_threads(threads)
        self.sweep, self.writer = sweep, PartWriter(parts)
        self.backoff = OomBackoff(reporter)
        self.progress = _TaskProgress(reporter)
        classifiers = {key: checkpoint.classifier(share_weights=True) for key, checkpoint in checkpoints.items()}
        loaded = [LoadedEntrant(classifiers[e.checkpoint], parse_defense(e.defense)) for e in sweep.entrants]
        smallest = min(checkpoint.preprocessing.input_size for checkpoint in checkpoints.values())
        calibration = self._calibration(sweep.reach(smallest))
        self.stored = StoredPictures(sweep.stored, map(asdict, sweep.calibration)) if sweep.stored else None
        self.evaluator = Evaluator(
            sweep, loaded, device, reporter=self.progress, calibration=calibration, read_stored=self.stored
        )
        device = self.evaluator.device
        self.device_name = device_name(device)
        self.threads = torch.get_num_threads() if device.type == "cpu" else None
        self.scorer: Scorer | None = None
        if sweep.sensitivity:
            entrants, pool, unfit = self.evaluator.entrants, self.evaluator.pool, self.evaluator.unfit
            self.scorer = Scorer(sweep, entrants, device, pool, reporter=self.progress, unfit=unfit)

    def compute(
        self, task: Task, decoded: Sequence[Decoded], *, again: bool = False, report: ReportPosition | None = None
    ) -> TaskOutcome:
        """Compute a task and write its part files.

        Where memory runs out around the networks, fewer images are computed at a time from then on, and an image that
        does not fit alone becomes a failure. (Within the networks the evaluator and the scorer do the same.)

        Parameters
        ----------
        task
            The task.
        decoded
            Its images, or for one that cannot be read the sentence that says why.
        again
            Whether some of its part files may be there already under other names. The names then end with `-retry`.
        report
            Called as conditions of the sweep are done.
        """
        self.progress.begin()

        def compute(part: slice) -> TaskOutcome:
            whole = part.stop - part.start == len(decoded)
            here = task if whole else task.take(range(part.start, part.stop))
            # Parts of the whole task may be there already where it is computed in parts.
            try:
                outcome = self._compute(here, decoded[part], again or not whole, report)
                self.writer.finish()
            finally:
                self.writer.abandon()  # after an error, which matters more than those of parts that wait
            return outcome

        def skip(position: int, reason: str) -> TaskOutcome:
            ids = [task.ids[position]]
            sentence = f"it does not fit into the memory with one image at a time ({reason})"
            self.fail([(ids[0], "worker", sentence)], self.part_name(ids) + "-memory")
            return TaskOutcome(failures=1)

        def announce(after: int, before: int) -> str:
            return f"{after} images are computed at a time instead of {before}"

        outcomes = self.backoff.run("task", len(decoded), compute, announce, skip)
        return sum(outcomes or [], TaskOutcome())

    def _compute(
        self, task: Task, decoded: Sequence[Decoded], again: bool, report: ReportPosition | None
    ) -> TaskOutcome:
        self.evaluator.stopwatch.discard()  # passes of an attempt that ran out of memory
        self.progress.restart()
        decoded = [self._checked(image) for image in decoded]
        good = [i for i, image in enumerate(decoded) if not isinstance(image, str)]
        images_by_id = zip(task.ids, decoded, strict=True)
        failures: Failures = [(key, "decode", image) for key, image in images_by_id if isinstance(image, str)]
        evaluations = 0
        name, end = self.part_name(task.ids), "-retry" if again else ""
        kept = task.take(good)
        if good:
            pictures = [image for image in decoded if not isinstance(image, str)]
            self._describe(kept, pictures, name + end)
            predicted, not_predicted = self._predict(kept, pictures, name, end, report)
            scored, not_scored = self._score(kept, pictures, name + end)
            evaluations = predicted + scored
            failures += not_predicted + not_scored
        if failures:
            self.fail(failures, name + end)
        self.progress.keep()
        return TaskOutcome(int(kept.first.sum()), evaluations, len({image_id for image_id, _, _ in failures}))

    def _checked(self, image: Decoded) -> Decoded:
        """Return an image, or the sentence that says why one of the networks' views of it cannot be rendered."""
        if isinstance(image, str):
            return image
        views = [seen.view for seen in self.evaluator.inputs if seen.view]
        return next(filter(None, (view.refusal(image.width, image.height) for view in views)), image)

    def _predict(
        self, task: Task, pictures: list[images.Decoded], name: str, end: str, report: ReportPosition | None
    ) -> tuple[int, Failures]:
        """Write the predictions of a task and the speed of its networks; return the evaluations and the failures."""
        evaluations, ids = 0, task.ids
        failures: Failures = []
        labels = [int(row["label"]) for row in task.rows]
        positions = {condition.degradation: i for i, condition in enumerate(self.sweep.conditions, 2)}
        if self.stored:
            self.stored.begin(task.rows)
        # An image that is computed alone has killed a process before: each of its degradations is written at once.
        for prediction in self.evaluator.evaluate(ids, labels, pictures, task.wanted, packed=report is None):
            failures += [(ids[image], stage, sentence) for image, stage, sentence in prediction.failures]
            if prediction.columns:
                table = rows.prediction_table(self.sweep, task.rows, prediction)
                self.writer.write("predictions", f"{name}-{_file_safe(prediction.degradation)}{end}", table)
                evaluations += len(table)
            if report:
                self.writer.finish()
                report(positions.get(prediction.degradation, 1))
        if speeds := self.evaluator.stopwatch.take():
            table = rows.speed_table(self.sweep, speeds, self.device_name, self.threads)
            self.writer.write("speed", name + end, table)
        return evaluations, self.stored.summarize(failures) if self.stored else failures

    def _score(self, task: Task, pictures: list[images.Decoded], name: str) -> tuple[int, Failures]:
        """Write the scores of a task; return the evaluations and the failures."""
        if not self.scorer:
            return 0, []
        ids = task.ids
        scores = self.scorer.score(ids, pictures, task.wanted_scores)
        for kind, table in rows.score_tables(self.sweep, ids, scores).items():
            self.writer.write(kind, name, table)
        return scores.cells, [(ids[image], stage, sentence) for image, stage, sentence in scores.failures]

    def fail(self, failures: Failures, name: str) -> None:
        """Write a part file of failures.

        Parameters
        ----------
        failures
            (image id, stage, sentence) of each.
        name
            The name of the part.
        """
        self.writer.write("failures", name, rows.failure_table(self.sweep.run_id, self.sweep.dataset, failures))
        self.writer.finish()

    def part_name(self, ids: Sequence[str]) -> str:
        """Return the name of the parts of some images.

        It is the same for the same work, so a task that is computed again replaces its own parts.
        """
        entrants = [text for entrant in self.sweep.entrants for text in (entrant.model, entrant.defense)]
        texts = [self.sweep.run_id, *ids, "", *entrants]
        return hashlib.blake2b("\0".join(texts).encode(), digest_size=12).hexdigest()

    def close(self) -> None:
        """Release the networks and end the threads."""
        self.writer.close()
        self.evaluator.close()

    def _describe(self, task: Task, pictures: Sequence[images.Decoded], name: str) -> None:
        """Write the rows of `images` for the images that no group of networks before describes."""
        described = list(itertools.compress(zip(task.rows, pictures, strict=True), task.first))
        if described:
            with ThreadPoolExecutor(2) as pool:
                hues = list(pool.map(lambda pair: self._hue_entropy(*pair), described))
            table = rows.image_table(self.sweep, [row for row, _ in described], [p for _, p in described], hues)
            self.writer.write("images", name, table)

    def _calibration(self, reach: Reach) -> list[images.Decoded]:
        """Decode the images of `Sweep.calibration`, which the driver could read. Raises `UserError`."""
        decoded = []
        with ThreadPoolExecutor(2) as pool:
            for image in pool.map(lambda row: images.decode_row(asdict(row), reach), self.sweep.calibration):
                if isinstance(image, str):
                    raise UserError(f"an image that batch norm is recalibrated on cannot be read by a worker: {image}")
                decoded.append(image)
        return decoded

    def _hue_entropy(self, row: Mapping[str, Any], picture: images.Decoded) -> float:
        mask_uri, mask = row.get("mask_uri"), None
        if isinstance(mask_uri, str) and mask_uri:
            with contextlib.suppress(ImageError):  # a mask only refines this number: without it the whole box counts
                mask = images.decode_mask(mask_uri, picture, self.sweep.mask_range)
        return hue_entropy(images.box_pixels(picture), mask)


class _TaskProgress(Reporter):
    """Reports each evaluation of a task once, however often it is computed because memory runs out."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self.begin()

    def begin(self) -> None:
        """Begin a task."""
        self.done = self.kept = self.reported = 0

    def keep(self) -> None:
        """Keep the evaluations since the last restart: they are not computed again."""
        self.kept = self.done

    def restart(self) -> None:
        """Forget the evaluations that were not kept: they are computed again."""
        self.done = self.kept

    def evaluations(self, count: int) -> None:
        self.done += count
        if self.done > self.reported:
            self.reporter.evaluations(self.done - self.reported)
            self.reported = self.done

    def message(self, sentence: str) -> None:
        self.reporter.message(sentence)


def _file_safe(text: str) -> str:
    """Return a degradation's name as a part of a file name; a hash makes it unique where characters are replaced."""
    plain = "".join(c if c.isalnum() or c in "_-" else "_" for c in text)[:40]
    return plain if plain == text else f"{plain}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"
