"""Switches off what Flower and Ray would send home, check or install over the network."""

import os

OFF = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def disable() -> None:
    """Set the environment of this process and of those that it starts.

    The values are forced, whatever the caller's environment says. Flower reads its variable when
    it is first imported, so this comes before every ``import flwr``.
    """
    os.environ.update(OFF)
