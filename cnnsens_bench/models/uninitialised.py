"""Building networks whose weights are loaded afterwards."""

from typing import Any

from torch.overrides import TorchFunctionMode


class UninitialisedWeights(TorchFunctionMode):
    """A context in which networks are built without random initial weights, because loading overwrites all of them.

    The initialisation of AlexNet alone takes 0.4 s.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return the tensor unchanged where it would be filled with random values."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ("uniform_", "normal_"):
            return args[0] if args else kwargs["tensor"]  # nn.init passes it by name
        return func(*args, **kwargs)
