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
    from cnnsens_bench.defenses import defenses
    from cnnsens_bench.degradations import degradations
    from cnnsens_bench.measures import measures
    from cnnsens_bench.models import model_sources
    from cnnsens_bench.sensitivity.predictors import predictors

    registries = (datasets, defenses, degradations, measures, model_sources, predictors)
    before = [(registry, set(registry)) for registry in registries]
    yield
    for registry, names in before:
        for name in set(registry) - names:
            del registry.data[name]
