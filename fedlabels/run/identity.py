"""Whether a run that goes on is the one that was: its data, its code, its plan."""

from collections.abc import Mapping
from typing import Any

from fedlabels.errors import CheckpointError
from fedlabels.run.code import code_of, described, is_other
from fedlabels.run.folder.checkpoint import Checkpoint
from fedlabels.settings.hashing import machine_keys, schedule_of

Settings = Mapping[str, Any]


def planned(config: dict[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """Keep the schedules of a run that is resumed: more rounds do not stretch them.

    Parameters
    ----------
    config : dict
        Resolved settings of the resumed run.
    checkpoint : Checkpoint
        Where it goes on from.

    Returns
    -------
    dict
        The settings, with ``schedule_rounds`` set where ``rounds`` differs from the first run's.
    """
    if config.get("schedule_rounds"):
        return config
    rounds = schedule_of(checkpoint.manifest["config"])
    return config if rounds == config["rounds"] else {**config, "schedule_rounds": rounds}


def check_identity(
    checkpoint: Checkpoint, config: Settings, contents: Mapping[str, str]
) -> list[str]:
    """Check that data and code are those of a checkpoint.

    Parameters
    ----------
    checkpoint : Checkpoint
        Where a run goes on from.
    config : mapping
        Resolved settings.
    contents : mapping of str to str
        What `fedlabels.run.data.contents_of` returns.

    Returns
    -------
    list of str
        What differs and may: for the log and the terminal.

    Raises
    ------
    CheckpointError
        If data have another content, or, unless ``resume_code=any``, the code is another.
    """
    notes = _check_contents(checkpoint, contents)
    saved, now = checkpoint.manifest.get("code"), code_of(config)
    if saved is None:
        saved = {"version": checkpoint.manifest["package_version"]}
    if is_other(saved, now):
        text = f"{checkpoint.path} was made with {described(saved)}, this is {described(now)}"
        if config.get("resume_code", "same") != "any":
            raise CheckpointError(
                f"{text}: the rounds to come may differ from those of an uninterrupted run; set "
                "resume_code=any to go on, or go back to that code"
            )
        notes.append(text)
    elif saved.get("changes") != now.get("changes") and "commit" in saved:
        notes.append(f"the code has other changes than that which made {checkpoint.path}")
    changed = machine_keys(checkpoint.manifest["config"], config)
    if changed:
        notes.append(
            "the last bits differ from those of an uninterrupted run: " + ", ".join(changed)
        )
    return notes


def _check_contents(checkpoint: Checkpoint, contents: Mapping[str, str]) -> list[str]:
    saved = checkpoint.manifest.get("content")
    if saved is None:
        return [f"{checkpoint.path} says nothing of the data's content: it cannot be checked"]
    lines = [
        f"{key}: {saved[key][:12]} -> {contents[key][:12]}"
        for key in sorted(set(saved) & set(contents))
        if saved[key] != contents[key]
    ]
    if lines:
        raise CheckpointError(
            f"{checkpoint.path} was made with data of another content (SHA-256 saved -> now):\n  "
            + "\n  ".join(lines)
            + "\nRestore them, or name the place where they are as they were (dataset.root=...); to"
            " use the new ones start a run in another folder."
        )
    return []
