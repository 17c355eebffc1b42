"""Checkpoints: everything that a run needs to go on, bit for bit, after it was killed.

A checkpoint is a folder ``checkpoints/round-00000012`` that appears in one rename. Its manifest
holds the SHA-256 of the other files and of itself, so that a damaged one is never read.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors

from fedlabels import __version__
from fedlabels.errors import CheckpointError, writing
from fedlabels.machine.files import (
    TEMPORARY,
    json_bytes,
    sync_folder,
    temporary_name,
    write_atomic,
    write_synced,
)
from fedlabels.machine.tensors import tensor_bytes
from fedlabels.settings.hashing import config_hash, differing_keys, flatten
from fedlabels.worker.state import Version, pack, unpack

Arrays = dict[str, NDArray[Any]]

FORMAT_VERSION = 1
MODEL, STRATEGY, STATES = "model.safetensors", "strategy.safetensors", "states.safetensors"
MANIFEST = "manifest.json"
_NAME = re.compile(r"round-(\d{8,})")
_DEALT_BY = ("partition.file", "labels.file")  # settings whose files decide who holds what
_OWN_KEYS = ("round", "config_hash", "format_version", "package_version", "files", "strategy")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Parameters
    ----------
    path : Path
        Its folder.
    round : int
        Last round that is done, >= 0.
    arrays : dict of str to ndarray
        The global model.
    strategy_arrays : dict of str to ndarray
        Arrays of the strategy's state.
    strategy_values : dict
        JSON part of the strategy's state.
    states : dict of int to Version, or None
        The newest state of every client that has one; None where an earlier version wrote it.
    manifest : dict
        The rest: flat settings under ``config``, ``federation_hash``, and what the run added.
    """

    path: Path
    round: int
    arrays: Arrays
    strategy_arrays: Arrays
    strategy_values: dict[str, Any]
    states: dict[int, Version] | None
    manifest: dict[str, Any]


def write_checkpoint(
    folder: Path,
    round_index: int,
    arrays: Mapping[str, NDArray[Any]],
    strategy_state: tuple[Mapping[str, NDArray[Any]], Mapping[str, Any]],
    manifest: Mapping[str, Any],
    *,
    states: Mapping[int, Version] | None = None,
    header: Mapping[str, str] | None = None,
    keep: int = 2,
) -> Path:
    """Write the state after a round; kill it anywhere and the previous one is intact.

    Parameters
    ----------
    folder : Path
        The run folder.
    round_index : int
        Last round that is done, >= 0.
    arrays : mapping of str to ndarray
        The global model.
    strategy_state : tuple of mappings
        Arrays, and JSON values, of the strategy.
    manifest : mapping
        JSON values; ``config`` (the resolved settings, nested or flat) and ``federation_hash``
        are needed.
    states : mapping of int to Version or None
        The newest state of every client that has one; None is no client.
    header : mapping of str to str, or None
        One entry at most, for the header of the model's file.
    keep : int
        Checkpoints that stay, >= 1. Those of later rounds, left by an abandoned future, go.

    Returns
    -------
    Path
        The checkpoint's folder.

    Raises
    ------
    CheckpointError
        If something cannot be stored.
    DiskError
        If the disk refuses.
    """
    if round_index < 0 or keep < 1:
        raise CheckpointError(f"need round >= 0 and keep >= 1, got {round_index} and {keep}")
    path = folder / "checkpoints" / f"round-{round_index:08d}"
    files = {
        MODEL: tensor_bytes(arrays, header),
        STRATEGY: tensor_bytes(strategy_state[0]),
        STATES: tensor_bytes(pack(states or {})),
    }
    _require_json(strategy_state[1], "strategy state")
    values = _manifest(round_index, manifest, strategy_state[1], files)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_folder(path, {**files, MANIFEST: json_bytes(values)})
        _prune(path.parent, round_index, keep)
    return path


def latest_checkpoint(folder: Path) -> Path | None:
    """Find the checkpoint of the highest round.

    Parameters
    ----------
    folder : Path
        The run folder.

    Returns
    -------
    Path or None
        The checkpoint's folder; None when there is none. Unfinished ones are skipped.
    """
    found = _finished(folder / "checkpoints")
    return found[max(found)] if found else None


def read_checkpoint(
    path: Path, *, config: Mapping[str, Any] | None = None, federation_hash: str | None = None
) -> Checkpoint:
    """Read a checkpoint and check that it is whole and belongs to this run.

    Parameters
    ----------
    path : Path
        The checkpoint's folder.
    config : mapping or None
        Settings of the run that resumes, nested or flat; None skips the check.
    federation_hash : str or None
        Hash of its federation; None skips the check.

    Returns
    -------
    Checkpoint
        Arrays with the dtypes and shapes that were written.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, the format is unknown, or the checkpoint was made with
        other settings or another federation.
    """
    manifest = _read_manifest(path)
    found = Checkpoint(
        path=path,
        round=manifest["round"],
        arrays=_read_tensors(path / MODEL, manifest["files"]),
        strategy_arrays=_read_tensors(path / STRATEGY, manifest["files"]),
        strategy_values=manifest["strategy"],
        states=_read_states(path / STATES, manifest["files"]),
        manifest={key: value for key, value in manifest.items() if key not in ("files", "sha256")},
    )
    check_origin(found, config=config, federation_hash=federation_hash)
    return found


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """Read the checkpoint of the highest round; None when there is none.

    Parameters
    ----------
    folder : Path
        The run folder.

    Raises
    ------
    CheckpointError
        If it is damaged, or its format is unknown.
    """
    path = latest_checkpoint(folder)
    return None if path is None else read_checkpoint(path)


def check_origin(
    checkpoint: Checkpoint,
    *,
    config: Mapping[str, Any] | None = None,
    federation_hash: str | None = None,
) -> None:
    """Check that a checkpoint belongs to a run.

    Parameters
    ----------
    checkpoint : Checkpoint
        Where the run goes on from.
    config : mapping or None
        Settings of the run that resumes, nested or flat; None skips the check.
    federation_hash : str or None
        Hash of its federation; None skips the check.

    Raises
    ------
    CheckpointError
        If other settings or another federation made it.
    """
    path, saved = checkpoint.path, checkpoint.manifest["federation_hash"]
    if config is not None:
        _check_config(path, checkpoint.manifest, config)
    if federation_hash is not None and saved != federation_hash:
        known = checkpoint.manifest["config"]
        files = [f"{key}={known[key]}" for key in _DEALT_BY if known.get(key)]
        raise CheckpointError(
            f"{path} was made with another federation ({saved[:12]}, now {federation_hash[:12]}):"
            " resume with the same data, partition and labels"
            + (f"; what {' and '.join(files)} held then is needed" if files else "")
        )


def write_model(
    path: Path, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, str] | None = None
) -> None:
    """Write a model alone, atomically.

    Parameters
    ----------
    path : Path
        A ``.safetensors`` file.
    arrays : mapping of str to ndarray
        Equal arrays give equal bytes, whatever their order: the file's SHA-256 compares runs.
    header : mapping of str to str, or None
        What the file's header says beside the tensors: one entry at most.

    Raises
    ------
    CheckpointError
        If an array has a dtype that cannot be stored.
    """
    write_atomic(path, tensor_bytes(arrays, header))


def _require_json(value: Any, where: str) -> None:
    """Refuse what JSON would change silently: tuples, numbers as keys, numpy scalars."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise CheckpointError(f"{where} has the key {key!r}: only text can be a key")
            _require_json(item, f"{where}.{key}")
    elif type(value) is list:
        for item in value:
            _require_json(item, f"{where}[]")
    elif value is not None and type(value) not in (bool, int, float, str):
        raise CheckpointError(
            f"{where} is a {type(value).__name__}: store arrays in the first part of the state,"
            " and only text, numbers, lists and dicts in the second"
        )


def _manifest(
    round_index: int,
    given: Mapping[str, Any],
    strategy_values: Mapping[str, Any],
    files: Mapping[str, bytes],
) -> dict[str, Any]:
    missing = [key for key in ("config", "federation_hash") if key not in given]
    taken = [key for key in (*_OWN_KEYS, "sha256") if key in given]
    if missing or taken:
        raise CheckpointError(f"checkpoint manifest lacks {missing} or sets reserved keys {taken}")
    values = {
        **given,
        "config": flatten(given["config"]),
        "config_hash": config_hash(given["config"]),
        "format_version": FORMAT_VERSION,
        "package_version": __version__,
        "round": round_index,
        "strategy": dict(strategy_values),
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    try:
        return {**values, "sha256": _self_hash(values)}
    except TypeError as error:
        raise CheckpointError(f"checkpoint manifest is no JSON: {error}") from error


def _self_hash(manifest: Mapping[str, Any]) -> str:
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json_bytes(content)).hexdigest()


def _write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    temporary = temporary_name(path)
    try:
        temporary.mkdir()
        for name, content in files.items():
            write_synced(temporary / name, content)
        sync_folder(temporary)
        _swap(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(path.parent)


def _swap(new: Path, path: Path) -> None:
    """Rename a folder over another one, which no system does in one step."""
    if not path.exists():
        os.rename(new, path)
        return
    aside = temporary_name(path)
    os.rename(path, aside)
    try:
        os.rename(new, path)
    except OSError:
        os.rename(aside, path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _prune(checkpoints: Path, round_index: int, keep: int) -> None:
    """Remove old checkpoints, those of later rounds, and what a killed process left."""
    found = _finished(checkpoints)
    past = sorted(number for number in found if number <= round_index)
    for number in {*found} - {*past[-keep:]}:
        aside = temporary_name(found[number])
        os.rename(found[number], aside)  # so that a half-removed folder is never taken for whole
    for leftover in checkpoints.glob(f"{TEMPORARY}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _finished(checkpoints: Path) -> dict[int, Path]:
    if not checkpoints.is_dir():
        return {}
    matches = ((_NAME.fullmatch(entry.name), entry) for entry in checkpoints.iterdir())
    return {int(match[1]): entry for match, entry in matches if match and entry.is_dir()}


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(file, str(error)) from error
    if not isinstance(manifest, dict) or manifest.get("sha256") != _self_hash(manifest):
        raise _damaged(file, "its hash differs")
    if manifest["format_version"] != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format {manifest['format_version']}, this version reads {FORMAT_VERSION}:"
            f" resume with fedlabels {manifest['package_version']}"
        )
    return manifest


def _read_tensors(file: Path, hashes: Mapping[str, str]) -> Arrays:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise _damaged(file, str(error)) from error
    if hashlib.sha256(content).hexdigest() != hashes[file.name]:
        raise _damaged(file, "its SHA-256 differs from the one in manifest.json")
    return dict(load_tensors(content))


def _read_states(file: Path, hashes: Mapping[str, str]) -> dict[int, Version] | None:
    return unpack(_read_tensors(file, hashes)) if file.name in hashes else None


def _check_config(path: Path, manifest: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    differing = differing_keys(manifest["config"], config)
    if not differing:
        return
    lines = "\n  ".join(differing)
    raise CheckpointError(
        f"{path} is of a run whose settings are others (saved -> now):\n  {lines}\n"
        "Set them back to resume; to go on from its model with other settings begin a new run with "
        f"model.start={path.parents[1]} in place of resume=."
    )


def _damaged(file: Path, reason: str) -> CheckpointError:
    folder = file.parent
    others = _finished(folder.parent)
    earlier = [number for number, path in sorted(others.items()) if path.name < folder.name]
    then = f"resumes from round {earlier[-1]}" if earlier else "starts the run over"
    return CheckpointError(
        f"checkpoint file {file} is damaged ({reason}): delete the folder {folder.name}; resuming"
        f" then {then}"
    )
