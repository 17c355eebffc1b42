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


class RunError(FedLabelsError):
    """A run cannot go on, for instance because every sampled client failed."""
