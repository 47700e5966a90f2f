"""Networks that `torch.compile` makes faster: batch norm becomes a part of the convolutions, and steps are fused."""

import contextlib
import logging
import os
import shutil
import sys
import sysconfig
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from cnnsens_bench.engine.networks import autocast
from cnnsens_bench.engine.oom_backoff import free_memory, out_of_memory
from cnnsens_bench.models import Classifier
from cnnsens_bench.utils.errors import UserError, first_line
from cnnsens_bench.utils.reporter import SILENT, Reporter

LONGEST = 160
"""How many characters of an error a sentence quotes."""


def require_compiler(device: torch.device | str) -> None:
    """Raise `UserError` unless this machine has the compiler that torch needs to compile networks for a device."""
    on_gpu = torch.device(device).type == "cuda"
    language, variable = ("C", "CC") if on_gpu else ("C++", "CXX")
    usual = ("gcc", "clang") if on_gpu else ("clang++",) if sys.platform == "darwin" else ("g++",)
    named = os.environ.get(variable)
    if not any(shutil.which(program) for program in ([named] if named else usual)):
        raise UserError(
            f"compile=on needs a {language} compiler, and there is no {named or ' or '.join(usual)} on this machine: "
            f"install one (Debian, Ubuntu: apt-get install g++), name it in {variable}, or leave compile=on out"
        )
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.exists():
        raise UserError(
            f"compile=on needs Python's header files, and there is no {header}: install them (Debian, Ubuntu: apt-get "
            "install python3-dev), or leave compile=on out"
        )


def compile_networks(
    networks: Iterable[tuple[int, str, Classifier]],
    device: torch.device,
    precision: str,
    batch_size: int,
    reporter: Reporter = SILENT,
) -> dict[int, Callable[[Tensor], Tensor]]:
    """Compile networks, each once, and return the compiled ones by their numbers.

    Networks whose code torch cannot compile are left out (see `Classifier.compilable`).

    Parameters
    ----------
    networks
        (number, name, network) of each. A network may come several times.
    device
        Where the networks lie.
    precision
        The precision that they are run in.
    batch_size
        The number of images of a batch.
    reporter
        Hears of each network that is compiled.

    Raises
    ------
    UserError
        If there is no compiler, or a network cannot be compiled.
    """
    found: dict[int, CompiledNetwork] = {}
    known: dict[int, CompiledNetwork] = {}
    require_compiler(device)
    for number, name, classifier in networks:
        if not classifier.compilable():
            continue
        if id(classifier) not in known:
            reporter.message(f"compiling {name}: up to minutes the first time, seconds when the cache has its code")
            known[id(classifier)] = compiled = CompiledNetwork(classifier, name, device)
            compiled.warm_up(precision, batch_size)
        found[number] = known[id(classifier)]
    return dict(found)


def forget_compiled() -> None:
    """Free what compiled networks hold. Those that are still used are compiled again, with the code in the cache."""
    torch.compiler.reset()
    free_memory()


class CompiledNetwork:
    """A classifier whose forward pass is compiled; its weights are constants of the compiled code.

    It may be run in inference mode only. A batch of another size than the ones before may be compiled for.

    Parameters
    ----------
    classifier
        The classifier, in eval mode and without gradients. It stays as it is, and its weights must not change.
    name
        Its name, for errors.
    device
        Where it lies.
    """

    def __init__(self, classifier: Classifier, name: str, device: torch.device) -> None:
        import torch._inductor.config  # imported here because it takes a second, which other runs need not wait

        self.preprocessing, self.name, self.device = classifier.preprocessing, name, device
        # Given as options of torch.compile, the first of these comes too late to make weights constants.
        self.settings = {"freezing": True, "triton.cudagraphs": device.type == "cuda"}
        self.forward = torch.compile(_own_function(classifier), fullgraph=True)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the logits (N, classes) of pixels (N, 3, S, S) in [0, 255].

        Raises
        ------
        UserError
            If the network cannot be compiled for so many images.
        """
        try:
            with torch._inductor.config.patch(self.settings):
                logits = self.forward(_in_inference_mode(pixels))
        except Exception as error:
            if out_of_memory(error) or not isinstance(error, torch._dynamo.exc.TorchDynamoException):
                raise
            raise self._refusal(error) from error
        # The next run of a CUDA graph overwrites the outputs of the last one.
        return logits.clone() if self.device.type == "cuda" else logits

    def warm_up(self, precision: str, batch_size: int) -> None:
        """Compile for batches of a size, unless memory does not suffice for them.

        Raises
        ------
        UserError
            If the network cannot be compiled.
        """
        size = self.preprocessing.input_size
        try:
            with _quiet(), torch.inference_mode(), autocast(self.device, precision):
                pixels = torch.zeros(batch_size, 3, size, size, device=self.device)
                pixels = pixels.contiguous(memory_format=torch.channels_last)
                for _ in range(3 if self.device.type == "cuda" else 1):  # the second run of a CUDA graph records it
                    self(pixels)
        except UserError:
            raise
        except Exception as error:  # compilers raise errors of many types
            if not out_of_memory(error):
                raise self._refusal(error) from error
        free_memory()

    def _refusal(self, error: BaseException) -> UserError:
        cause = getattr(error, "inner_exception", error)
        lines = [line for line in str(cause).splitlines() if "error:" in line]  # a compiler's complaint
        reason = lines[0].strip()[:LONGEST] if lines else first_line(cause, LONGEST)
        return UserError(f"'{self.name}' cannot be compiled ({reason}): leave compile=on out")


def _own_function(classifier: Classifier) -> Callable[[Tensor], Tensor]:
    """Return the classifier's forward pass as a function with a code object of its own.

    torch.compile keeps at most eight compiled versions of a code object, and all classifiers share that of their class.
    """

    def forward(pixels: Tensor) -> Tensor:
        return classifier(pixels)

    code = forward.__code__.replace()
    return types.FunctionType(code, forward.__globals__, forward.__name__, None, forward.__closure__)


def _in_inference_mode(pixels: Tensor) -> Tensor:
    """Return a tensor that shares the pixels' memory and was made in inference mode.

    torch.compile makes versions of their own for tensors that were made outside of it.
    """
    if pixels.is_inference():
        return pixels
    memory = pixels.untyped_storage()
    return torch.empty(0, dtype=pixels.dtype, device=pixels.device).set_(
        memory, pixels.storage_offset(), pixels.shape, pixels.stride()
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings of compilers, which tell a user nothing that they could mend."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
