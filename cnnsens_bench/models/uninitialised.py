"""Building networks whose weights are loaded afterwards."""

import itertools
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

STEPS = (0.0, 1.0, -1.0, 0.5, -0.5, 1.5, -1.5)
"""Standard deviations beside the mean, in place of normal random values."""
LEFT = ("uniform_", "kaiming_uniform_")
"""The functions whose tensors are left as they are. The second calls the first where this context does not see it."""


class UninitialisedWeights(TorchFunctionMode):
    """A context in which networks are built without random initial weights, because loading overwrites all of them.

    The initialisation of AlexNet alone takes 0.4 s.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps = itertools.cycle(STEPS)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Fill a tensor with one value where it would be filled with normal ones, and leave it where with uniform ones.

        torch draws truncated normal values again and again until all lie between bounds, so the value changes from call
        to call, and one of `STEPS` lies between any bounds that it draws so for.
        """
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name not in LEFT and name != "normal_":
            return func(*args, **kwargs)
        tensor: Tensor = args[0] if args else kwargs["tensor"]  # nn.init passes it by name
        if name == "normal_":
            mean = args[1] if len(args) > 1 else kwargs.get("mean", 0.0)
            std = args[2] if len(args) > 2 else kwargs.get("std", 1.0)
            tensor.detach().fill_(mean + std * next(self.steps))
        return tensor
