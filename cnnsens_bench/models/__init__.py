"""Networks of several sources behind one interface, `Classifier`. Each module of `sources/` registers one source."""

from cnnsens_bench.models import sources
from cnnsens_bench.models.base import ModelSource, WeightsUnavailable, model_source, model_sources, split_name
from cnnsens_bench.models.checkpoint import Checkpoint, CheckpointFiles, checkpoint_from_bytes, load_checkpoint
from cnnsens_bench.models.classifier import Classifier
from cnnsens_bench.models.preprocessing import Preprocessing

__all__ = [
    "Checkpoint", "CheckpointFiles", "Classifier", "ModelSource", "Preprocessing", "WeightsUnavailable",
    "checkpoint_from_bytes", "load_checkpoint", "model_source", "model_sources", "sources", "split_name",
]  # fmt: skip
