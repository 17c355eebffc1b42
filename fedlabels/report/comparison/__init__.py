"""Comparison of runs: cells, statistics, tables, texts, and the parts of its page."""
