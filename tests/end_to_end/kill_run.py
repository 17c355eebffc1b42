"""A run that kills itself without warning: ``python -m tests.end_to_end.kill_run FOLDER WHERE``."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from fedlabels.run import round as rounds
from fedlabels.run.folder import RunFolder
from fedlabels.worker.state import StateStore
from tests.end_to_end.harness import FEDAVG, config_of, simulate, with_client
from tests.end_to_end.toys import Rememberer

ROUND = 4
SETTINGS = (*FEDAVG, "rounds=5", "checkpoint_every=2")
CLIENT = Rememberer(lr=0.1, steps=5)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after_two_states() -> None:
    """Die in the middle of a round: two clients' states of it are written, the others' are not."""
    write, written = StateStore.write, []

    def counted(self: StateStore, client_id: int, round_index: int, state: Any) -> None:
        write(self, client_id, round_index, state)
        written.append(round_index)
        if written.count(ROUND) == 2:
            _die()

    StateStore.write = counted  # type: ignore[method-assign]


def in_a_checkpoint() -> None:
    """Die while a checkpoint is written: its folder has its temporary name."""
    from fedlabels.run.folder import checkpoint

    def killed(new: Path, path: Path) -> None:
        if path.name.endswith(str(ROUND)):
            _die()
        os.rename(new, path)

    checkpoint._swap = killed


def between_tables() -> None:
    """Die when the clients of a round are written, but not its row of rounds.csv."""
    write = rounds.write_round

    def killed(folder: RunFolder, record: Any, *tables: Any) -> None:
        if record["round"] == ROUND:
            folder.rounds.append = lambda rows: _die()  # type: ignore[method-assign]
        write(folder, record, *tables)

    rounds.write_round = killed  # type: ignore[assignment]


def before_the_first_checkpoint() -> None:
    """Die in round 1: there is nothing to go back to."""
    rounds.write_round = lambda folder, record, *tables: _die()  # type: ignore[assignment]


WHERE = {
    f.__name__: f
    for f in (after_two_states, in_a_checkpoint, between_tables, before_the_first_checkpoint)
}

if __name__ == "__main__":
    WHERE[sys.argv[2]]()
    simulate(Path(sys.argv[1]), config_of(*SETTINGS), with_client(CLIENT))
