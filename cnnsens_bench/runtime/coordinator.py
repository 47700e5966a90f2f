"""What the driver of a sweep over a cluster shares with its workers. Imports little: its actor starts at once."""

from cnnsens_bench.runtime.crash_tracker import CrashTracker


class Coordinator(CrashTracker):
    """The driver's desk: counts evaluations as they are done (outcomes come only once a piece of work), takes notes,
    and keeps the ledger of what is under way."""

    def __init__(self) -> None:
        super().__init__()
        self.done = 0
        self.notes: list[str] = []
        self.fault: tuple[str, str] | None = None

    def add(self, n: int) -> None:
        self.done += n

    def note(self, sentence: str) -> None:
        """Each is kept once: several workers may have the same to say."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def news(self) -> tuple[int, list[str]]:
        return self.done, self.notes

    def fail(self, kind: str, sentence: str) -> None:
        """What ends the run: Ray carries an error's text to the driver, but not the errors that it came from."""
        self.fault = self.fault or (kind, sentence)

    def failed(self) -> tuple[str, str] | None:
        return self.fault
