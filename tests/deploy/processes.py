"""A SuperLink and its SuperNodes as processes, each with a home and a log of its own."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.waiting import LIMIT

BIN = Path(sys.executable).parent


class Processes:
    """What runs in a folder, by name.

    Parameters
    ----------
    root : Path
        The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        values = {k: v for k, v in os.environ.items() if not k.startswith("FLWR_")}
        self.environment = {
            **values,
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
            "FLWR_HOME": str(root / "client"),
            "OMP_NUM_THREADS": "1",
        }

    def run(self, *command: str, **more: str) -> str:
        environment = {**self._with_path(BIN), **more}
        done = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True,
            timeout=LIMIT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def start(self, name: str, *command: str, programs: Path = BIN) -> None:
        """Start a program of a folder; what it starts itself is taken from there, too."""
        environment = {**self._with_path(programs), "FLWR_HOME": str(self.root / f"home-{name}")}
        with (self.root / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [programs / command[0], *command[1:]], cwd=self.root, env=environment, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def tend(self, name: str, start: Callable[[], None]) -> None:
        """Start a process that is not there or has ended, as systemd does."""
        if name in self.processes and self.processes[name].poll() is None:
            return
        if name in self.processes:
            self.kill(name)  # what it started outlives it
        start()

    def kill(self, name: str, how: int = signal.SIGKILL) -> None:
        process = self.processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        process.wait(LIMIT)

    def log(self, name: str) -> str:
        return (self.root / f"{name}.log").read_text(errors="replace")

    def close(self) -> None:
        for name in list(self.processes):
            self.kill(name)

    def _with_path(self, programs: Path) -> dict[str, str]:
        return {**self.environment, "PATH": f"{programs}{os.pathsep}{self.environment['PATH']}"}
