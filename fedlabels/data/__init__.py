"""Data sets as plain arrays, and the weak and strong views of their images."""

from fedlabels.data.dataset import ArrayDataset, DataSource
from fedlabels.data.registry import load, names
from fedlabels.data.views import StrongView, View, WeakView, make_views

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
