"""Models: torchvision, timm and local checkpoints → one `Classifier`, its normalisation inside."""

from cnnsens_bench.models import sources
from cnnsens_bench.models.base import Classifier, ModelSource, Preprocessing, model_sources, split_name
from cnnsens_bench.models.checkpoint import Checkpoint, CheckpointFiles, checkpoint_from_bytes, load_checkpoint

__all__ = [
    "Checkpoint",
    "CheckpointFiles",
    "Classifier",
    "ModelSource",
    "Preprocessing",
    "checkpoint_from_bytes",
    "load_checkpoint",
    "model_sources",
    "sources",
    "split_name",
]
