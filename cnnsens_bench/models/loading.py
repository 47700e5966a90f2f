"""Loading a network that is ready to use: from a checkpoint of a run, from a user's weights, or with published ones."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from cnnsens_bench.models.base import (
    PYTHON,
    build_network,
    check_by_running,
    location_of,
    preprocessing_of,
    split_name,
    split_path,
)
from cnnsens_bench.models.checkpoint import parse_checkpoint
from cnnsens_bench.models.classes import OutputClasses, named_outputs
from cnnsens_bench.models.classifier import Classifier
from cnnsens_bench.models.preprocessing import AS_KNOWN, BOX, PUBLISHED, GivenInput, Preprocessing
from cnnsens_bench.models.uninitialised import UninitialisedWeights
from cnnsens_bench.models.weights import class_count, fit_weights, load_weights, starting_weights
from cnnsens_bench.models.weights_file import WeightsFile, is_checkpoint, load_safely, split_key, weights_in
from cnnsens_bench.utils.errors import UserError

FIRST_GUESS = 1000
"""How many classes the network has that weights are compared with to see how many they have."""


@dataclass(frozen=True)
class LoadedNetwork:
    """A network that is ready to use.

    Attributes
    ----------
    model : str
        `<source>/<architecture>`.
    classifier : Classifier
        The network in eval mode on the CPU.
    classes : tuple of str
        The names of its outputs, at least two.
    notes : tuple of str
        Sentences about what was chosen or left out of the file of its weights.
    """

    model: str
    classifier: Classifier
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def input_size(self) -> int:
        """The side of its square input in pixels."""
        return self.classifier.preprocessing.input_size


def load_network(
    model: str | None = None,
    checkpoint: Path | None = None,
    input_size: int | str | None = None,
    classes: Sequence[str] | None = None,
    view: str | None = None,
    given: GivenInput = AS_KNOWN,
) -> LoadedNetwork:
    """Return the network of a checkpoint, or a model with its published weights.

    Parameters
    ----------
    model
        `<source>/<architecture>`. A checkpoint of this program knows it; a state dict does not.
    checkpoint
        A checkpoint of this program, or weights of `model` as `cnnsens_bench.models.weights_file.read_weights` takes
        them. None for published weights.
    input_size
        The side of the square input in pixels, `train` or `test` for the size that the model's library trained or tests
        with. The default is the checkpoint's, or what the view prefers.
    classes
        The names of the outputs. By default the checkpoint's, those of published weights, or numbers.
    view
        `box` or `published`. The default is the checkpoint's, `published` for published weights, and `box` for others.
    given
        What is said of the input of a model without a checkpoint of this program, in place of what its source knows.

    Raises
    ------
    UserError
        If the weights are absent or damaged, do not fit the model, or the network fails at this input size.
    """
    weights = "auto"
    if model is not None:
        model, named = split_path(model)
        split_name(model)
        weights = named or weights
    if checkpoint is None:
        if model is None:
            raise UserError(
                "no network is named: give checkpoint=<file> (a run prints where its own are) or model=<name>"
            )
        state = starting_weights(model, weights, "or give a file of weights with checkpoint=<path>").state
        assert state is not None
        preprocessing = preprocessing_of(model, input_size, view or PUBLISHED, given, weights)
        loaded = _from_state_dict(model, WeightsFile(state), preprocessing)
        return _check_by_running(_with_published_names(loaded, weights), classes)
    path, key = split_key(str(checkpoint))
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}: a run prints where its own are")
    content = load_safely(path)
    if is_checkpoint(content) and not key:
        loaded = _from_checkpoint(content, path, model, input_size, view)
    elif model is None:
        raise UserError(f"{path} is not a checkpoint of this program: say whose weights it has with model=<name>")
    else:
        preprocessing = preprocessing_of(model, input_size, view or BOX, given)
        loaded = _from_state_dict(model, weights_in(content, path, key), preprocessing)
    return _check_by_running(loaded, classes)


def _from_checkpoint(
    content: object, path: Path, model: str | None, input_size: int | str | None, view: str | None
) -> LoadedNetwork:
    """Return the network of a checkpoint of this program."""
    saved = parse_checkpoint(content, str(path))
    # A tag names other weights of the same architecture: resnet18.a1_in1k
    if model is not None and model.partition(".")[0] != saved.model.partition(".")[0]:
        raise UserError(f"{path} is a checkpoint of '{saved.model}', not of '{model}': leave model= out")
    if model is None and split_name(saved.model)[0].name == PYTHON:
        raise UserError(f"{path} is a checkpoint of '{saved.model}', whose code would be run: name it with model=")
    trained = saved.preprocessing
    if input_size is None and view is None:
        return LoadedNetwork(saved.model, saved.classifier(), saved.classes)
    wanted = preprocessing_of(
        saved.model,
        trained.input_size if input_size is None else input_size,
        view or (PUBLISHED if trained.view else BOX),
    )
    if wanted.input_size == trained.input_size:
        preprocessing = dataclasses.replace(trained, view=wanted.view)
        return LoadedNetwork(
            saved.model, dataclasses.replace(saved, preprocessing=preprocessing).classifier(), saved.classes
        )
    preprocessing = dataclasses.replace(trained, input_size=wanted.input_size, view=wanted.view)
    try:
        with UninitialisedWeights():
            network = build_network(saved.model, saved.num_outputs, wanted.input_size)
        load_weights(network, saved.state_dict, saved.model)
    except UserError:
        raise UserError(
            f"{path} cannot be used at input_size={wanted.input_size}: it was trained at {trained.input_size} px"
        ) from None
    classifier = Classifier(network, preprocessing, outputs=saved.match.outputs if saved.match else None).eval()
    notes = tuple(fit_weights(network, saved.state_dict, saved.model).notes())
    return LoadedNetwork(saved.model, classifier, saved.classes, notes)


def network_for(model: str, state: dict[str, Tensor], input_size: int) -> tuple[nn.Module, int]:
    """Return a network without weights that has as many outputs as the head in a state dict, and their number."""

    def build(count: int) -> nn.Module:
        with UninitialisedWeights():
            return build_network(model, count, input_size, state)

    source, architecture = split_name(model)
    if source.fixed_outputs and (known := source.outputs(architecture)):
        return build(known.count), known.count
    network = build(FIRST_GUESS)
    count = class_count(network, state, model)
    return (network, FIRST_GUESS) if count is None else (build(count), count)


def head_of(
    model: str,
    state: dict[str, Tensor],
    input_size: int,
    classes: Sequence[str] = (),
    weights: str = "auto",
    given: Sequence[str] = (),
) -> OutputClasses:
    """Return what the outputs of a state dict mean.

    Parameters
    ----------
    model
        `<source>/<architecture>`.
    state
        The state dict.
    input_size
        The side of the network's input in pixels.
    classes
        The names of the outputs, where the file of the weights has them. Without them the outputs are the published
        classes where there are as many, else they have no names.
    weights
        Where the state dict is from: `auto`, or a path.
    given
        The names of the outputs as a user says them, in place of all others.

    Raises
    ------
    UserError
        If the weights belong to another network, or have no head, or `given` has another number of names.
    """
    source, location = location_of(model, weights)
    published = source.outputs(location)
    if published and (source.restore or source.fixed_outputs):
        found = published
    else:
        count = network_for(model, state, input_size)[1]
        known = published if published and published.count == count else OutputClasses(count)
        found = OutputClasses(count, names=tuple(classes)) if len(classes) == count else known
    if given and len(given) != found.count:
        raise UserError(f"models: classes of '{model}' has {len(given)} names, and the network {found.count} outputs")
    return named_outputs(given) if given else found


def _from_state_dict(model: str, weights: WeightsFile, preprocessing: Preprocessing) -> LoadedNetwork:
    """Return a network with these weights. Its classes are numbers, as many as the head of the weights has."""
    network, count = network_for(model, weights.state, preprocessing.input_size)
    if not load_weights(network, weights.state, model):
        raise UserError(f"these weights are not of '{model}': their head has another form")
    classifier = Classifier(network, preprocessing).eval()
    notes = (*weights.notes, *fit_weights(network, weights.state, model).notes())
    return LoadedNetwork(model, classifier, tuple(f"class {i}" for i in range(count)), notes)


def _with_published_names(loaded: LoadedNetwork, weights: str) -> LoadedNetwork:
    """Return a published network with the names of its outputs, or their WordNet ids, where they are known."""
    source, location = location_of(loaded.model, weights)
    published = source.outputs(location)
    names = (published.names or published.wnids) if published else ()
    return dataclasses.replace(loaded, classes=names) if len(names) == len(loaded.classes) else loaded


def _check_by_running(loaded: LoadedNetwork, classes: Sequence[str] | None) -> LoadedNetwork:
    """Run the network once on a black image, and give its outputs the names in `classes`, if any.

    An input that is too small, or a head of another size, shows here and not only on the first photograph.
    """
    count = check_by_running(loaded.model, loaded.classifier, loaded.input_size)
    if count != len(loaded.classes):
        raise UserError(f"the checkpoint names {len(loaded.classes)} classes, but its network has {count}")
    if count < 2:
        raise UserError(f"'{loaded.model}' has one class only: there is no other label to change to")
    if classes is None:
        return loaded
    if len(classes) != count:
        raise UserError(f"classes= names {len(classes)} classes, but the network has {count}")
    return dataclasses.replace(loaded, classes=tuple(classes))
