"""How a network is fine-tuned. The default recipe is free of noise: the study measures what training has not seen."""

import math
from dataclasses import dataclass

from cnnsens_bench.utils.errors import UserError

MOST = 100_000
"""The largest number of epochs, and of images in a batch: a larger one is a slip."""


@dataclass
class Recipe:
    """AdamW with a one-cycle schedule; augmentation is a random crop of the box and mirroring only.

    `input_dropout` and `input_noise` defend against noise; both are off by default.
    """

    epochs: int = 15
    """Passes over the training images, 0 to 100000. 0 evaluates the starting weights as they are."""
    batch_size: int = 32
    """Training images of a step, 2 to 100000."""
    lr_head: float = 1e-2
    """Peak learning rate of the last layer, above 0."""
    lr_body: float = 5e-4
    """Peak learning rate of all other layers, at least 0. 0 freezes them."""
    weight_decay: float = 0.02
    """Weight decay of AdamW, at least 0."""
    warmup: float = 0.2
    """Share of the steps in which the learning rate rises, between 0 and 1."""
    label_smoothing: float = 0.0
    """Share of the target's probability that the loss spreads over all classes, at least 0 and below 1."""
    min_area: float = 0.5
    """Smallest share of the box's area that a random crop keeps, above 0, at most 1."""
    flip: bool = True
    """Whether training images are mirrored left to right at random."""
    freeze_norm: bool = False
    """Whether a pretrained network keeps its batch-norm statistics; those of small batches are worse."""
    input_dropout: float = 0.0
    """Probability of a dropout layer between the normalised input and the first convolution, at least 0 and below 1
    (paper, section 3)."""
    input_noise: float = 0.0
    """Standard deviation, in gray levels, of Gaussian noise that half of the training images get, at least 0
    (Rusak et al. 2020)."""

    def check(self) -> None:
        """Raise `UserError` for an impossible value."""
        rules = {
            "epochs": (0 <= self.epochs <= MOST, "at least 0" if self.epochs < 0 else f"at most {MOST}"),
            "batch_size": (2 <= self.batch_size <= MOST, f"at least 2 (batch norm needs two images), at most {MOST}"),
            "lr_head": (0 < self.lr_head < math.inf, "above 0 and finite"),
            "lr_body": (0 <= self.lr_body < math.inf, "at least 0 and finite"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "at least 0 and finite"),
            "warmup": (0 < self.warmup < 1, "between 0 and 1"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "in [0, 1)"),
            "min_area": (0 < self.min_area <= 1, "in (0, 1]"),
            "input_dropout": (0 <= self.input_dropout < 1, "in [0, 1)"),
            "input_noise": (0 <= self.input_noise < math.inf, "at least 0 and finite"),
        }
        for key, (good, bound) in rules.items():
            if not good:
                raise UserError(f"training.{key} is {getattr(self, key)}: it must be {bound}")
