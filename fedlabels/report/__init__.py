"""The HTML report of a run, made from its folder alone."""

from fedlabels.report.holdings import Holdings
from fedlabels.report.page import write_preview
from fedlabels.report.single.page import render, write_report
from fedlabels.report.single.source import RunData, read_run

__all__ = ["Holdings", "RunData", "read_run", "render", "write_preview", "write_report"]
