"""The store: part files that workers write, and the one writer of the database."""

from cnnsens_bench.store.database import SCHEMA_VERSION, Store
from cnnsens_bench.store.parts import FAILURES, IMAGES, PREDICTIONS, SPEED, new_attempt, write_part

__all__ = ["FAILURES", "IMAGES", "PREDICTIONS", "SCHEMA_VERSION", "SPEED", "Store", "new_attempt", "write_part"]
