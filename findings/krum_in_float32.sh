#!/usr/bin/env bash
# Flower's Krum chooses by rounding noise where clients lie close together.
#
# flwr 1.41.0, flwr/serverapp/strategy/multikrum.py, compute_distances: squared distances are computed as
# |x|^2 + |y|^2 - 2xy in the dtype of the models, float32. Where models differ by little against their own
# length, as after a few steps with a small rate, the large equal parts cancel: squared distances come out
# negative, and another client is chosen than by the differences themselves (Blanchard et al., NeurIPS 2017).
#
# Seen with numpy 2.4.1, 20 rounds of 6 clients:
#   flwr 1.41.0: Krum chose another client in 18 of 20 rounds; negative squared distances in 14 of 20; in float64
#   wrong in 0
# Ends with status 1 when that is no longer so.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "flwr==1.41.0" "numpy==2.4.1"
export FLWR_TELEMETRY_ENABLED=0
"$folder/venv/bin/python" - <<'PYTHON'
import flwr
import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.serverapp.strategy.multikrum import compute_distances, select_multikrum

wrong = negative = wide_wrong = 0
for seed in range(20):
    random = np.random.default_rng(seed)
    models = [(300 + 2e-3 * random.normal(size=400)).astype(np.float32) for _ in range(6)]
    apart = np.array([[np.sum((a - b) ** 2) for b in np.float64(models)] for a in np.float64(models)])
    exact = int(np.argmin(np.sort(apart, axis=1)[:, 1:4].sum(axis=1)))

    def chosen(kind):
        records = [ArrayRecord({"w": Array(m.astype(kind))}) for m in models]
        contents = [RecordDict({"arrays": record}) for record in records]
        (best,) = select_multikrum(contents, num_malicious_nodes=1, num_nodes_to_select=1)
        return next(i for i, one in enumerate(contents) if one is best), compute_distances(records)

    first, distances = chosen(np.float32)
    wrong += first != exact
    negative += bool((distances < 0).any())
    wide_wrong += chosen(np.float64)[0] != exact

print(f"flwr {flwr.__version__}: Krum chose another client in {wrong} of 20 rounds; "
      f"negative squared distances in {negative} of 20; in float64 wrong in {wide_wrong}")
raise SystemExit(0 if wrong and negative and not wide_wrong else 1)
PYTHON
