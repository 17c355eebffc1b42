"""Federated learning where labels are scarce and clients differ."""

__version__ = "0.1.0"
