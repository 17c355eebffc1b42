"""The report of one run: what is read from its folder, and the parts of its page."""
