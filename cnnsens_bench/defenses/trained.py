"""Defenses by training: the network sees damaged images while it learns, and nothing differs at test time."""

from cnnsens_bench.defenses.base import TrainingChange, checked_number, defense


@defense("input_dropout")
def input_dropout(p: float = 0.1) -> TrainingChange:
    """Train with a dropout layer of probability `p` between the input and the first convolution (paper, section 3)."""
    return TrainingChange({"input_dropout": checked_number("p", p, lambda p: 0 <= p < 1, "in [0, 1)")})


@defense("noise_training")
def noise_training(sigma: float = 16.0) -> TrainingChange:
    """Add N(0, σ²), with σ in gray levels, to half of the training images (Rusak et al. 2020)."""
    return TrainingChange({"input_noise": checked_number("sigma", sigma, lambda s: 0 < s < float("inf"), "above 0")})
