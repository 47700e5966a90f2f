"""What the driver of a sweep over a cluster shares with its workers. It imports little, so its actor starts at once."""

from cnnsens_bench.runtime.crash_tracker import CrashTracker


class Coordinator(CrashTracker):
    """The crash tracker of all workers of a sweep, which also collects their progress, messages and errors."""

    def __init__(self) -> None:
        super().__init__()
        self.evaluations = 0
        self.evaluations_of: dict[int, int] = {}
        self.messages: list[str] = []
        self.fault: tuple[str, str] | None = None

    def count(self, task: int, evaluations: int) -> None:
        """Note that an attempt at a task has done so many evaluations in all.

        Results arrive only with the whole task, so this is how progress is known. A task that is computed again after a
        worker has died counts once: its attempt that came furthest.
        """
        known = self.evaluations_of.get(task, 0)
        if evaluations > known:
            self.evaluations_of[task] = evaluations
            self.evaluations += evaluations - known

    def message(self, sentence: str) -> None:
        """Keep a message once, however many workers send it."""
        if sentence not in self.messages:
            self.messages.append(sentence)

    def news(self) -> tuple[int, list[str]]:
        """Return the evaluations that are done, and all messages so far."""
        return self.evaluations, self.messages

    def fail(self, kind: str, sentence: str) -> None:
        """Keep the first error that ends the run, by its type and its sentence.

        Ray carries an error's text to the driver, but not the errors that caused it.
        """
        self.fault = self.fault or (kind, sentence)

    def failed(self) -> tuple[str, str] | None:
        """Return the error that was kept, or None."""
        return self.fault
