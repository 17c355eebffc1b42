#!/usr/bin/env bash
# Flower's adaptive clipping moves the norm away from the quantile that it is asked for.
#
# Andrew et al., NeurIPS 2021, arXiv 1905.03871: C <- C exp(-lr (b - quantile)), where b is the share of
# updates with norm <= C, which are NOT clipped. flwr 1.41.0 puts the share of the clipped there
# (flwr/serverapp/strategy/dp_adaptive_clipping.py, _geometric_update; norm_bit is true where an update was
# clipped). The feedback is positive: a norm that is too small shrinks, one that is too large grows.
#
# Ten clients whose updates have norm 1, 2, ..., 10 in every round, quantile 0.5, no noise, 30 rounds; the norm
# should come to about 5.5. Seen:
#   flwr 1.41.0: from 0.1 to 0.0050 (paper's rule 1.78), from 20 to 402 (paper's rule 5.90)
# Ends with status 1 when the norms no longer run away.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "flwr==1.41.0" "numpy==2.4.1"
export FLWR_TELEMETRY_ENABLED=0
"$folder/venv/bin/python" - <<'PYTHON'
import logging
import math

import flwr
import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import DifferentialPrivacyServerSideAdaptiveClipping, FedAvg
from flwr.supercore.task_identity import TaskIdentity

logging.getLogger("flwr").setLevel(logging.ERROR)
TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1


def replies():
    for length in range(1, 11):
        arrays = ArrayRecord({"w": Array(np.array([float(length)]))})
        metrics = MetricRecord({"num-examples": 1})
        yield Message(RecordDict({"arrays": arrays, "metrics": metrics}), 1 + length, "train")


def ends(start):
    rule = DifferentialPrivacyServerSideAdaptiveClipping(
        FedAvg(), noise_multiplier=0.0, num_sampled_clients=10, initial_clipping_norm=start
    )
    rule.current_arrays = ArrayRecord({"w": Array(np.zeros(1))})
    paper = start
    for turn in range(1, 31):
        rule.aggregate_train(turn, list(replies()))
        below = np.mean([length <= paper for length in range(1, 11)])
        paper *= math.exp(-0.2 * (below - 0.5))
    return rule.clipping_norm, paper


small, large = ends(0.1), ends(20.0)
print(f"flwr {flwr.__version__}: from 0.1 to {small[0]:.4f} (paper's rule {small[1]:.2f}), "
      f"from 20 to {large[0]:.0f} (paper's rule {large[1]:.2f})")
raise SystemExit(0 if small[0] < 0.1 and large[0] > 20 else 1)
PYTHON
