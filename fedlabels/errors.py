"""Errors of the toolkit: each says what was got, what is allowed and what to do."""


class FedLabelsError(Exception):
    """Base of every error that the toolkit raises on purpose."""


class ConfigError(FedLabelsError, ValueError):
    """A setting is unknown, out of range or in conflict with another one."""


class DataError(FedLabelsError):
    """A data set is missing, damaged or too small for what was asked."""


class CheckpointError(FedLabelsError):
    """A checkpoint is damaged, foreign or cannot be written."""


class WireError(FedLabelsError):
    """A message between server and client does not have the agreed form."""


class ClientError(FedLabelsError):
    """A client's code raised.

    Parameters
    ----------
    client_id : int
        The partition's number.
    round_index : int
        Round in which it happened, from 1.
    stage : str
        The exchange or the primitive that ran, for instance ``"train"``.
    reason : str
        The original error as text.
    """

    def __init__(self, client_id: int, round_index: int, stage: str, reason: str) -> None:
        super().__init__(f"client {client_id} failed in round {round_index} ({stage}): {reason}")
        self.client_id = client_id
        self.round_index = round_index
        self.stage = stage
        self.reason = reason


class RunError(FedLabelsError):
    """A run cannot go on, for instance because every sampled client failed."""
