"""The model source `onnx`: networks in ONNX files, run by onnxruntime. They give no gradients and are not trained.

A checkpoint carries the bytes of the graph, so that a process without the file can run it.
"""

import ast
import functools
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cnnsens_bench.models.base import LONGEST, WeightsUnavailable, model_source
from cnnsens_bench.models.classes import OutputClasses, named_outputs
from cnnsens_bench.models.preprocessing import UNKNOWN_COLOURS, Preprocessing
from cnnsens_bench.utils.errors import UserError, first_line

GRAPH = "graph"
"""The name under which a state dict has the bytes of the graph."""

TYPES = {"float": np.float32, "float16": np.float16, "double": np.float64, "uint8": np.uint8}
"""The types of input that are fed."""

ANY_SIZE = 224
"""The side in pixels at which a graph that takes any size is tried."""

ROUNDING = 1e-3
"""How far the sum of an image's probabilities may be from 1; those of 16-bit graphs are rounded."""

TINY = 1e-30
"""The probability in place of 0, whose logarithm is not finite."""

PER_BATCH = b"DynamicQuantizeLinear"
"""The operator whose scale depends on all images of a batch, so that images must be run one by one."""

PROBABILITIES = "its outputs are probabilities: their logarithms are taken as logits"


def _onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError:
        raise UserError(
            "models named onnx/… need the package onnxruntime: pip install 'cnnsens-bench[onnx]', on the workers too"
        ) from None
    return onnxruntime


class Session:
    """A graph that is loaded by onnxruntime, and what its input and its output are.

    Parameters
    ----------
    graph
        The bytes of the graph, with all weights inside.
    input_size
        The side of the square input in pixels; None for the graph's own, or 224 where it takes any.
    device
        Where it runs: on a GPU where onnxruntime can, otherwise on as many CPU threads as torch uses.

    Raises
    ------
    UserError
        If the graph cannot be loaded, or is no classifier of RGB images of this size.
    """

    def __init__(self, graph: bytes, input_size: int | None = None, device: str = "cpu") -> None:
        runtime = _onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.log_severity_level = 3  # errors, which are raised too
        # Threads that spin between two runs would take the cores from those that degrade images.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = ["CPUExecutionProvider"]
        if device == "cuda" and "CUDAExecutionProvider" in runtime.get_available_providers():
            providers.insert(0, "CUDAExecutionProvider")
        try:
            self.session = runtime.InferenceSession(graph, options, providers=providers)
        except Exception as error:  # onnxruntime raises errors of many types, which share no base
            raise UserError(f"onnxruntime cannot load the graph ({first_line(error, LONGEST)})") from None
        self.names = self._class_names()
        [given, *others] = self.session.get_inputs()
        self.input, self.type = given.name, given.type.removeprefix("tensor(").removesuffix(")")
        if others or len(given.shape) != 4 or self.type not in TYPES:
            raise UserError(
                f"the graph takes {len(others) + 1} inputs, the first {given.type} {given.shape}: one of images, float "
                "or uint8 (N, 3, H, W), is evaluated"
            )
        batch, *sides = given.shape
        self.channels_last = sides[-1] == 3 and sides[0] != 3
        height, width = sides[:2] if self.channels_last else sides[1:]
        if not self.channels_last and sides[0] not in (3, None) and not isinstance(sides[0], str):
            raise UserError(f"the graph takes images of {sides[0]} channels: those of 3 are evaluated")
        if isinstance(height, int) and isinstance(width, int) and height != width:
            raise UserError(f"the graph takes inputs of {height}×{width} px: only square ones are evaluated")
        self.own_size = next((side for side in (height, width) if isinstance(side, int)), None)
        if self.own_size and input_size not in (None, self.own_size):
            raise UserError(f"the graph takes inputs of {self.own_size} px only: leave input_size out")
        self.size = input_size or self.own_size or ANY_SIZE
        self.batch = batch if isinstance(batch, int) and batch > 0 else None
        if PER_BATCH in graph:
            self.batch = 1
        self._find_output()

    def _find_output(self) -> None:
        """Find the output that has a row of numbers for each image, and whether these are probabilities."""
        self.output, self.probabilities = 0, False
        count = self.batch or 2
        noise = np.random.default_rng(0).random((count, 3, self.size, self.size), np.float32)
        found = self._run(noise)
        for position, rows in enumerate(found):
            if rows.ndim == 2 and rows.shape[0] == count and rows.shape[1] > 1:
                self.output, self.count = position, rows.shape[1]
                sums = rows.astype(np.float64).sum(1)
                self.probabilities = bool((rows >= 0).all() and (abs(sums - 1) < ROUNDING).all())
                return
        shapes = ", ".join(str(list(rows.shape)) for rows in found)
        raise UserError(
            f"the outputs of the graph have the shapes {shapes}: none has a row of at least 2 classes for each image"
        )

    def _class_names(self) -> tuple[str, ...]:
        """Return the names of the classes in the metadata (a list, or a mapping of numbers), empty where none are."""
        text = self.session.get_modelmeta().custom_metadata_map.get("names", "")
        for read in (json.loads, ast.literal_eval):
            try:
                found = read(text)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
            if isinstance(found, dict):
                found = [found.get(key, found.get(str(key))) for key in range(len(found))]
            if isinstance(found, list | tuple) and all(isinstance(name, str) for name in found):
                return tuple(found)
        return ()

    def _run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Run the graph on (N, 3, H, W) float32, N being its batch size where that is fixed."""
        if self.type == "uint8":
            pixels = (pixels * 255).round().clip(0, 255)
        if self.channels_last:
            pixels = pixels.transpose(0, 2, 3, 1)
        pixels = np.ascontiguousarray(pixels, TYPES[self.type])
        try:
            found = self.session.run(None, {self.input: pixels})
        except Exception as error:  # as above
            kind = MemoryError if "allocate memory" in str(error) else RuntimeError
            raise kind(f"onnxruntime fails on the graph ({first_line(error, LONGEST)})") from None
        return [np.asarray(rows) for rows in found]

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """Return the logits (N, classes) float32 of normalised pixels (N, 3, H, W) float32."""
        step = self.batch or max(1, len(pixels))
        rows = [np.zeros((0, self.count), np.float32)]
        for start in range(0, len(pixels), step):
            part = pixels[start : start + step]
            short = step - len(part)
            if short:
                part = np.concatenate([part, np.zeros((short, *part.shape[1:]), part.dtype)])
            rows.append(self._run(part)[self.output][: step - short].astype(np.float32))
        logits = np.concatenate(rows)
        return np.log(logits.clip(TINY)) if self.probabilities else logits


class OnnxNetwork(nn.Module):
    """A graph as a function of pixels to logits, without gradients. The session is made when it is first called.

    Parameters
    ----------
    graph
        The bytes of the graph: (n,) uint8.
    input_size
        The side of the square input in pixels.
    """

    differentiable = compilable = False
    graph: Tensor

    def __init__(self, graph: Tensor, input_size: int) -> None:
        super().__init__()
        self.register_buffer(GRAPH, graph)
        self.input_size = input_size
        self.session: Session | None = None

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits (N, classes) of normalised pixels (N, 3, H, W)."""
        session = self.open(pixels.device.type)
        logits = session.logits(pixels.detach().float().cpu().numpy())
        return torch.from_numpy(logits).to(pixels.device)

    def open(self, device: str = "cpu") -> Session:
        """Return the session; it is kept until `close`."""
        if self.session is None:
            self.session = Session(self.graph.numpy().tobytes(), self.input_size, device)
        return self.session

    def close(self) -> None:
        """Release the memory of the session."""
        self.session = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of how it is evaluated."""
        return (PROBABILITIES,) if self.open().probabilities else ()

    @property
    def hidden_parameters(self) -> int:
        """The number of values in the graph's initializers."""
        import onnx

        initializers = onnx.load_model_from_string(self.graph.numpy().tobytes()).graph.initializer
        return sum(int(np.prod(tensor.dims)) for tensor in initializers)

    def _apply(self, fn: Any, recurse: bool = True) -> "OnnxNetwork":
        """Leave the bytes of the graph where they are, on any device and in any precision."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "session": None}


def _read(path: Path) -> bytes:
    """Return the bytes of a file, with external weights put inside. Raises `UserError`."""
    _onnxruntime()
    import onnx
    from onnx.external_data_helper import _get_all_tensors, load_external_data_for_model, uses_external_data

    try:
        model = onnx.load(path, load_external_data=False)
        external = [tensor for tensor in _get_all_tensors(model) if uses_external_data(tensor)]
        if not external:
            return path.read_bytes()
        folder = path.resolve().parent
        for tensor in external:
            name = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            if not (folder / name).resolve().is_relative_to(folder):
                raise UserError(f"{path} takes weights from {name!r}, outside its folder: it is not loaded")
        load_external_data_for_model(model, str(folder))
        return model.SerializeToString()
    except UserError:
        raise
    except Exception as error:  # onnx raises errors of many types for files that are no graphs, or lack weights
        raise UserError(f"{path} cannot be read as an ONNX graph ({first_line(error, LONGEST)})") from None


def _file(location: str) -> Path:
    path = Path(location).expanduser()
    if not path.is_file():
        raise UserError(f"there is no ONNX file {path}: name it, as in models=[onnx//weights/net.onnx]")
    return path


@functools.lru_cache(maxsize=64)
def _inspected(path: Path, changed: int) -> tuple[int | None, str, OutputClasses]:
    """Return the size of a graph's input, the type of it, and the classes of its output."""
    graph = _read(path)
    try:
        session = Session(graph)
    except (UserError, RuntimeError) as error:
        raise UserError(f"{path}: {error}") from None
    named = len(session.names) == session.count
    return session.own_size, session.type, named_outputs(session.names) if named else OutputClasses(session.count)


def _facts(location: str) -> tuple[int | None, str, OutputClasses]:
    path = _file(location)
    return _inspected(path, path.stat().st_mtime_ns)


def describe(location: str) -> Preprocessing:
    """Return the input size of a graph. Its normalisation is known only where it takes bytes."""
    size, kind, _ = _facts(location)
    colours = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)) if kind == "uint8" else (UNKNOWN_COLOURS, UNKNOWN_COLOURS)
    return Preprocessing(size or 0, *colours)


def outputs(location: str) -> OutputClasses:
    """Return the number of a graph's outputs, with the names that its metadata has under `names`."""
    return _facts(location)[2]


def pretrained(location: str) -> dict[str, Tensor]:
    """Return the bytes of a graph as a state dict."""
    if not location.endswith(".onnx"):
        raise WeightsUnavailable("a name alone: name a file, as in models=[onnx//weights/net.onnx]")
    return {GRAPH: torch.frombuffer(bytearray(_read(_file(location))), dtype=torch.uint8)}


def restore(state: dict[str, Tensor], num_classes: int, input_size: int) -> nn.Module:
    """Return the network of a graph, which has the outputs that it has."""
    if GRAPH not in state:
        raise UserError("these weights are no ONNX graph: name its file, as in models=[onnx//weights/net.onnx]")
    return OnnxNetwork(state[GRAPH], input_size)


@model_source(
    "onnx", names=None, describe=describe, pretrained=pretrained, outputs=outputs, restore=restore, trainable=False
)
def build(name: str, num_classes: int, input_size: int) -> nn.Module:
    """Raise `UserError`: a graph has weights of its own."""
    raise UserError(f"'onnx/{name}' has no random weights: name its file, as in models=[onnx//weights/net.onnx]")
