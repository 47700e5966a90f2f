"""The store: part files that workers write, and the one writer of the database."""

from cnnsens_bench.store.database import Store
from cnnsens_bench.store.parts import new_attempt, write_part
from cnnsens_bench.store.publish import RunStore, database_file, holding, local_copy, reading, storage_errors, writing
from cnnsens_bench.store.schema import SCHEMA_VERSION

__all__ = ["SCHEMA_VERSION", "new_attempt", "write_part"]
__all__ += ["RunStore", "Store", "database_file", "holding", "local_copy", "reading", "storage_errors", "writing"]
