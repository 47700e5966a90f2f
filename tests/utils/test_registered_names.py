"""The names that a help text reads from the source are those that the registries have."""

import pytest

from cnnsens_bench.datasets import datasets
from cnnsens_bench.defenses import defenses
from cnnsens_bench.degradations import degradations
from cnnsens_bench.utils.registered_names import registered_names
from cnnsens_bench.utils.registry import Registry


def module_of(registered: object) -> str:
    return getattr(registered, "function", registered).__module__


@pytest.mark.parametrize(
    ("room", "registry"), [("datasets", datasets), ("defenses", defenses), ("degradations", degradations)]
)
def test_names_are_those_of_the_registry(room: str, registry: Registry) -> None:
    # Other tests register their own.
    built_in = [name for name, thing in registry.items() if module_of(thing).startswith("cnnsens_bench.")]
    assert registered_names(room) == sorted(built_in)
