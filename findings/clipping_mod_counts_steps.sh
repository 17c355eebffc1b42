#!/usr/bin/env bash
# Flower's fixedclipping_mod takes counters and running statistics for parameters.
#
# flwr 1.41.0, flwr/clientapp/mod/centraldp_mods.py, clips the update of the whole ArrayRecord. A model with
# batch normalization carries num_batches_tracked (0-d int64), which grows by one a step: after ten steps it is
# 10 of the update's norm, whatever was learned, and the parameters are clipped to a small part of the bound. The
# counter itself is not clipped at all: in-place arithmetic misses 0-d arrays (flwr/supercore/
# differential_privacy.py, clip_inputs_inplace).
#
# Seen with flwr 1.41.0, bound 1.0, an update of the weights of norm 0.1, after ten steps:
#   flwr 1.41.0: weights moved by 0.0100 of 0.1000, the counter by 10 of 10
# Ends with status 1 when the weights keep their update.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "flwr==1.41.0" "numpy==2.4.1"
export FLWR_TELEMETRY_ENABLED=0
"$folder/venv/bin/python" - <<'PYTHON'
import logging

import flwr
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp.mod import fixedclipping_mod
from flwr.supercore.task_identity import TaskIdentity

logging.getLogger("flwr").setLevel(logging.ERROR)
TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1


def record(weights, steps):
    counter = Array(np.array(steps, dtype=np.int64))
    return ArrayRecord({"conv.weight": Array(weights), "bn.num_batches_tracked": counter})


sent = RecordDict({
    "arrays": record(np.zeros(4, np.float32), 0),
    "config": ConfigRecord({"clipping_norm": 1.0}),
})
trained = np.full(4, 0.05, np.float32)


def train(message, _):
    return Message(RecordDict({"arrays": record(trained, 10)}), reply_to=message)


context = Context(1, 2, {}, RecordDict(), {})
reply = fixedclipping_mod(Message(sent, 2, "train"), context, train).content["arrays"]
moved = float(np.linalg.norm(reply["conv.weight"].numpy()))
counted = int(reply["bn.num_batches_tracked"].numpy())
print(f"flwr {flwr.__version__}: weights moved by {moved:.4f} of {np.linalg.norm(trained):.4f}, "
      f"the counter by {counted} of 10")
raise SystemExit(0 if moved < 0.05 else 1)
PYTHON
