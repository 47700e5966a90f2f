"""The training of a network: epochs of optimisation steps, and the state from which another process goes on.

AdamW follows a one-cycle schedule. Noise in training is added here too.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cnnsens_bench.models.classifier import Classifier, best_device, logits_of
from cnnsens_bench.training.data import WHOLE, Share, TrainingImages
from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.utils.errors import UserError

GRADIENT_NORM = 5.0
"""Gradients of a larger norm are scaled down to this one."""

TrainingState = dict[str, Any]
"""The tensors and numbers from which another process goes on as if training had not stopped."""

Report = Callable[[int, int, float], None]
"""Called after each step with the steps done, the steps in all and the running mean of the loss."""

AfterEpoch = Callable[[int, Classifier, Callable[[], TrainingState]], None]
"""Called after each epoch with the epochs done, the classifier as it trains, and a function that returns the state from
which another process can go on."""


class Diverged(UserError):
    """The loss of a training is no longer finite, so that its network is of no use."""


class Trainer:
    """A classifier with its optimiser and its schedule.

    Parameters
    ----------
    classifier
        The network to train in place. It moves to the best device of this machine.
    recipe
        Learning rates, weight decay, warm-up, label smoothing and noise.
    steps
        The number of steps of the whole schedule.
    distributed
        Whether several processes train this network together; torch.distributed must then be set up.
    state
        What `Trainer.state` returned in an earlier process, or None to begin at the first step.
    """

    def __init__(
        self, classifier: Classifier, recipe: Recipe, steps: int, *, distributed: bool, state: TrainingState | None
    ) -> None:
        self.classifier, self.recipe, self.distributed = classifier, recipe, distributed
        self.device = best_device()
        classifier.to(self.device).to(memory_format=torch.channels_last).train()
        if recipe.freeze_norm:
            for layer in classifier.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.eval()
        self._optimiser = torch.optim.AdamW(parameter_groups(classifier.network, recipe), fused=True)
        self._schedule = one_cycle(self._optimiser, recipe, steps)
        self._loss = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        if state is not None:
            self._restore(state)
        self._forward = nn.parallel.DistributedDataParallel(classifier) if distributed else classifier

    def step(self, pixels: Tensor, labels: Tensor) -> float:
        """Take one step on a batch.

        Parameters
        ----------
        pixels
            Images of shape (B, 3, S, S) in [0, 255], of any number type.
        labels
            Class indices of shape (B,).

        Returns
        -------
        float
            The batch's mean loss before the step, over all processes that train together.
        """
        inputs = with_noise(pixels.to(self.device).float(), self.recipe.input_noise)
        loss = self._loss(logits_of(self._forward(inputs)), labels.to(self.device))
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.classifier.parameters(), GRADIENT_NORM)
        self._optimiser.step()
        self._schedule.step()
        return _mean_over_processes(loss).item() if self.distributed else loss.item()

    def state(self, epochs: int) -> TrainingState:
        """Return the state after so many epochs; dropout and noise are drawn from torch's generators, a part of it."""
        random = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        return {"epochs": epochs, **parts, "random": random}

    def _restore(self, state: TrainingState) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["random"]["cpu"])
        for device, device_state in enumerate(state["random"]["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(device_state, device)

    def _parts(self) -> dict[str, Any]:
        return {"classifier": self.classifier, "optimiser": self._optimiser, "schedule": self._schedule}


def one_cycle(optimiser: torch.optim.Optimizer, recipe: Recipe, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the schedule that raises each group's learning rate to its peak and lowers it again within `steps`."""
    # A warm-up of exactly one step makes OneCycleLR divide by zero.
    warmup = recipe.warmup if abs(recipe.warmup * (steps + 1) - 1) > 1e-6 else 1.01 * recipe.warmup
    peaks = [group["lr"] for group in optimiser.param_groups]
    return torch.optim.lr_scheduler.OneCycleLR(
        optimiser, peaks, total_steps=steps + 1, pct_start=warmup, cycle_momentum=False
    )


def parameter_groups(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the optimiser's groups: head and body, each with weight decay and without.

    Biases and the parameters of normalisation layers have no weight decay.
    """
    head = {id(parameter) for parameter in head_layer(network).parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        groups.setdefault((id(parameter) in head, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": recipe.lr_head if in_head else recipe.lr_body,
            "weight_decay": recipe.weight_decay if decays else 0.0,
        }
        for (in_head, decays), parameters in groups.items()
    ]


def head_layer(network: nn.Module) -> nn.Module:
    """Return the last linear layer, or the last convolution of a network that ends in one.

    Examples
    --------
    >>> head_layer(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
    Linear(in_features=8, out_features=3, bias=True)
    """
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]


def with_noise(pixels: Tensor, sigma: float) -> Tensor:
    """Add Gaussian noise to about half of the images, chosen at random (Rusak et al. 2020).

    Parameters
    ----------
    pixels
        Images of shape (B, 3, H, W) in [0, 255].
    sigma
        The noise's standard deviation in gray levels. With 0 the images stay as they are and nothing is drawn.

    Returns
    -------
    Tensor
        Images of the same shape, clamped to [0, 255].
    """
    if not sigma:
        return pixels
    chosen = torch.rand(len(pixels), 1, 1, 1, device=pixels.device) < 0.5
    return torch.where(chosen, (pixels + sigma * torch.randn_like(pixels)).clamp(0, 255), pixels)


def _mean_over_processes(loss: Tensor) -> Tensor:
    """Return the same mean on all processes, so that all stop when one diverges."""
    mean = loss.detach().clone()
    torch.distributed.all_reduce(mean)
    return mean / torch.distributed.get_world_size()


def train_network(
    classifier: Classifier,
    data: TrainingImages,
    recipe: Recipe,
    seed: int,
    report: Report | None = None,
    *,
    after_epoch: AfterEpoch | None = None,
    state: TrainingState | None = None,
    share: Share = WHOLE,
) -> None:
    """Train a classifier in place; it ends in evaluation mode on the CPU.

    Parameters
    ----------
    classifier
        The network with its normalisation and its input dropout.
    data
        The images to train on.
    recipe
        How to train.
    seed
        The seed of the images' order and crops.
    report
        Called after each step.
    after_epoch
        Called after each epoch.
    state
        What `after_epoch` could ask for in an earlier process: training goes on as if it had not been stopped.
    share
        This process's part of every batch, where several processes train together (torch.distributed is then set up).

    Raises
    ------
    Diverged
        If the loss is not finite after a step.
    UserError
        If fewer than two images could be read.
    """
    if len(data) < 2:
        raise UserError("fewer than two training images could be read: see the failures, or check the dataset's root")
    steps_per_epoch = max(1, len(data) // min(recipe.batch_size, len(data)))
    steps = steps_per_epoch * recipe.epochs
    first_epoch = state["epochs"] if state else 0
    done, mean_loss = steps_per_epoch * first_epoch, math.nan
    trainer = Trainer(classifier, recipe, steps, distributed=share.count > 1, state=state)
    for epoch in range(first_epoch, recipe.epochs):
        for pixels, labels in data.batches(recipe, np.random.default_rng([seed, epoch]), share):
            loss = trainer.step(pixels, labels)
            done += 1
            if not math.isfinite(loss):
                raise Diverged(f"training diverged (loss {loss}) at step {done}: lower training.lr_body and lr_head")
            mean_loss = loss if math.isnan(mean_loss) else 0.9 * mean_loss + 0.1 * loss
            if report:
                report(done, steps, mean_loss)
        if after_epoch:
            after_epoch(epoch + 1, classifier, functools.partial(trainer.state, epoch + 1))
    classifier.to("cpu").eval()
