"""The Arrow schemas of part files, for tests that write such files."""

from cnnsens_bench.store.schema import PART_KINDS, part_schema

PREDICTIONS, IMAGES, FAILURES, SENSITIVITY, SENSITIVITY_PREDICTIONS, SPEED = map(part_schema, PART_KINDS)
