"""A device runs where Hydra, Ray, scikit-learn, Pillow and YAML cannot be imported."""

import subprocess
import sys
from pathlib import Path

from tests.waiting import LIMIT

SCRIPT = Path(__file__).with_name("device_only.py")


def test_devices_need_no_library_of_the_server():
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("ok: python")
