"""A run folder has one owner, whoever comes second is told who it is, and the end frees it."""

import errno
import json
import logging
import multiprocessing
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedlabels.errors import DiskError, FedLabelsError, RunError
from fedlabels.run import RunFolder, latest_checkpoint
from fedlabels.run.folder import new_folder
from fedlabels.run.folder.owner import LOCK, owned
from tests.end_to_end.harness import FEDAVG, config_of, contents, prints, simulate, table

SETTINGS = (*FEDAVG, "rounds=3", "training.steps=2", "checkpoint_every=1")
FORK = multiprocessing.get_context("fork")


def hold(folder: Path, ready: Any, forked: bool) -> None:
    with owned(folder):
        child = os.fork() if forked else 0
        if forked and child == 0:
            signal.pause()  # a process that the owner has forked lives on
        ready.send(child)
        signal.pause()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Any]:
    """Another process that owns ``tmp_path / "run"``; gives it and a process that it has forked."""
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=hold, args=(tmp_path / "run", theirs, True))
    process.start()
    child = ours.recv()
    yield process
    process.kill()
    process.join()
    os.kill(child, signal.SIGKILL)


def test_the_second_is_told_who_the_first_is(tmp_path: Path, holder: Any) -> None:
    folder = tmp_path / "run"
    with pytest.raises(RunError, match=rf"{folder} is in use by process {holder.pid} on .*, since"):
        simulate(folder, config_of(*SETTINGS))
    assert sorted(path.name for path in folder.iterdir()) == [LOCK]
    assert json.loads((folder / LOCK).read_text())["pid"] == holder.pid


def test_a_killed_owner_lets_go_although_what_it_forked_lives(tmp_path: Path, holder: Any) -> None:
    holder.kill()
    holder.join()
    with owned(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / LOCK).read_text())["pid"] == os.getpid()
    assert not (tmp_path / "run" / LOCK).exists()


def test_who_waits_gets_it_when_it_is_free(tmp_path: Path, holder: Any) -> None:
    ours, theirs = FORK.Pipe()

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            theirs.send(record.getMessage())

    def wait() -> None:
        logging.getLogger("fedlabels.run.folder.owner").addHandler(Told())
        with owned(tmp_path / "run", wait=True):
            theirs.send("got it")

    waiting = FORK.Process(target=wait)
    waiting.start()
    assert f"is in use by process {holder.pid} on " in ours.recv()
    assert not ours.poll(0.2)
    holder.kill()
    assert ours.recv() == "got it"
    waiting.join()


class Intruder:
    """Another process that tries the folder while the run goes on: here in the same one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.refused = folder, 0
        self.config = config_of(*SETTINGS, "rounds=9")

    def on_run_start(self, *, folder: Any, config: Any) -> None:
        """Do nothing."""

    def on_round_end(self, *, record: Any) -> bool:
        before = contents(self.folder)
        for resume in (True, False):
            with pytest.raises(RunError, match="is in use by process"):
                simulate(self.folder, self.config, resume=resume)
            self.refused += 1
        assert contents(self.folder) == before
        return False

    def on_run_end(self, *, folder: Any) -> None:
        self.on_round_end(record={})


def test_a_live_run_is_neither_resumed_nor_begun_again(tmp_path: Path) -> None:
    intruder = Intruder(tmp_path / "run")
    simulate(tmp_path / "run", config_of(*SETTINGS), callbacks=[intruder])
    assert intruder.refused == 2 * (3 + 1)
    simulate(tmp_path / "alone", config_of(*SETTINGS))
    assert prints(tmp_path / "run") == prints(tmp_path / "alone")
    assert not (tmp_path / "run" / LOCK).exists()


def test_new_folders_never_collide(tmp_path: Path) -> None:
    def make(pipe: Any) -> None:
        pipe.send([str(new_folder(tmp_path / "00-14-33-fedavg")) for _ in range(5)])

    pipes = [FORK.Pipe() for _ in range(4)]
    makers = [FORK.Process(target=make, args=(theirs,)) for _, theirs in pipes]
    for maker in makers:
        maker.start()
    names = [name for ours, _ in pipes for name in ours.recv()]
    for maker in makers:
        maker.join()
    assert len(set(names)) == 20
    assert str(tmp_path / "00-14-33-fedavg") in names


def test_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        config = config_of(*SETTINGS, "method=fedbn", "model.norm=batch", "rounds=1")
        simulate(tmp_path / "run", config)
    finally:
        os.umask(before)
    modes = {
        path.relative_to(tmp_path): oct(stat.S_IMODE(path.stat().st_mode))
        for path in (tmp_path / "run").rglob("*")
        if path.is_file()
    }
    assert any(path.match("run/state/*/*.safetensors") for path in modes)
    assert set(modes.values()) == {"0o640"}, modes


class FullDisk:
    """A disk that is full from a moment on, for some files: writing them fails as on a real one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *parts: str) -> None:
        self.full, write = False, Path.open

        def opened(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
            if self.full and set(mode) & set("wax") and any(part in path.name for part in parts):
                raise OSError(28, "No space left on device")
            return write(path, mode, *rest, **more)

        monkeypatch.setattr(Path, "open", opened)

    def on_run_start(self, *, folder: Any, config: Any) -> None:
        """Do nothing."""

    def on_round_end(self, *, record: Any) -> bool:
        self.full = record["round"] >= 2
        return False

    def on_run_end(self, *, folder: Any) -> None:
        """Do nothing."""


def test_a_disk_that_turns_read_only_is_one_line(tmp_path: Path) -> None:
    folder, config = tmp_path / "run", config_of(*SETTINGS, "method=fedbn", "model.norm=batch")

    def refusing(call: Any) -> Any:
        def called(*arguments: Any, **more: Any) -> Any:
            name = str(arguments[0])
            if disk.full and name.startswith(f"{tmp_path}/") and not name.endswith(LOCK):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), name)
            return call(*arguments, **more)

        return called

    with pytest.MonkeyPatch.context() as patch:
        disk = FullDisk(patch)
        write = Path.open

        def opened(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
            return (refusing(write) if set(mode) & set("wax+") else write)(
                path, mode, *rest, **more
            )

        patch.setattr(Path, "open", opened)
        for name in ("replace", "rename", "mkdir", "unlink"):
            patch.setattr(os, name, refusing(getattr(os, name)))
        with pytest.raises(DiskError, match=r"cannot write .*Read-only.*make the folder") as caught:
            simulate(folder, config, callbacks=[disk])
    assert "\n" not in str(caught.value)
    simulate(folder, config, resume=True)
    simulate(tmp_path / "whole", config)
    assert prints(folder) == prints(tmp_path / "whole")


@pytest.mark.parametrize(
    ("parts", "status", "named"),
    [
        (("clients.csv",), "failed", "clients.csv"),
        (("clients.csv", "manifest.json", ".safetensors"), "running", "round-00000002"),
        (("report.html",), "finished", "report.html"),
    ],
    ids=["a table", "everything", "the report"],
)
def test_a_full_disk_keeps_the_first_error_and_a_true_status(
    parts: tuple[str, ...], status: str, named: str, tmp_path: Path
) -> None:
    folder, config = tmp_path / "run", config_of(*SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        disk = FullDisk(patch, *parts)
        with pytest.raises(FedLabelsError, match=r"No space left.*make room") as caught:
            simulate(folder, config, callbacks=[disk])
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert RunFolder(folder, resume=True).read_manifest()["status"] == status
    assert latest_checkpoint(folder) is not None
    assert not list(folder.glob(".tmp-*"))
    simulate(folder, config, resume=True)
    simulate(tmp_path / "whole", config)
    assert prints(folder) == prints(tmp_path / "whole")
    assert table(folder, "test_class") == table(tmp_path / "whole", "test_class")
    assert (folder / "report.html").exists()
