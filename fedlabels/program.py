"""What users type to start a run: other words in a checkout than after an install."""

from pathlib import Path

_SCRIPT = Path(__file__).resolve().parents[1] / "run_sim.py"
IN_CHECKOUT = _SCRIPT.is_file()
RUN: tuple[str, ...] = ("python", "run_sim.py") if IN_CHECKOUT else ("fedlabels", "run")
SETTINGS = "docs/settings.md" if IN_CHECKOUT else "fedlabels run --cfg job"
"""What lists all settings."""
