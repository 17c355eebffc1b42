"""The run: its folder, checkpoints, fingerprints and what the user sees of it."""

from fedlabels.run.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    read_checkpoint,
    write_checkpoint,
    write_model,
)
from fedlabels.run.console import Console
from fedlabels.run.folder import RunFolder
from fedlabels.run.hashing import config_hash, differing_keys, file_sha256, flatten, rounds_hash
from fedlabels.run.table import Table

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
