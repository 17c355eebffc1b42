"""Data sets as plain arrays, and the weak and strong views of their samples."""

from fedlabels.data.dataset import ArrayDataset, DataSource
from fedlabels.data.registry import load, names
from fedlabels.data.view_base import View
from fedlabels.data.views import StrongView, WeakView, make_views

__all__ = [
    "ArrayDataset",
    "DataSource",
    "StrongView",
    "View",
    "WeakView",
    "load",
    "make_views",
    "names",
]
