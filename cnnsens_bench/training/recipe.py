"""How a network is fine-tuned: a plain, noise-free recipe (the study measures what training has not seen)."""

import math
from dataclasses import dataclass

from cnnsens_bench.utils.errors import UserError

MOST = 100_000
"""Epochs or images of a batch, beyond which a number is a slip."""


@dataclass
class Recipe:
    """AdamW with a one-cycle schedule; augmentation by random crop of the box and mirroring only.

    `lr_head`, `lr_body`: peak learning rates of the last layer and of the rest; `min_area`: the smallest share of
    the box's area that a random crop keeps; `freeze_norm`: keep a pretrained
    network's batch-norm statistics (a small batch's are worse); `epochs` 0 evaluates the starting weights as they are.
    What defends against noise, both off: `input_dropout`, the probability of a dropout layer between the normalised
    input and the first convolution (paper, section 3); `input_noise`, the σ in gray levels of Gaussian noise added
    to half of the training images (Rusak et al. 2020).
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
        """Raises `UserError` for an impossible value."""
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
