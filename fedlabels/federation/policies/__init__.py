"""The label policies. Every module of this folder is imported, so a new one needs no other edit."""

from fedlabels.federation.discovery import import_siblings

__all__ = import_siblings(__name__, __path__)
