"""Runs through ``run_sim.py`` quiet Flower's logger; other tests find it as it was."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _loud_again() -> Iterator[None]:
    logger = logging.getLogger("flwr")
    level, propagate = logger.level, logger.propagate
    yield
    logger.setLevel(level)
    logger.propagate = propagate


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One Ray for the tests of a file."""
    import ray

    from fedlabels.simulation.ray_backend import RaySettings, start_ray

    start_ray(RaySettings(num_workers=2))
    yield
    ray.shutdown()
