"""What the examples in docstrings need beside themselves."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def forget_registered_examples(request: pytest.FixtureRequest) -> Iterator[None]:
    """Remove what an example in a docstring registers, so that no other test meets it."""
    if not isinstance(request.node, pytest.DoctestItem):
        yield
        return
    from cnnsens_bench.datasets import datasets
    from cnnsens_bench.models import model_sources

    before = [(registry, set(registry)) for registry in (datasets, model_sources)]
    yield
    for registry, names in before:
        for name in set(registry) - names:
            del registry.data[name]
