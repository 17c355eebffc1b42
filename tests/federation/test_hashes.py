"""A federation is the same with every CPU and every version of numpy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from fedlabels.seeds import generator
from tests.federation.hashes import DEALT, digest, hashes

ROOT = Path(__file__).parents[2]
PLAIN = "NPY_DISABLE_CPU_FEATURES"


def optional_features():
    """Return the instruction sets beyond the least that this numpy uses on this machine."""
    core = getattr(np, "_core", None) or np.core
    known = core._multiarray_umath
    return [name for name in known.__cpu_dispatch__ if known.__cpu_features__[name]]


def test_federations_do_not_depend_on_the_instruction_set_of_the_cpu():
    made = hashes()
    plain = {**os.environ, PLAIN: " ".join(optional_features())}
    command = [sys.executable, "-m", "tests.federation.hashes"]
    done = subprocess.run(
        command, env=plain, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert json.loads(done.stdout) == made


def test_federations_do_not_depend_on_the_version_of_numpy():
    assert digest(hashes()) == DEALT


def test_streams_do_not_depend_on_the_byte_order():
    # Of a big-endian machine, too: the digest of the path is read as little-endian words.
    assert generator(7, "partition", 3).integers(2**31, size=3).tolist() == [
        327697166, 1941845265, 1739743402,
    ]  # fmt: skip
