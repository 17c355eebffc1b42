"""``fedlabels run ... --estimate``: about how long the run would take, and how much memory."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import Any

from fedlabels.answers import JSON
from fedlabels.command.output import answer, table
from fedlabels.errors import ConfigError
from fedlabels.rounds.flower_compat import quieted
from fedlabels.run.console import gigabytes, reading_shown, roughly
from fedlabels.run.estimate import estimate
from fedlabels.run.main import compose_settings

ESTIMATE = "--estimate"
"""The option of ``fedlabels run`` that asks for it."""

USAGE = f"""usage: fedlabels run KEY=VALUE ... {ESTIMATE} [--json]

Says about how long the run would take on this machine and how much memory: one client is trained
for a round and the model is tested once, in this process. Nothing of the run is begun or written.
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status.

    Parameters
    ----------
    arguments : sequence of str
        Settings of the run, and ``--json``.
    """

    def facts(given: Sequence[str]) -> dict[str, Any]:
        wrong = [argument for argument in given if argument.startswith("-")]
        if wrong:
            raise ConfigError(f"{wrong[0]} does not go with {ESTIMATE}; {USAGE.splitlines()[0]}")
        with redirect_stdout(sys.stderr), reading_shown(), quieted():
            found = estimate(compose_settings(given))
        return {"seconds": found.seconds, **asdict(found)}

    rest = [argument for argument in arguments if argument != JSON]
    return answer([JSON] if JSON in arguments else [], USAGE, lambda _: facts(rest), _shown)


def _shown(facts: Mapping[str, Any]) -> str:
    beside = f", on {facts['workers']} workers" if facts["workers"] > 1 else ""
    names = {"evaluation": "for the global model", "own_test": "for the clients' own"}
    tests = [f"{facts[key]:.2g} s {name}" for key, name in names.items() if facts[key]]
    planned = f"{facts['rounds']} rounds of {facts['clients_per_round']} clients"
    rows = [("training", f"{planned}, {facts['client']:.2g} s a client{beside}")]
    if tests:
        rows.append(("testing", f"{facts['evaluations']} times, {' and '.join(tests)}{beside}"))
    rows.append(("reading data", f"{facts['data']:.2g} s"))
    if facts["gpu_memory"]:
        rows.append(("GPU memory", f"{gigabytes(facts['gpu_memory'])} a worker"))
    clients = "1 client" if facts["tried"] == 1 else f"{facts['tried']} clients"
    return (
        f"about {roughly(facts['seconds'])} for {facts['rounds']} rounds, "
        f"{gigabytes(facts['memory'])} of memory\n\n{table(('part', 'made of'), rows)}\n"
        f"This is rough. Tried here: {clients} of middle size of the first round, and one test. Not"
        " in it: the server's own work, checkpoints, the start of workers; and this machine"
        " may be busier or freer later.\n"
    )
