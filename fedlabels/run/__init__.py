"""The run: from settings to a finished run folder, and what the user sees of it."""

from fedlabels.run.console import Console
from fedlabels.run.folder.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    read_checkpoint,
    write_checkpoint,
    write_model,
)
from fedlabels.run.folder.folder import RunFolder
from fedlabels.run.folder.hashing import file_sha256, rounds_hash
from fedlabels.run.folder.table import Table
from fedlabels.settings.hashing import config_hash, differing_keys, flatten

__all__ = [
    "Checkpoint",
    "Console",
    "RunFolder",
    "Table",
    "config_hash",
    "differing_keys",
    "file_sha256",
    "flatten",
    "latest_checkpoint",
    "read_checkpoint",
    "rounds_hash",
    "write_checkpoint",
    "write_model",
]
