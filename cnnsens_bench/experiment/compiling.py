"""What `compile=on` means for a study: what must be there before anything is computed, and what is not compiled."""

from collections.abc import Iterable, Mapping

from cnnsens_bench.defenses import parse_defense
from cnnsens_bench.engine.compiled import require_compiler
from cnnsens_bench.engine.sweep import Entrant
from cnnsens_bench.experiment.placement import over_ray
from cnnsens_bench.experiment.resolve import RunSettings
from cnnsens_bench.models import Checkpoint
from cnnsens_bench.models.classifier import best_device


def require_compilation(settings: RunSettings) -> None:
    """Raise `UserError` where networks are to be compiled in this process, and there is no compiler.

    Over Ray each worker looks for its own.
    """
    if settings.compile and not over_ray(settings.cluster):
        require_compiler(best_device())


def not_compiled(entrants: Iterable[Entrant], checkpoints: Mapping[str, Checkpoint]) -> list[str]:
    """Return a sentence for each kind of entrant that `compile=on` leaves as it is."""
    entrants = list(entrants)
    models = {entrant.checkpoint: entrant.model for entrant in entrants}
    # One network at a time is in memory.
    foreign = [models[key] for key in models if not checkpoints[key].classifier().compilable()]
    changing = [entrant.defense for entrant in entrants if parse_defense(entrant.defense).recalibration]
    sentences = []
    if foreign:
        names = ", ".join(dict.fromkeys(foreign))
        sentences.append(f"compile=on leaves as they are, because torch compiles only its own modules: {names}")
    if changing:
        names = ", ".join(dict.fromkeys(changing))
        sentences.append(f"compile=on leaves networks with {names} as they are: their weights change from cell to cell")
    return sentences
