"""A run for programs: one JSON object a round, as a line, and one with the result."""

from collections.abc import Mapping
from typing import Any, TextIO

from fedlabels.answers import write_json
from fedlabels.run.folder import RunFolder


class JsonLines:
    """Writes every finished round as an object: its row of ``rounds.csv``.

    Parameters
    ----------
    stream : TextIO
        Where to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def on_run_start(self, *, folder: RunFolder, config: Mapping[str, Any]) -> None:
        """Do nothing."""

    def on_round_end(self, *, record: Mapping[str, Any]) -> bool:
        """Do not stop the run."""
        return False

    def on_round_closed(self, *, record: Mapping[str, Any]) -> None:
        """Write the round, once all else of it is done."""
        write_json({"round": record["round"], **record}, self._stream)

    def on_run_end(self, *, folder: RunFolder) -> None:
        """Do nothing."""
