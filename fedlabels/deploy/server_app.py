"""Flower's component on the server: ``fedlabels.deploy.server_app:app``."""

from fedlabels import telemetry

telemetry.disable()  # before Flower is imported

# ruff: noqa: E402
import logging
import sys

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedlabels.deploy.server import serve

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the setting that ``flwr run`` was given, with the devices that are connected."""
    _show(logging.getLogger("fedlabels"))
    serve(grid, context.run_config)


def _show(logger: logging.Logger) -> None:
    """Show what happens in the log of the run: who joins, who fails and why."""
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
