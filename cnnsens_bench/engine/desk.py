"""What the driver of a sweep over a cluster shares with its workers. Imports nothing: its actor starts at once."""


class Desk:
    """The driver's desk: gives out the weights (driver and workers need not share a disk), and counts evaluations as
    they are done (outcomes come only once a chunk)."""

    def __init__(self, weights: dict[str, bytes]) -> None:
        self.given = weights
        self.done = 0

    def weights(self) -> dict[str, bytes]:
        return self.given

    def add(self, n: int) -> None:
        self.done += n

    def total(self) -> int:
        return self.done
