"""``fedlabels methods``: what there is, from the settings and the classes themselves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedlabels import clients, strategies
from fedlabels.cohort import Client, DataSpec, Layout, UnlabeledTraining
from fedlabels.command.output import answer, details, one_of, table, text
from fedlabels.models import build as build_model
from fedlabels.rounds.flower_compat import quiet
from fedlabels.run.agreement import makes_of, sent_by
from fedlabels.settings.docstrings import first_words
from fedlabels.settings.presets import Preset, presets
from fedlabels.strategies.base import Server, ServerStrategy

USAGE = """usage: fedlabels methods [METHOD ...] [--json]

What each method is, where it was published, which labels it learns from, and what goes over the
wire. METHOD: these alone, with all that is known of them.
"""
_SPEC = DataSpec((1, 8, 8), 10)
_NUMBERS = ("no", "one", "two", "three", "four")


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    quiet()
    return answer(arguments, USAGE, _facts, _shown)


def _facts(names: Sequence[str]) -> dict[str, Any]:
    known = presets("method")
    return {"methods": [method(known[name]) for name in one_of("method", known, names)]}


def _shown(facts: Mapping[str, Any]) -> str:
    methods = facts["methods"]
    if len(methods) < len(presets("method")):
        return "\n".join(details(entry) for entry in methods)
    columns = ("name", "wire", "labels", "paper", "page", "what")
    return table(columns, [[text(entry[column]) for column in columns] for entry in methods])


def method(preset: Preset) -> dict[str, Any]:
    """Return what is known of a method.

    Parameters
    ----------
    preset : Preset
        Its file.

    Returns
    -------
    dict
        ``name``, ``what``, ``paper`` and ``page`` (None where the file does not say), ``client``,
        ``strategy``; ``labels``: ``"clients"`` for labels that lie with the clients, ``"all"``
        where the simulation reveals the hidden ones, too; ``unlabeled``: whether it has settings
        for samples without label; ``wire``: in words, what clients send; ``up`` and
        ``down``: the names of what goes over the wire.
    """
    names = preset.chosen
    settings = {**preset.content.get("client", {}), **preset.content.get("training", {})}
    client = clients.build({"name": names["client"], **settings})
    chosen = preset.content.get("strategy", {})
    strategy = strategies.build(names["strategy"], chosen)
    owner = type(strategy) if preset.name == names["strategy"] else type(client)
    return {
        "name": preset.name,
        "what": preset.what or first_words(owner),
        "paper": preset.facts.get("Paper"),
        "page": preset.facts.get("Page"),
        "client": names["client"],
        "strategy": names["strategy"],
        "labels": "all" if client.sees_all_labels else "clients",
        "unlabeled": isinstance(client, UnlabeledTraining),
        **_wire(client, strategy, names["strategy"], chosen),
    }


def _wire(
    client: Client, strategy: ServerStrategy, name: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Say what goes up and down, as client and strategy declare it for a small model."""
    model = build_model("mlp", _SPEC, feature_dim=8)
    arrays = {key: np.asarray(value.detach()) for key, value in model.state_dict().items()}
    server = Server(
        rounds=1, clients_per_round=2, layout=Layout(model), num_classes=_SPEC.num_classes,
        feature_dim=8,
    )  # fmt: skip
    sent = sent_by(name, settings, server, arrays, 2)
    made = makes_of(client)
    up = [term for term in strategy.needs if made is None or term in made]
    down = ["model"] if strategy.has_model else sorted(sent.arrays)
    down += sorted(sent.payloads | sent.settings)
    models = sum(term in sent.models for term in up)
    words = "model" if models == 1 else f"{_NUMBERS[models]} models" if models else ", ".join(up)
    return {"wire": words or "nothing", "up": up, "down": down}
