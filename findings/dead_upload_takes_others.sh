#!/usr/bin/env bash
# A device that dies while it uploads takes the replies of the others with it, and ignores the deadline.
#
# flwr 1.42.0, flwr/superlink/grid/http_grid.py, HttpGrid.pull_messages: it claims every reply that has begun to
# arrive and then waits until each is whole, at least 180 s (OBJECT_PUSH_SESSION_TTL_SECONDS) after the last piece
# of a device that is gone. send_and_receive(timeout=90) sits in there, looks at its clock afterwards, and ends:
# what the others sent in time is never pulled.
#
# Here one device of two breaks off in the middle of its reply, the other answers after twenty seconds.
# Seen with a deadline of 90 s:
#   flwr 1.42.0: 227 s for a deadline of 90 s, 0 of 1 good replies came
# What helps: one pull a message, each in a thread of its own.
# Ends with status 1 when that is no longer so. Takes four minutes.
set -euo pipefail

folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "flwr==1.42.0" "numpy==2.4.1"
export PATH="$folder/venv/bin:$PATH" FLWR_HOME="$folder/home"
export FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1
mkdir -p "$folder/home" "$folder/app/probe"
cd "$folder/app"
cat > "$folder/home/config.toml" <<'TOML'
[superlink]
default = "here"
[superlink.here]
address = "127.0.0.1:18573"
insecure = true
TOML
cat > pyproject.toml <<'TOML'
[project]
name = "probe"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "nobody"
fab-include = ["probe/*.py"]
[tool.flwr.app.components]
serverapp = "probe.server:app"
clientapp = "probe.client:app"
[tool.flwr.app.config]
out = ""
TOML
touch probe/__init__.py
cat > probe/server.py <<'PYTHON'
import time
from pathlib import Path

from flwr.app import Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    while len(nodes := list(grid.get_node_ids())) < 2:
        time.sleep(1)
    messages = [Message(RecordDict(), node, "train") for node in nodes]
    began = time.monotonic()
    replies = list(grid.send_and_receive(messages, timeout=90))
    good = sum(not reply.has_error() for reply in replies)
    Path(context.run_config["out"]).write_text(f"{time.monotonic() - began:.0f} {good}")
PYTHON
cat > probe/client.py <<'PYTHON'
import time

import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    count = 6 if context.node_config["breaks"] else 1
    if count == 1:
        time.sleep(20)
    arrays = {str(i): Array(np.full(250_000, i, np.float64)) for i in range(count)}
    return Message(RecordDict({"arrays": ArrayRecord(arrays)}), reply_to=message)
PYTHON
flower-superlink --insecure --host 127.0.0.1 --port 18573 --disable-runtime-dependency-installation \
  > "$folder/superlink.log" 2>&1 &
# a cable that breaks for good once five megabytes have gone up: a device that is switched off
python3 - > "$folder/cable.log" 2>&1 <<'PYTHON' &
import socket
import threading

left, lock, ends = 5_000_000, threading.Lock(), []


def pump(here, there, up):
    global left
    try:
        while data := here.recv(65536):
            with lock:
                left -= len(data) * up
            if left < 0:
                for end in [entry, *ends]:
                    end.close()
                return
            there.sendall(data)
    except OSError:
        pass


entry = socket.create_server(("127.0.0.1", 18574))
while left > 0:
    device = entry.accept()[0]
    server = socket.create_connection(("127.0.0.1", 18573))
    ends += [device, server]
    threading.Thread(target=pump, args=(device, server, 1)).start()
    threading.Thread(target=pump, args=(server, device, 0)).start()
PYTHON
until python3 -c "import urllib.request as r; r.urlopen('http://127.0.0.1:18573/health')" 2>/dev/null; do sleep 1; done
for breaks in false true; do
  [ $breaks = true ] && port=18574 || port=18573
  FLWR_HOME="$folder/home-$breaks" flower-supernode --insecure --superlink 127.0.0.1:$port --host 127.0.0.1 \
    --port $((port + 10)) --node-config "breaks=$breaks" > "$folder/node-$breaks.log" 2>&1 &
done
flwr run . here --run-config "out=\"$folder/out\"" > "$folder/run.log" 2>&1 || { cat "$folder/run.log"; exit 2; }
for _ in $(seq 600); do
  [ -s "$folder/out" ] && break
  sleep 1
done
read -r seconds good < <(cat "$folder/out"; echo)
echo "flwr $(python -c 'import flwr; print(flwr.__version__)'): $seconds s for a deadline of 90 s," \
  "$good of 1 good replies came"
[ "$seconds" -gt 120 ] && [ "$good" -eq 0 ]
