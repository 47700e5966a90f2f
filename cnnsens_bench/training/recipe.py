"""How a network is fine-tuned. The default recipe is free of noise: the study measures what training has not seen."""

import math
from dataclasses import dataclass

from cnnsens_bench.utils.errors import UserError

MOST = 100_000
"""The largest number of epochs, and of images in a batch: a larger one is a slip."""


@dataclass
class Recipe:
    """The settings of a fine-tuning: AdamW with a one-cycle schedule, random crops of the box and mirroring.

    `input_dropout` and `input_noise` defend against noise. Both are off by default.

    Attributes
    ----------
    epochs
        Passes over the training images; 0 keeps the starting weights as they are.
    batch_size
        Images of a batch.
    lr_head, lr_body
        Peak learning rates of the last layer and of all other layers; `lr_body` 0 trains the last layer only.
    weight_decay
        AdamW's decay of the weights; biases and normalisation layers have none.
    warmup
        The share of the schedule in which the learning rates rise, between 0 and 1.
    label_smoothing
        The probability that the loss spreads over all classes, in [0, 1).
    min_area
        The smallest share of the box's area that a random crop keeps, in (0, 1].
    flip
        Whether images are mirrored left to right with probability 1/2.
    freeze_norm
        Whether a pretrained network's batch-norm statistics are kept; those of a small batch are worse.
    input_dropout
        The probability of a dropout layer between the normalised input and the first convolution (paper, section 3).
    input_noise
        The standard deviation, in gray levels, of Gaussian noise added to half of the training images (Rusak et al.
        2020).
    """

    epochs: int = 15
    batch_size: int = 32
    lr_head: float = 1e-2
    lr_body: float = 5e-4
    weight_decay: float = 0.02
    warmup: float = 0.2
    label_smoothing: float = 0.0
    min_area: float = 0.5
    flip: bool = True
    freeze_norm: bool = False
    input_dropout: float = 0.0
    input_noise: float = 0.0

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
